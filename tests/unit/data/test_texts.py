"""Running text becomes rows of ids: nothing is lost, and nothing is made up."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerFast

from subvocab.data.texts import causal_rows, check_room, masked_rows
from subvocab.errors import DataError
from tests import tiny_tokenizers

TEXTS = ["the cat sat", "", "on the mat, the dog", "12 cups"]


def _dataset(texts: list[str]) -> Any:
    return datasets.Dataset.from_dict({"content": texts})


def _causal(tokenizer: Any, texts: list[str] = TEXTS, max_length: int = 4) -> list[list[int]]:
    rows = causal_rows(_dataset(texts), "content", tokenizer, max_length)
    assert rows["labels"][:] == rows["input_ids"][:]
    ids: list[list[int]] = rows["input_ids"][:]
    return ids


def _masked(tokenizer: Any, texts: list[str] = TEXTS, max_length: int = 6) -> list[list[int]]:
    rows = masked_rows(_dataset(texts), "content", tokenizer, max_length)
    assert rows.column_names == ["input_ids"]
    ids: list[list[int]] = rows["input_ids"][:]
    return ids


def test_causal_rows_joins_texts_with_eos(byte_level_tokenizer: PreTrainedTokenizerFast) -> None:
    """All blocks but the last are full, and end to end they are the texts."""
    eos = byte_level_tokenizer.eos_token
    joined = byte_level_tokenizer("".join(f"{text}{eos}" for text in TEXTS if text))["input_ids"]

    rows = _causal(byte_level_tokenizer)

    assert list(chain.from_iterable(rows)) == joined
    assert {len(row) for row in rows[:-1]} == {4}
    assert 2 <= len(rows[-1]) <= 4


def test_causal_rows_begin_with_the_bos_that_the_tokenizer_adds() -> None:
    """And with no other special token than EOS at the end."""
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.unigram())
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id

    (row,) = _causal(tokenizer, ["the cat", "a dog"], max_length=99)

    assert [n for n in row if n in (begin, end)] == [begin, end, begin, end]
    assert row[0] == begin
    assert row[-1] == end


def test_causal_rows_leave_no_block_of_one(byte_level_tokenizer: PreTrainedTokenizerFast) -> None:
    """A lone token is foretold from nothing, and foretells nothing."""
    (whole,) = _causal(byte_level_tokenizer, max_length=99)

    rows = _causal(byte_level_tokenizer, max_length=len(whole) - 1)

    assert rows == [whole[:-1]]


def test_causal_rows_of_many_batches_are_joined(
    byte_level_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Rows are read a thousand at a time; no block is short where two such meet."""
    rows = _causal(byte_level_tokenizer, ["the"] * 1001, max_length=4)

    assert {len(row) for row in rows[:-1]} == {4}
    assert sum(map(len, rows)) == 2002


@pytest.mark.parametrize(
    ("texts", "max_length", "message"),
    [
        (["the cat"], 1, "`max_length` is 1, expected 2 or more: "),
        (["", " \n\n"], 4, "Every text is empty, expected words in one of them at least."),
    ],
)
def test_causal_rows_refuses_what_has_nothing_to_foretell(
    byte_level_tokenizer: PreTrainedTokenizerFast, texts: list[str], max_length: int, message: str
) -> None:
    """Training on nothing would end in a loss that is no number."""
    with pytest.raises(DataError, match=f"^{message}"):
        _causal(byte_level_tokenizer, texts, max_length)


def test_causal_rows_needs_an_end_of_text(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """Texts would run into each other."""
    with pytest.raises(DataError, match=r"Set `eos_token` in its `tokenizer_config\.json`\.$"):
        _causal(wordpiece_tokenizer)


def test_masked_rows_keep_texts_apart(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """Each has its own special tokens; an empty one has nothing to foretell."""
    rows = _masked(wordpiece_tokenizer, max_length=99)

    assert rows == [wordpiece_tokenizer(text)["input_ids"] for text in TEXTS if text]


def test_masked_rows_cut_a_long_text(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """The pieces end to end are the text, each with special tokens around it."""
    begin, *whole, end = wordpiece_tokenizer(TEXTS[2])["input_ids"]

    rows = _masked(wordpiece_tokenizer, [TEXTS[2]], max_length=5)

    assert len(rows) > 1
    assert max(map(len, rows)) == 5
    assert {(row[0], row[-1]) for row in rows} == {(begin, end)}
    assert list(chain.from_iterable(row[1:-1] for row in rows)) == whole


def test_masked_rows_needs_a_text(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """There is nothing to mask in special tokens."""
    with pytest.raises(DataError, match=r"^Every text is empty, "):
        _masked(wordpiece_tokenizer, ["", " "])


def test_masked_rows_needs_a_fast_tokenizer(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """A slow one hands over what is too long in another way."""
    slow = copy.copy(wordpiece_tokenizer)
    slow.__class__ = type("Slow", (PreTrainedTokenizerFast,), {"is_fast": False})

    with pytest.raises(DataError, match=r"^The tokenizer is a `Slow`, which cannot cut "):
        _masked(slow)


@pytest.mark.parametrize(("pair", "added"), [(False, 2), (True, 3)])
def test_check_room_counts_special_tokens(
    wordpiece_tokenizer: PreTrainedTokenizerFast, *, pair: bool, added: int
) -> None:
    """A token of text must fit in."""
    check_room(wordpiece_tokenizer, added + 1, pair=pair)

    with pytest.raises(DataError, match=f"but the tokenizer adds {added} special tokens"):
        check_room(wordpiece_tokenizer, added, pair=pair)
