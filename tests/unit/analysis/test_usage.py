"""Tests of how much of the text a part of the vocabulary covers."""

from __future__ import annotations

import numpy as np
import pytest

from subvocab.analysis.usage import coverage, tokens_to_cover, usage_figures
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts

COUNTS = TokenCounts(np.array([10, 0, 60, 30]))
NOTHING = TokenCounts(np.zeros(3, dtype=np.int64))


def test_usage_figures_tell_tokens_from_rows() -> None:
    """A special token is kept, but was not seen."""
    counts = TokenCounts(COUNTS.counts, np.array([0, 1]))

    assert usage_figures(counts) == {
        "full_vocab_size": 4,
        "unique_tokens": 3,
        "total_tokens": 100,
        "partial_vocab_size": 4,
    }


def test_coverage_adds_up_the_most_frequent_first() -> None:
    """The order of ids is no matter; what was not seen is no token of the text."""
    assert coverage(COUNTS).tolist() == [0.6, 0.9, 1.0]
    assert coverage(NOTHING).size == 0


@pytest.mark.parametrize(
    ("share", "tokens"), [(0.01, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.91, 3), (1.0, 3)]
)
def test_tokens_to_cover_is_the_smallest_number(share: float, tokens: int) -> None:
    """A share that is met exactly needs no further token, however it is rounded."""
    assert tokens_to_cover(COUNTS, share) == tokens


def test_tokens_to_cover_agrees_with_coverage() -> None:
    """One is the inverse of the other."""
    counts = TokenCounts(np.random.default_rng(0).zipf(1.3, 500).clip(max=10**9))
    covered = coverage(counts)

    for share in np.linspace(0.05, 0.95, 10).tolist():
        m = tokens_to_cover(counts, share)
        assert covered[m - 1] >= share > (covered[m - 2] if m > 1 else 0)


def test_nothing_covers_nothing() -> None:
    """An empty dataset needs no tokens."""
    assert tokens_to_cover(NOTHING, 0.5) == 0


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_tokens_to_cover_refuses_what_is_no_share(share: float) -> None:
    """Per cent instead of a share, for one."""
    with pytest.raises(DataError, match=r"cannot be covered, expected one in \(0, 1\]"):
        tokens_to_cover(COUNTS, share)
