"""Counts are a commutative monoid, so that any sharding of a corpus gives the same result."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from subvocab.vocabulary import TokenCounts
from tests.properties.strategies import token_counts

NOTHING = TokenCounts(np.zeros(7, dtype=np.int64))


@given(token_counts(), token_counts(), token_counts())
def test_add_is_associative(a: TokenCounts, b: TokenCounts, c: TokenCounts) -> None:
    """How parts are grouped does not matter."""
    assert (a + b) + c == a + (b + c)


@given(token_counts(), token_counts())
def test_add_is_commutative(a: TokenCounts, b: TokenCounts) -> None:
    """The order of parts does not matter."""
    assert a + b == b + a


@given(token_counts())
def test_add_has_a_neutral_element(counts: TokenCounts) -> None:
    """An empty part changes nothing."""
    assert counts + NOTHING == counts


@given(st.lists(st.integers(0, 6)), st.integers(1, 5))
def test_counts_of_shards_add_up(corpus: list[int], shard_count: int) -> None:
    """Counts of A + B are counts of A plus counts of B, for any sharding."""
    shards = [corpus[k::shard_count] for k in range(shard_count)]

    counted = [
        TokenCounts(np.bincount(np.array(s, dtype=np.int64), minlength=7))
        for s in (corpus, *shards)
    ]

    assert counted[0] == sum(counted[1:], NOTHING)


@given(token_counts(), token_counts())
def test_partial_vocabulary_of_a_sum_is_the_union(a: TokenCounts, b: TokenCounts) -> None:
    """V′ of two parts holds what either part uses."""
    extra = [0]

    union = a.partial_vocabulary(extra).union(b.partial_vocabulary(extra))

    assert (a + b).partial_vocabulary(extra) == union


@given(token_counts())
def test_load_gives_what_was_saved(counts: TokenCounts) -> None:
    """Loading undoes saving."""
    with tempfile.TemporaryDirectory() as folder:
        counts.save(Path(folder) / "c.safetensors")

        assert TokenCounts.load(Path(folder) / "c.safetensors") == counts
