"""Tests of the growth of a vocabulary."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from subvocab.errors import CheckpointError, VocabularyMismatchError
from subvocab.vocabulary import TokenCounts, VocabularyGrowth

# The dataset 5 1 1 7 over nine tokens.
COUNTS = TokenCounts(np.bincount([5, 1, 1, 7], minlength=9), np.array([0]))
GROWTH = VocabularyGrowth(COUNTS, np.array([-1, 1, -1, -1, -1, 0, -1, 3, -1]))


def test_unique_after_counts_the_distinct_among_the_first() -> None:
    """After none, one, … and more than there are."""
    assert GROWTH.unique_after(np.array([0, 1, 2, 3, 4, 99])).tolist() == [0, 1, 2, 2, 3, 3]


def test_curve_ends_with_everything() -> None:
    """All points of a short dataset; the first and the last of a long one."""
    tokens, unique = GROWTH.curve()
    assert (tokens.tolist(), unique.tolist()) == ([1, 2, 3, 4], [1, 2, 2, 3])

    long = VocabularyGrowth(TokenCounts(np.array([10_000])), np.array([0]))
    tokens, unique = long.curve(3)
    assert (tokens.tolist(), unique.tolist()) == ([1, 100, 10_000], [1, 1, 1])


def test_curve_of_nothing_is_empty() -> None:
    """A dataset without tokens has no points."""
    nothing = VocabularyGrowth(TokenCounts(np.zeros(3, dtype=np.int64)), np.full(3, -1))

    assert [side.size for side in nothing.curve()] == [0, 0]


def test_add_reads_the_other_after_this() -> None:
    """Positions of the second move; a token of both keeps its first."""
    other = VocabularyGrowth(
        TokenCounts(np.bincount([2, 5], minlength=9)), np.array([-1, -1, 0, -1, -1, 1, -1, -1, -1])
    )

    assert (GROWTH + other).first_seen.tolist() == [-1, 1, 4, -1, -1, 0, -1, 3, -1]
    assert (other + GROWTH).first_seen.tolist() == [-1, 3, 0, -1, -1, 1, -1, 5, -1]
    assert (GROWTH + other).counts == COUNTS + other.counts


@pytest.mark.parametrize(
    ("first_seen", "message"),
    [
        ([0, -1], "`first_seen` tells of 2 tokens, and the counts of 3."),
        (
            [0, -1, 2],
            "Token id 1 was counted 1 times among 3 tokens, but first seen after -1.",
        ),
        (
            [0, 3, -1],
            "Token id 1 was counted 1 times among 3 tokens, but first seen after 3.",
        ),
        (
            [0, 1, 2],
            "Token id 2 was counted 0 times among 3 tokens, but first seen after 2.",
        ),
    ],
)
def test_growth_refuses_what_does_not_fit_its_counts(first_seen: list[int], message: str) -> None:
    """Every token counted has a place among the tokens read, and no other."""
    with pytest.raises(
        VocabularyMismatchError, match=f"^{re.escape(message)} Take both from one scan.$"
    ):
        VocabularyGrowth(TokenCounts(np.array([2, 1, 0])), np.array(first_seen))


def test_growth_is_a_value(tmp_path: Path) -> None:
    """Files and pickles give it back, read-only; another order of reading is another value."""
    GROWTH.save(tmp_path / "g.safetensors")
    for copy in (
        VocabularyGrowth.load(tmp_path / "g.safetensors"),
        pickle.loads(pickle.dumps(GROWTH)),  # noqa: S301
    ):
        assert copy == GROWTH
        assert hash(copy) == hash(GROWTH)
        assert not copy.first_seen.flags.writeable

    first_seen = GROWTH.first_seen.copy()
    first_seen[[1, 5]] = [0, 2]
    assert VocabularyGrowth(COUNTS, first_seen) != GROWTH


def test_load_refuses_a_record_of_other_content(tmp_path: Path) -> None:
    """Right kind, wrong arrays."""
    path = tmp_path / "g.safetensors"
    tensors = {"counts": np.array([1]), "special_token_ids": np.array([0])}
    save_file(tensors, path, metadata={"subvocab.kind": "vocabulary_growth"})

    with pytest.raises(CheckpointError, match="holds no vocabulary growth: 'first_seen'"):
        VocabularyGrowth.load(path)
