"""The exactness matrix that is shown: it has every row, and its signs are what is measured."""

from __future__ import annotations

import csv

import pytest

from tests.matrix import ALL_OPTIMIZERS, TABLE, cell, combinations

with TABLE.open(encoding="utf-8", newline="") as file:
    ROWS = {(row["family"], row["head"]): row for row in csv.DictReader(file)}


def test_it_has_every_family_head_and_optimizer() -> None:
    """A new one is measured before it is shown."""
    assert set(ROWS) == set(combinations())
    assert all(row.keys() >= ALL_OPTIMIZERS.keys() for row in ROWS.values())


@pytest.mark.parametrize(
    ("family", "head", "optimizer", "sign"),
    [
        ("bert", "sequence", "adamw-fused", "="),
        ("t5", "encoder", "radam", "="),
        ("bert", "sequence", "adam-l2", "d"),
        ("bert", "sequence", "adafactor", "~"),
        ("gpt2", "causal-lm", "sgd", "~"),
    ],
)
def test_a_cell_is_what_is_measured(family: str, head: str, optimizer: str, sign: str) -> None:
    """One of each sign."""
    assert cell(family, head, optimizer) == ROWS[family, head][optimizer] == sign


def test_every_head_without_vocabulary_is_equal() -> None:
    """Under every optimizer that works on each number alone, at every precision."""
    alone = ALL_OPTIMIZERS.keys() - {"adamw-decay", "adam-l2", "adafactor"}
    without = [row for (_, head), row in ROWS.items() if not head.endswith("lm")]

    assert len(without) > 50
    assert all(row[name] == "=" for row in without for name in alone)
