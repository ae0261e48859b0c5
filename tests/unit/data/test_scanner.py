"""Every source of ids and texts gives the counts that a plain loop gives."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerFast

from subvocab.data import scan
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts
from tests import tiny_tokenizers

ROWS = [[5, 1, 1], [7], [], [9, 5]]
COUNTS = {1: 2, 5: 2, 7: 1, 9: 1}
SIZE = 12
TEXTS = ["the cat sat", "on the  mat", "", "naïve 日本語 dog"]


def _seen(counts: TokenCounts) -> dict[int, int]:
    return {int(at): int(counts.counts[at]) for at in np.flatnonzero(counts.counts)}


SOURCES: dict[str, Callable[[], Any]] = {
    "lists": lambda: ROWS,
    "tuples": lambda: tuple(map(tuple, ROWS)),
    "generator": lambda: (row for row in ROWS),
    "arrays": lambda: [np.array(row, dtype=np.int32) for row in ROWS],
    "tensors": lambda: [torch.tensor(row, dtype=torch.int64) for row in ROWS],
    "null_rows": lambda: [None, *ROWS, None],
    "nested": lambda: [[row, row[:0]] for row in ROWS],
    "flat": lambda: [token_id for row in ROWS for token_id in row],
    "array": lambda: np.array([[5, 1, 1], [7, 9, 5]]),
    "tensor": lambda: torch.tensor([[5, 1, 1], [7, 9, 5]]),
    "rows": lambda: [{"input_ids": row, "label": 11} for row in ROWS],
    "columns": lambda: {"input_ids": ROWS, "label": [11] * 4},
    "batch_encoding": lambda: BatchEncoding({"input_ids": ROWS}),
    "table": lambda: pa.table({"input_ids": ROWS, "label": [11] * 4}),
    "record_batch": lambda: pa.RecordBatch.from_pydict({"input_ids": ROWS}),
    "arrow": lambda: pa.array(ROWS),
    "chunked": lambda: pa.chunked_array([ROWS[:2], ROWS[2:]]),
    "dataset": lambda: datasets.Dataset.from_dict({"input_ids": ROWS, "label": [11] * 4}),
    "dataset_dict": lambda: datasets.DatasetDict(
        a=datasets.Dataset.from_dict({"input_ids": ROWS[:1]}),
        b=datasets.Dataset.from_dict({"input_ids": ROWS[1:], "more": [0, 0, 0]}),
    ),
    "iterable_dataset": lambda: datasets.Dataset.from_dict(
        {"input_ids": ROWS}
    ).to_iterable_dataset(),
    "decoder_too": lambda: {"input_ids": ROWS[:2], "decoder_input_ids": ROWS[2:]},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_scan_counts_ids_of_any_source(kind: str) -> None:
    """However ids are kept, the counts are the same."""
    counts = scan(SOURCES[kind](), full_vocab_size=SIZE)

    assert _seen(counts) == COUNTS
    assert counts.full_vocab_size == SIZE
    assert counts.special_token_ids.tolist() == [0]


@pytest.mark.parametrize("source", [[], {}, pa.table({"input_ids": pa.array([], pa.null())})])
def test_scan_of_nothing_counts_nothing(source: Any) -> None:
    """An empty source has no columns to miss."""
    assert scan(source, full_vocab_size=SIZE).total_tokens == 0


def test_scan_counts_labels_only_when_named() -> None:
    """Class labels are no tokens; a language model's labels are, save -100."""
    table = {"input_ids": [[1, 2]], "labels": [[-100, 3]]}

    assert _seen(scan(table, full_vocab_size=SIZE)) == {1: 1, 2: 1}
    named = scan(table, full_vocab_size=SIZE, label_columns="labels")
    assert _seen(named) == {1: 1, 2: 1, 3: 1}
    with pytest.raises(DataError, match="-100 at column `labels`, row 0"):
        scan(table, full_vocab_size=SIZE, columns=["input_ids", "labels"])


def test_scan_names_split_column_and_row_of_an_id_outside() -> None:
    """Whoever must repair the data is told where."""
    source = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"input_ids": [[1], [2]]}),
        test=datasets.Dataset.from_dict({"input_ids": [[1], [2, SIZE]]}),
    )

    with pytest.raises(DataError) as caught:
        scan(source, full_vocab_size=SIZE)

    assert str(caught.value) == (
        "Token id 12 at column `input_ids`, row 1 of split `test` lies outside the vocabulary of "
        "12. Give the `full_vocab_size` of the model, which is the number of rows of its embedding "
        "matrix, and the tokenizer that made the ids."
    )


def test_scan_names_the_row_of_a_plain_sequence() -> None:
    """Without columns the row is enough, also beyond the first batch."""
    with pytest.raises(DataError, match="Token id -1 at row 2,500 lies"):
        scan([[1]] * 2500 + [[-1]], full_vocab_size=SIZE)


def test_scan_honours_views_and_leaves_format_alone() -> None:
    """Selected, repeated and shuffled rows count as shown; nothing of the dataset changes."""
    whole = datasets.Dataset.from_dict({"input_ids": [[i, i + 1] for i in range(10)]})
    whole = datasets.concatenate_datasets([whole, whole]).with_format("torch")

    for view in (
        whole.select(range(3, 14)),
        whole.select([4, 4, 1, 19, 4]),
        whole.shuffle(seed=1),
        whole.shuffle(seed=1).select(range(7)),
        whole.select([]),
    ):
        expected = Counter(int(i) for row in view["input_ids"] for i in row)
        before = dict(view.format)
        assert _seen(scan(view, full_vocab_size=SIZE)) == expected
        assert view.format == before
    assert whole.cache_files == []


def test_scan_names_the_row_of_a_view() -> None:
    """The row is that of the view the caller has, not of the table beneath."""
    whole = datasets.Dataset.from_dict({"input_ids": [[i] for i in range(20)]})

    with pytest.raises(DataError, match=r"id 15 at column `input_ids`, row 2 lies"):
        scan(whole.select([4, 4, 15, 1]), full_vocab_size=SIZE)


def test_scan_sees_through_a_transform() -> None:
    """What a transform makes of a row is what the model will read."""
    whole = datasets.Dataset.from_dict({"raw": [1, 2]})
    whole.set_transform(lambda batch: {"input_ids": [[i, 7] for i in batch["raw"]]})

    assert _seen(scan(whole, full_vocab_size=SIZE)) == {1: 1, 2: 1, 7: 2}


def test_scan_reads_two_dimensional_features() -> None:
    """The extension type of `Array2D` holds ids like any nested list."""
    features = datasets.Features(input_ids=datasets.Array2D((2, 2), "int32"))
    whole = datasets.Dataset.from_dict(
        {"input_ids": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}, features
    )

    assert scan(whole, full_vocab_size=SIZE).total_tokens == 8
    assert _seen(scan(whole.select([1, 1]), full_vocab_size=SIZE)) == {5: 2, 6: 2, 7: 2, 8: 2}


def test_scan_writes_no_cache(tmp_path: Path) -> None:
    """A dataset on disk is mapped, and nothing is written beside it."""
    datasets.Dataset.from_dict({"input_ids": ROWS}).save_to_disk(tmp_path / "saved")
    before = sorted(path.name for path in (tmp_path / "saved").iterdir())

    counts = scan(tmp_path / "saved", full_vocab_size=SIZE)

    assert _seen(counts) == COUNTS
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == before


@pytest.mark.parametrize("family", ["wordpiece", "byte_level", "unigram"])
@pytest.mark.parametrize("max_length", [None, 6])
@pytest.mark.parametrize("paired", [False, True])
def test_scan_encodes_as_the_tokenizer_does(
    request: pytest.FixtureRequest, family: str, *, max_length: int | None, paired: bool
) -> None:
    """Special tokens and truncation are those of the tokenizer's own call."""
    tokenizer = request.getfixturevalue(f"{family}_tokenizer")
    columns = ["one", "two"] if paired else ["one"]
    table = pa.table({"one": [*TEXTS, None], "two": [*TEXTS[::-1], "the"], "id": [0] * 5})
    sides = [TEXTS, TEXTS[::-1]] if paired else [TEXTS]
    encoded = tokenizer(*sides, truncation=max_length is not None, max_length=max_length)
    expected = Counter(i for row in encoded["input_ids"] for i in row)

    counts = scan(table, tokenizer=tokenizer, text_columns=columns, max_length=max_length)

    assert _seen(counts) == expected
    assert counts.full_vocab_size == len(tokenizer)
    assert set(tokenizer.all_special_ids) <= set(counts.special_token_ids.tolist())


def test_scan_leaves_the_tokenizer_alone(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """A caller's truncation and padding are not touched, and do not count."""
    backend = wordpiece_tokenizer.backend_tokenizer
    backend.enable_truncation(4)
    backend.enable_padding(length=20)
    before = backend.truncation, backend.padding

    counts = scan(["the cat sat on the mat"], tokenizer=wordpiece_tokenizer)

    assert (backend.truncation, backend.padding) == before
    assert counts.total_tokens > 4
    assert counts.counts[wordpiece_tokenizer.pad_token_id] == 0


def test_scan_calls_a_tokenizer_that_is_not_fast() -> None:
    """A tokenizer without a backend is called as training would call it."""

    class Slow:
        all_special_ids = (0, 4, 99)

        def __len__(self) -> int:
            return SIZE

        def __call__(
            self, texts: list[str], *, truncation: bool, max_length: int | None
        ) -> dict[str, list[list[int]]]:
            stop = max_length if truncation else None
            return {"input_ids": [list(map(int, text))[:stop] for text in texts]}

    counts = scan({"text": ["123", "45"]}, tokenizer=Slow(), max_length=2)

    assert _seen(counts) == {1: 1, 2: 1, 4: 1, 5: 1}
    assert counts.special_token_ids.tolist() == [0, 4]


def test_scan_names_the_text_whose_id_has_no_row(
    wordpiece_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """A matrix smaller than the tokenizer's vocabulary fails on the first text that shows it."""
    cat = wordpiece_tokenizer("cat", add_special_tokens=False)["input_ids"]

    with pytest.raises(DataError, match=rf"id {max(cat)} at column `text`, row 1 lies outside"):
        scan({"text": [".", "cat", "cat"]}, tokenizer=wordpiece_tokenizer, full_vocab_size=max(cat))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([[1]], {}, "The size of the vocabulary is not known"),
        ([[1]], {"full_vocab_size": 0}, "`full_vocab_size` is 0, expected one to 2,147,483,647"),
        ([[1]], {"full_vocab_size": 10**23}, "`full_vocab_size` is 100,000,000,000,000,000,000,0"),
        (3, {"full_vocab_size": 5}, "A `int` cannot be scanned"),
        ([[0.5]], {"full_vocab_size": 5}, "Column `token ids` holds `list<item: double>`"),
        (
            {"a": [[1]]},
            {"full_vocab_size": 5},
            "has no column input_ids or decoder_input_ids; name",
        ),
        ({"a": ["x"]}, {"full_vocab_size": 5}, "it has texts, which need a `tokenizer`"),
        (
            {"a": [[1]]},
            {"full_vocab_size": 5, "columns": "b"},
            "has no column `b`. Its columns: `a`",
        ),
        (["x"], {"full_vocab_size": 5, "text_columns": "a"}, "but no tokenizer"),
        ([[1], 2], {"full_vocab_size": 5}, "Column `token ids` holds rows of no one type"),
    ],
)
def test_scan_refuses_with_reason_and_way_out(
    source: Any, options: dict[str, Any], message: str
) -> None:
    """Each error says what is, what was expected, and what to do."""
    with pytest.raises(DataError) as caught:
        scan(source, **options)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ({"a": ["x"], "b": ["y"]}, {}, "has 2 columns of text, and none of them is named"),
        ({"a": [1]}, {}, "The source has no column of text. Name those of token ids in `columns`"),
        ({"a": [1]}, {"text_columns": "a"}, "Column `a` holds `int64`, expected text"),
        ({"a": ["x"]}, {"text_columns": "a", "columns": "b"}, "were both named"),
        ({"a": ["x"]}, {"text_columns": ["a", "b", "c"]}, "3 text columns were named"),
        ({"a": ["x"]}, {"max_length": 1}, "`max_length` is 1, but the tokenizer adds 2"),
        ([__file__], {}, f"The first text, {__file__}, names a file"),
    ],
)
def test_scan_of_texts_refuses_with_reason_and_way_out(
    wordpiece_tokenizer: PreTrainedTokenizerFast,
    *,
    source: Any,
    options: dict[str, Any],
    message: str,
) -> None:
    """Each error about texts says what to do, too."""
    with pytest.raises(DataError) as caught:
        scan(source, tokenizer=wordpiece_tokenizer, **options)

    assert message in str(caught.value)


@pytest.mark.parametrize("damage", ["template", "unknown"])
def test_a_damaged_tokenizer_is_refused(damage: str) -> None:
    """Where `tokenizers` panics, and where it raises what has no class of its own."""
    described = json.loads(tiny_tokenizers.wordpiece().to_str())
    if damage == "template":
        del described["post_processor"]["special_tokens"]["[CLS]"]
    else:
        described["model"]["unk_token"] = "[NONE]"  # noqa: S105
    tokenizer = Tokenizer.from_str(json.dumps(described))

    with pytest.raises(DataError, match=r"^The tokenizer failed on a text \(.*its file is damaged"):
        scan(["the cat ☃"], tokenizer=tokenizer)


def test_texts_that_are_no_utf_8_are_refused() -> None:
    """Arrow takes any bytes for text."""
    offsets, content = pa.py_buffer(np.array([0, 1, 3], dtype=np.int32)), pa.py_buffer(b"a\xff\xfe")
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, content])

    with pytest.raises(DataError) as caught:
        scan(pa.table({"text": texts}), tokenizer=tiny_tokenizers.wordpiece())

    assert str(caught.value) == (
        "A text in column `text`, row 0 to 1 is not UTF-8 (invalid start byte at byte 0 of it). "
        "Write the texts anew, in UTF-8."
    )


def test_texts_of_a_dictionary_are_counted_as_often_as_they_come() -> None:
    """As pandas writes what it calls categories; a null may stand among the values."""
    texts = ["the cat", "dog", None]
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 2, None, 0]), pa.array(texts))
    tokenizer = tiny_tokenizers.wordpiece()

    counts = scan(pa.table({"text": coded}), tokenizer=tokenizer)

    assert counts == scan(coded.to_pylist(), tokenizer=tokenizer)
    assert counts.total_tokens > 0


def test_a_number_of_threads_is_looked_at() -> None:
    """None would count nothing."""
    with pytest.raises(DataError, match="`threads` is -1, expected one or more"):
        scan(ROWS, full_vocab_size=SIZE, threads=-1)
