"""`subvocab inspect` tells what a file or folder holds, or that it holds nothing known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

import subvocab as sv
from subvocab.cli.app import app
from subvocab.model.row_adapter import RowAdapter
from tests import tiny_tokenizers


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def _described(path: Path) -> dict[str, Any]:
    status, printed, said = _run(path, "--json")
    assert (status, said) == (0, "")
    held: dict[str, Any] = json.loads(printed)
    return held


@pytest.fixture
def counts() -> sv.TokenCounts:
    """Count the tokens of a text."""
    return sv.scan(["the cat sat"], tokenizer=tiny_tokenizers.wordpiece(), full_vocab_size=300)


def test_inspect_describes_counts(tmp_path: Path, counts: sv.TokenCounts) -> None:
    """Counts tell what was seen, and how many rows that asks for."""
    counts.save(tmp_path / "counts.safetensors")

    assert _described(tmp_path / "counts.safetensors") == {
        "kind": "token_counts",
        "full_vocab_size": 300,
        "unique_tokens": counts.unique_tokens,
        "total_tokens": counts.total_tokens,
        "special_tokens": counts.special_token_ids.size,
        "partial_vocab_size": len(counts.partial_vocabulary()),
        "fingerprint": counts.fingerprint,
    }


def test_inspect_describes_a_vocabulary(tmp_path: Path, counts: sv.TokenCounts) -> None:
    """A vocabulary tells its two sizes."""
    vocabulary = counts.partial_vocabulary()
    vocabulary.save(tmp_path / "vocabulary.safetensors")

    assert _described(tmp_path / "vocabulary.safetensors") == {
        "kind": "partial_vocabulary",
        "full_vocab_size": 300,
        "partial_vocab_size": len(vocabulary),
        "fingerprint": vocabulary.fingerprint,
    }


@pytest.mark.parametrize("name", [".", "model.safetensors"])
def test_inspect_describes_a_whole_checkpoint(base: Path, name: str) -> None:
    """A folder and its only file hold the same tensors."""
    held = _described(base / name)

    assert (held["kind"], held["files"]) == ("checkpoint", 1)
    assert held["largest"][0] == "bert.embeddings.word_embeddings.weight F32 [300, 32]"


def test_inspect_describes_a_compact_checkpoint(base: Path) -> None:
    """A compact checkpoint tells which model it came from, and its V′."""
    vocabulary = sv.PartialVocabulary(np.array([0, 7]), full_vocab_size=300)
    model = sv.from_pretrained(AutoModelForSequenceClassification, base, vocabulary)
    sv.save_compact(model, base.parent / "small")

    held = _described(base.parent / "small")

    assert held["kind"] == "compact_checkpoint"
    assert held["base"] == str(base)
    assert held["vocabulary"]["fingerprint"] == sv.vocabulary_of(model).fingerprint


@pytest.mark.parametrize("differences", [False, True])
def test_inspect_describes_a_row_adapter(base: Path, tmp_path: Path, differences: bool) -> None:
    """How many rows of which table, and of which base."""
    vocabulary = sv.PartialVocabulary(np.array([0, 7]), full_vocab_size=300)
    model = sv.from_pretrained(AutoModelForSequenceClassification, base, vocabulary)
    adapter = RowAdapter.of(model, differences=differences)
    adapter.save(tmp_path / "rows.safetensors")
    rows = len(sv.vocabulary_of(model))

    held = _described(tmp_path / "rows.safetensors")

    assert held == {
        "kind": "row_adapter",
        "fingerprint": adapter.fingerprint,
        "tables": [
            {
                "table": "bert.embeddings.word_embeddings.weight",
                "rows": rows,
                "of": 300,
                "numbers": f"[{rows}, 32] float32",
                "kept_as": "differences" if differences else "learned rows",
                "rest_shift": "no",
                "base_fingerprint": model.get_input_embeddings().table.matrix.fingerprint,
            }
        ],
    }
    _, printed, _ = _run(tmp_path / "rows.safetensors")
    assert "word_embeddings" in printed


def test_inspect_prints_a_table(tmp_path: Path, counts: sv.TokenCounts) -> None:
    """Without --json a person reads it."""
    counts.save(tmp_path / "counts.safetensors")

    status, printed, said = _run(tmp_path / "counts.safetensors")

    assert (status, said) == (0, "")
    assert "full vocab size" in printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "There is no file "),
        ("nothing", "holds neither `model.safetensors` nor `model.safetensors.index.json`. "),
        ("garbage", "is no whole safetensors file: "),
        ("garbage.safetensors", "garbage.safetensors"),
        ("empty.safetensors", "empty.safetensors"),
    ],
)
def test_inspect_ends_with_2_and_one_message(tmp_path: Path, name: str, message: str) -> None:
    """What is nothing known is said to be so, without a traceback."""
    (tmp_path / "nothing").mkdir()
    (tmp_path / "garbage").write_bytes(b"garbage " * 9)
    (tmp_path / "garbage.safetensors").write_bytes(b"garbage " * 9)
    (tmp_path / "empty.safetensors").touch()

    status, printed, said = _run(tmp_path / name)

    assert (status, printed) == (2, "")
    assert message in said
    assert said.startswith("subvocab: ")
    assert said.count("\n") == 1


def test_inspect_takes_what_is_in_a_name_as_it_is(tmp_path: Path, counts: sv.TokenCounts) -> None:
    """Brackets in a path are no markup."""
    counts.save(tmp_path / "[red]x.safetensors")

    status, printed, _ = _run(tmp_path / "[red]x.safetensors")

    assert status == 0
    assert "[red]x" in printed
