"""Counts do not depend on how a corpus is cut, kept or encoded."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from subvocab.data import scan, words
from subvocab.data.word_rules import word_rule
from tests import tiny_tokenizers

SIZE = 30
ROWS = st.lists(st.lists(st.integers(0, SIZE - 1), max_size=6), max_size=12)
INTEGERS = st.sampled_from([pa.int8(), pa.int32(), pa.int64(), pa.uint16()])
LISTS = st.sampled_from([pa.list_, pa.large_list, pa.list_view])
HOSTILE = [
    *" \t\n\r\x00\x1c\x85\xa0\u1680\u180e\u2003\u2028\u3000\u200b\u200d\ufeff",
    *"aZéßİ\u0131\u017f.,'1²½ⅷ中日𠀀한\ufb01\uff41\uff9e\u0301\u0308\u0327\u064b\u0903\u0600\u0d4e",
    *"\U0001f3fb\U0001f468\U000e0041\ufffd\U0001f1e6",
    "  ", "   ", " \u0301", "\u0600 ", "'s", "'ll", "the", " the cat", "sat ", "x" * 120,
    "[CLS]", "[SEP]", "[MASK]", "<s>", "<mask>", "</s>", "<|endoftext|>", "<|im_start|>", "▁", "Ġ",
]  # fmt: skip
TEXTS = st.lists(
    st.lists(st.one_of(st.sampled_from(HOSTILE), st.characters()), max_size=12).map("".join),
    max_size=5,
).map(lambda texts: [text.encode("utf-8", "ignore").decode() for text in texts])
TINY = ("wordpiece", "byte_level", "unigram")
REAL = ("bert-base-uncased", "gpt2", "roberta-base", "qwen3", "xlm-roberta")


def _reference(rows: list[list[int] | None]) -> list[int]:
    """Count the slow, obvious way."""
    counts = Counter(token_id for row in rows if row is not None for token_id in row)
    return [counts[token_id] for token_id in range(SIZE)]


@settings(deadline=None)
@given(rows=ROWS, integer=INTEGERS, of=LISTS, data=st.data())
def test_any_layout_and_slice_gives_the_reference_counts(
    rows: list[list[int]], integer: pa.DataType, of: Any, data: st.DataObject
) -> None:
    """Type, nulls, slices and chunks of a column are no matter."""
    gappy = [data.draw(st.sampled_from([row, row, row, None])) for row in rows]
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(rows))] * 2)))
    cut = data.draw(st.integers(start, stop))
    whole = pa.array(gappy, of(integer))
    column = pa.chunked_array([whole[start:cut], whole[cut:stop]], whole.type)

    counts = scan(column, full_vocab_size=SIZE, threads=data.draw(st.integers(1, 3)))

    assert counts.counts.tolist() == _reference(gappy[start:stop])


@settings(deadline=None, max_examples=40)
@given(rows=ROWS.filter(bool), data=st.data())
def test_any_view_of_a_dataset_gives_the_counts_of_its_rows(
    rows: list[list[int]], data: st.DataObject
) -> None:
    """Chains of selecting, shuffling and joining show rows; those are counted."""
    whole = datasets.concatenate_datasets(
        [datasets.Dataset.from_dict({"input_ids": rows}) for _ in range(2)]
    )
    chosen = data.draw(st.lists(st.integers(0, 2 * len(rows) - 1), max_size=20))

    view = whole.select(chosen).shuffle(seed=data.draw(st.integers(0, 9)))

    expected = _reference([(rows + rows)[row] for row in chosen])
    assert scan(view, full_vocab_size=SIZE).counts.tolist() == expected


@settings(deadline=None)
@given(rows=ROWS, data=st.data())
def test_counts_of_shards_add_up(rows: list[list[int]], data: st.DataObject) -> None:
    """Scanning is a homomorphism: the whole is the sum of its parts."""
    cut = data.draw(st.integers(0, len(rows)))

    parts = scan(rows[:cut], full_vocab_size=SIZE) + scan(rows[cut:], full_vocab_size=SIZE)

    assert parts == scan(rows, full_vocab_size=SIZE)


def _tokenizer(name: str) -> Tokenizer:
    """Give a tokenizer without the truncation that another test may have left on it."""
    tokenizer = _loaded(name)
    tokenizer.no_truncation()
    return tokenizer


@cache
def _loaded(name: str) -> Tokenizer:
    if name in TINY:
        tiny: Tokenizer = getattr(tiny_tokenizers, name)()
        return tiny
    folder = os.environ.get("SUBVOCAB_DATA")
    if not folder:
        pytest.skip("SUBVOCAB_DATA does not name the folder of real tokenizers")
    return Tokenizer.from_file(str(Path(folder) / "tokenizers" / name / "tokenizer.json"))


def _check_words(tokenizer: Tokenizer, texts: list[str], max_length: int | None) -> None:
    """Compare with encoding every text and pair."""
    for columns in (["one"], ["one", "two"]):
        both = {"one": texts, "two": texts[::-1]}
        table = pa.table({name: pa.array(side, pa.string()) for name, side in both.items()})
        batch = texts if len(columns) == 1 else list(zip(texts, texts[::-1], strict=True))
        tokenizer.no_truncation()
        if max_length is not None:
            tokenizer.enable_truncation(max_length)
        ids = [np.array(encoding.ids, dtype=np.int64) for encoding in tokenizer.encode_batch(batch)]
        expected = np.bincount(
            np.concatenate([*ids, np.empty(0, dtype=np.int64)]),
            minlength=tokenizer.get_vocab_size(),
        )

        counts = scan(table, tokenizer=tokenizer, text_columns=columns, max_length=max_length)

        assert (counts.counts == expected).all(), (columns, texts)


@pytest.mark.parametrize("name", [*TINY, *[pytest.param(n, marks=pytest.mark.data) for n in REAL]])
def test_words_are_proven_for_each_of_these(name: str) -> None:
    """The families below do take the quick way; otherwise the next test shows nothing."""
    assert word_rule(_tokenizer(name)) is not None


@pytest.mark.parametrize("name", [*TINY, *[pytest.param(n, marks=pytest.mark.data) for n in REAL]])
@settings(deadline=None, max_examples=80)
@given(texts=TEXTS, max_length=st.sampled_from([None, 5, 9]))
def test_counting_by_words_equals_encoding_texts(
    name: str, texts: list[str], max_length: int | None
) -> None:
    """Each distinct word encoded once gives the ids of every text encoded whole."""
    _check_words(_tokenizer(name), texts, max_length)


@pytest.mark.parametrize("name", TINY)
def test_emptying_the_table_of_words_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A table that is full every time, and one that is given up, count alike."""
    texts = ["the cat", "the mat sat", " the", "cat  cat"] * 3
    monkeypatch.setattr(words, "TABLE_WORDS", 2)
    _check_words(_tokenizer(name), texts, None)

    monkeypatch.setattr(words, "TRIAL_CHARACTERS", 10)
    _check_words(_tokenizer(name), texts, None)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_no_character_beside_a_space_breaks_the_proof(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Any character before or after a space is counted as it is encoded; ideographs are alike."""
    tokenizer = _tokenizer(name)
    monkeypatch.setattr(words, "TRIAL_CHARACTERS", 1 << 40)
    characters = [chr(code) for code in range(0x1FFFF)]
    characters = [one for one in characters if unicodedata.category(one) not in ("Cs", "Co", "Cn")]
    characters = [one for one in characters if not "\u3400" <= one <= "\ud7ff" or one in "中한"]

    for make in ("a{0} b {0}c", "é {0}\u0308b{0} \u0301"):
        texts = [make.format(character) for character in characters]
        encodings = tokenizer.encode_batch(texts)
        ids = np.concatenate([np.array(encoding.ids, dtype=np.int64) for encoding in encodings])
        expected = np.bincount(ids, minlength=tokenizer.get_vocab_size())
        assert (scan(texts, tokenizer=tokenizer).counts == expected).all(), make
