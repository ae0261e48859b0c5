"""The growth of a vocabulary does not depend on how a corpus is cut, kept or counted."""

from __future__ import annotations

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subvocab.data import counting, recipe, scan, scan_growth, words
from tests import tiny_tokenizers
from tests.properties.test_scan_laws import ROWS, SIZE, TEXTS, TINY


def _first_places(ids: list[int]) -> list[int]:
    """Find first occurrences the slow, obvious way."""
    return [ids.index(token_id) if token_id in ids else -1 for token_id in range(SIZE)]


@settings(deadline=None)
@given(rows=ROWS, job=st.sampled_from([1, 3, 1 << 20]), threads=st.integers(1, 3))
def test_first_places_are_those_of_the_ids_side_by_side(
    rows: list[list[int]], job: int, threads: int
) -> None:
    """However many threads take however large pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "JOB_TOKENS", job)
        growth = scan_growth(pa.array(rows), full_vocab_size=SIZE, threads=threads)

    assert growth.first_seen.tolist() == _first_places([at for row in rows for at in row])
    assert growth.counts == scan(rows, full_vocab_size=SIZE)


@settings(deadline=None)
@given(
    labels=st.lists(st.sampled_from([-100, 3, 4, 5]), max_size=12),
    job=st.sampled_from([2, 1 << 20]),
)
def test_ignored_labels_are_not_read(labels: list[int], job: int) -> None:
    """What is passed over moves nothing."""
    table = pa.table({"labels": pa.array([labels, [7]], pa.list_(pa.int64()))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "JOB_TOKENS", job)
        growth = scan_growth(table, full_vocab_size=SIZE, columns=[], label_columns="labels")

    assert growth.first_seen.tolist() == _first_places([at for at in [*labels, 7] if at >= 0])


@settings(deadline=None)
@given(rows=ROWS, data=st.data())
def test_growth_of_shards_adds_up(rows: list[list[int]], data: st.DataObject) -> None:
    """Scanning is a homomorphism, in the order of the shards."""
    cut = data.draw(st.integers(0, len(rows)))
    parts = [scan_growth(part, full_vocab_size=SIZE) for part in (rows[:cut], rows[cut:])]

    assert parts[0] + parts[1] == scan_growth(rows, full_vocab_size=SIZE)


@pytest.mark.parametrize("name", TINY)
@settings(deadline=None, max_examples=60)
@given(
    texts=TEXTS,
    paired=st.booleans(),
    max_length=st.sampled_from([None, 7]),
    full=st.booleans(),
)
def test_growth_of_texts_is_that_of_every_batch_read_so_far(
    name: str, texts: list[str], paired: bool, max_length: int | None, full: bool
) -> None:
    """At the end of each batch the curve tells what a scan of the texts so far counts."""
    tokenizer = getattr(tiny_tokenizers, name)()
    columns = ["one", "two"] if paired else ["one"]
    sides = {"one": texts, "two": texts[::-1]}
    table = pa.table({column: pa.array(sides[column], pa.string()) for column in columns})
    options = {"tokenizer": tokenizer, "text_columns": columns, "max_length": max_length}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "TEXT_ROWS", 2)
        if full:
            patch.setattr(words, "TABLE_WORDS", 2)
        growth = scan_growth(table, **options)

    assert growth.counts == scan(table, **options)
    for read in range(0, len(texts), 2):
        counts = scan(table.slice(0, read), **options)
        assert growth.unique_after(np.array([counts.total_tokens])) == counts.unique_tokens


@settings(deadline=None, max_examples=60)
@given(words_=st.lists(st.sampled_from(["the", "cat", "sat", "mat", "dog"]), max_size=30))
def test_growth_by_words_is_exact_where_nothing_is_put_around_a_text(words_: list[str]) -> None:
    """Without special tokens, the ids stand where the tokenizer puts them."""
    tokenizer = tiny_tokenizers.byte_level()
    texts = [" ".join(words_[at : at + 7]) for at in range(0, len(words_), 7)]
    ids = [token_id for text in texts for token_id in tokenizer.encode(text).ids]

    growth = scan_growth(texts, tokenizer=tokenizer)

    found = {at: int(place) for at, place in enumerate(growth.first_seen) if place >= 0}
    assert found == {token_id: ids.index(token_id) for token_id in set(ids)}


@settings(deadline=None)
@given(rows=ROWS, data=st.data())
def test_a_view_grows_in_its_own_order(rows: list[list[int]], data: st.DataObject) -> None:
    """Rows that were shuffled, selected or repeated are read as they stand, and counted alike."""
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)) if rows else []
    table = pa.table({"input_ids": pa.array(rows, pa.list_(pa.int64())), "other": range(len(rows))})
    view = datasets.Dataset(table).select(order)
    shown = [rows[row] for row in order]

    growth = scan_growth({"train": view}, full_vocab_size=SIZE)

    assert growth.first_seen.tolist() == _first_places([at for row in shown for at in row])
    assert growth.counts == scan(view, full_vocab_size=SIZE)
