"""Texts and their classes are loaded from every kind of source, or it is said why not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from subvocab.data.labelled import LabelledTexts, load_labelled_texts
from subvocab.errors import DataError

ROWS = {"text": ["a", "b", "c"], "label": ["x", "y", "x"]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the cache of `datasets` to the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _load(
    source: Path | str, *, splits: Sequence[str] = ("train",), **options: Any
) -> LabelledTexts:
    options = {"label_column": "label", **options}
    return load_labelled_texts(str(source), splits=splits, **options)


def _texts(loaded: LabelledTexts) -> list[tuple[str, str]]:
    """Give texts and the names of their classes."""
    names = [loaded.label_names[number] for number in loaded.rows["labels"]]
    return list(zip(loaded.rows[loaded.text_columns[0]], names, strict=True))


def _message(source: Path | str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        _load(source, **options)
    return str(caught.value)


def _write_json_lines(path: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "A.JSONL", "[a].jsonl", "a b*.json"])
def test_load_labelled_texts_reads_json_lines(tmp_path: Path, name: str) -> None:
    """A name is a name, whatever is in it."""
    path = _write_json_lines(tmp_path / name, ROWS)

    assert _texts(_load(path)) == [("a", "x"), ("b", "y"), ("c", "x")]


def test_load_labelled_texts_reads_parquet(tmp_path: Path) -> None:
    """Parquet needs no reading as text."""
    datasets.Dataset.from_dict(ROWS).to_parquet(tmp_path / "a.parquet")

    assert _texts(_load(tmp_path / "a.parquet")) == [("a", "x"), ("b", "y"), ("c", "x")]


def test_load_labelled_texts_reads_csv_as_text(tmp_path: Path) -> None:
    """What other readers take for a missing value or a number is text; quotes are undone."""
    lines = 'text,label\n"a, ""b""",y\nNA,x\nnull,x\n007,y\n,x\n"two\nlines",null\n'
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + lines.encode())

    assert _texts(_load(tmp_path / "a.csv")) == [
        ('a, "b"', "y"),
        ("NA", "x"),
        ("null", "x"),
        ("007", "y"),
        ("", "x"),
        ("two\nlines", "null"),
    ]


def test_load_labelled_texts_reads_tsv_without_quoting(tmp_path: Path) -> None:
    """A lone quotation mark is a character, as in GLUE's files."""
    lines = 'text\tlabel\n"half quoted\tx\nnull\ty\nNA\ty\nan "inner" one\tx\n'
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbf" + lines.encode())

    assert _texts(_load(tmp_path / "a.tsv")) == [
        ('"half quoted', "x"),
        ("null", "y"),
        ("NA", "y"),
        ('an "inner" one', "x"),
    ]


@pytest.mark.parametrize(("end", "separator"), [(".jsonl", None), (".csv", ","), (".tsv", "\t")])
def test_load_labelled_texts_takes_the_split_of_a_folder(
    tmp_path: Path, end: str, separator: str | None
) -> None:
    """Files in a folder are splits by their names, and read as they are when named themselves."""
    for split, texts in (("train", ["NA", "007"]), ("validation", ["null", "1"])):
        rows = {"text": texts, "label": ["x", "y"]}
        path = tmp_path / f"{split}{end}"
        if separator is None:
            _write_json_lines(path, rows)
        else:
            lines = [separator.join(row) for row in (rows, *zip(*rows.values(), strict=True))]
            path.write_text("\n".join(lines) + "\n")

    first = _load(tmp_path, splits=("dev", "validation", "train"))
    named = _load(f"{tmp_path}:train")

    assert _texts(first) == [("null", "x"), ("1", "y")]
    assert _texts(named) == [("NA", "x"), ("007", "y")]


def test_load_labelled_texts_reads_saved_datasets(tmp_path: Path) -> None:
    """What `save_to_disk` wrote is read back, with or without splits."""
    dataset = datasets.Dataset.from_dict(ROWS)
    datasets.DatasetDict(train=dataset, test=dataset.select([2])).save_to_disk(tmp_path / "splits")
    dataset.save_to_disk(tmp_path / "one")

    assert len(_load(tmp_path / "splits").rows) == 3
    assert len(_load(f"{tmp_path / 'splits'}:test", label_names=("x", "y")).rows) == 1
    assert len(_load(tmp_path / "one").rows) == 3


def test_load_labelled_texts_prefers_the_first_split_there_is(tmp_path: Path) -> None:
    """Splits go by many names."""
    dataset = datasets.Dataset.from_dict(ROWS)
    saved = datasets.DatasetDict(train=dataset, dev=dataset.select([0, 1]))
    saved.save_to_disk(tmp_path / "splits")

    assert len(_load(tmp_path / "splits", splits=("validation", "dev", "train")).rows) == 2


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([10, 2, 10], ("2", "10"), [1, 0, 1]),
        (["10", "2", "10"], ("2", "10"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([-1, 1, -1], ("-1", "1"), [0, 1, 0]),
    ],
)
def test_load_labelled_texts_numbers_classes_in_order(
    tmp_path: Path, labels: list[Any], names: tuple[str, ...], numbers: list[int]
) -> None:
    """Whole numbers are ordered as such, so that a file of any format gives the same numbers."""
    loaded = _load(_write_json_lines(tmp_path / "a.jsonl", {**ROWS, "label": labels}))

    assert loaded.label_names == names
    assert list(loaded.rows["labels"]) == numbers


def _with_class_labels(path: Path, labels: list[int]) -> Path:
    feature = datasets.ClassLabel(names=["neg", "neutral", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": feature})
    dataset = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": labels}, features)
    dataset.save_to_disk(path)
    return path


def test_load_labelled_texts_keeps_class_labels(tmp_path: Path) -> None:
    """A `ClassLabel` has its own order, and classes that no row has."""
    loaded = _load(_with_class_labels(tmp_path / "saved", [2, 0, 2]))

    assert loaded.label_names == ("neg", "neutral", "pos")
    assert list(loaded.rows["labels"]) == [2, 0, 2]


def test_load_labelled_texts_refuses_labels_kept_secret(tmp_path: Path) -> None:
    """The -1 of a test split must not count as the last class."""
    source = _with_class_labels(tmp_path / "saved", [2, -1, -1])

    assert _message(source) == (
        f"Column `label` of {source} holds -1, which is no class of the training data: neg, "
        "neutral, pos. Train on every class, or take those rows out."
    )


def test_load_labelled_texts_uses_the_classes_it_is_given(tmp_path: Path) -> None:
    """A split that lacks a class is numbered as the one that has it."""
    path = _write_json_lines(tmp_path / "a.jsonl", {"text": ["a"], "label": ["y"]})

    loaded = _load(path, label_names=("x", "y"))

    assert list(loaded.rows["labels"]) == [1]


def test_load_labelled_texts_keeps_only_what_is_asked_for(tmp_path: Path) -> None:
    """Columns of a pair stay in their order; others are left out."""
    path = _write_json_lines(
        tmp_path / "a.jsonl", {**ROWS, "two": ["d", "e", "f"], "id": [1, 2, 3]}
    )

    loaded = _load(path, text_columns=("two", "text"))

    assert loaded.text_columns == ("two", "text")
    assert set(loaded.rows.column_names) == {"two", "text", "labels"}


@pytest.mark.parametrize("column", ["text", "sentence", "anything"])
def test_load_labelled_texts_finds_the_column_of_text(tmp_path: Path, column: str) -> None:
    """The usual names, or the only column; a text label is no text."""
    path = _write_json_lines(tmp_path / "a.jsonl", {column: ["a", "b"], "label": ["x", "y"]})

    assert _load(path).text_columns == (column,)


def test_load_labelled_texts_makes_way_for_the_name_labels(tmp_path: Path) -> None:
    """The Trainer wants the classes in `labels`; a column of text may be named so."""
    path = _write_json_lines(tmp_path / "a.jsonl", {"labels": ["a", "b"], "label": ["x", "y"]})

    loaded = _load(path)

    assert _texts(loaded) == [("a", "x"), ("b", "y")]
    assert list(loaded.rows["labels"]) == [0, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"text": ["a", None], "label": [0, 1]},
            (
                "Row 1 of {} has nothing in column `text`, expected a value in every row. Take "
                "such rows out."
            ),
        ),
        (
            {"text": ["a", "b"], "label": [None, 1]},
            (
                "Row 0 of {} has nothing in column `label`, expected a value in every row. Take "
                "such rows out."
            ),
        ),
        (
            {"text": ["a", "b"], "label": [0.5, 1.5]},
            "Column `label` of {} holds `float64`, expected class labels: text or whole numbers.",
        ),
        (
            {"text": ["a", "b"], "label": [[0], [1]]},
            "Column `label` of {} holds `List`, expected class labels: text or whole numbers.",
        ),
        (
            {"text": ["a", "b"], "label": [1, 1]},
            (
                "Column `label` of {} names one class only, `1`, expected two or more. Train on "
                "data with texts of every class."
            ),
        ),
        (
            {"text": ["a", "b"], "class": [0, 1]},
            "{} has no label column `label`. Its columns: `text`, `class`.",
        ),
        (
            {"one": ["a", "b"], "two": ["a", "b"], "label": [0, 1]},
            (
                "`{}` has 2 columns of text, and none of them is named text or sentence. Name "
                "one, or two that make a pair, in `text_columns`. Its columns: `one` (string), "
                "`two` (string)."
            ),
        ),
        ({}, "{} has no rows, expected texts and their labels."),
    ],
)
def test_load_labelled_texts_refuses_what_cannot_be_trained_on(
    tmp_path: Path, columns: dict[str, list[Any]], message: str
) -> None:
    """The message names the file, the column and the row."""
    path = _write_json_lines(tmp_path / "a.jsonl", columns)

    assert _message(path) == message.format(path)


def test_load_labelled_texts_refuses_an_unknown_class(tmp_path: Path) -> None:
    """A class that was never trained has no number."""
    path = _write_json_lines(tmp_path / "a.jsonl", ROWS)

    assert _message(path, label_names=("x", "z")) == (
        f"Column `label` of {path} holds y, which is no class of the training data: x, z. Train on "
        "every class, or take those rows out."
    )


def test_load_labelled_texts_refuses_a_missing_text_column(tmp_path: Path) -> None:
    """The columns there are help to find the right one."""
    path = _write_json_lines(tmp_path / "a.jsonl", ROWS)

    expected = f"`{path}` has no column `none`. Its columns: `text` (string)."
    assert _message(path, text_columns=("none",)) == expected


def test_load_labelled_texts_refuses_a_column_named_twice(tmp_path: Path) -> None:
    """A text makes no pair with itself."""
    path = _write_json_lines(tmp_path / "a.jsonl", ROWS)

    assert _message(path, text_columns=("text", "text")) == (
        "The text column `text` was named twice. Name one column, or two others that make a pair."
    )


def test_load_labelled_texts_refuses_a_header_without_rows(tmp_path: Path) -> None:
    """Nothing can be learned from nothing."""
    (tmp_path / "a.csv").write_text("text,label\n")

    expected = f"{tmp_path / 'a.csv'} has no rows, expected texts and their labels."
    assert _message(tmp_path / "a.csv") == expected


def test_load_labelled_texts_refuses_rows_of_other_lengths(tmp_path: Path) -> None:
    """A comma that was not quoted would shift the columns."""
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,c,y\n")

    assert "Expected 2 columns, got 3" in _message(tmp_path / "a.csv")


def test_load_labelled_texts_refuses_a_missing_file(tmp_path: Path) -> None:
    """A path is not looked for on the Hub."""
    for source in (tmp_path / "none", "none.jsonl", "./none", "../none"):
        assert _message(source) == f"There is no file or folder {source}."


def test_load_labelled_texts_refuses_other_formats(tmp_path: Path) -> None:
    """Plain text has no labels."""
    (tmp_path / "a.txt").write_text("a\n")

    assert _message(tmp_path / "a.txt") == (
        f"{tmp_path / 'a.txt'} ends in `.txt`, expected one of .jsonl, .json, .ndjson, .csv, .tsv, "
        ".parquet."
    )


@pytest.mark.parametrize(
    ("choice", "wanted"), [("", "dev or validation"), (":test", "test"), (":x:test", "test")]
)
def test_load_labelled_texts_refuses_a_missing_split(
    tmp_path: Path, choice: str, wanted: str
) -> None:
    """The splits there are help to find the right one."""
    datasets.DatasetDict(train=datasets.Dataset.from_dict(ROWS)).save_to_disk(tmp_path / "saved")
    source = f"{tmp_path / 'saved'}{choice}"

    message = _message(source, splits=("dev", "validation"))

    assert message == f"{source} has no split {wanted}. Its splits: train."


def test_load_labelled_texts_names_what_the_hub_lacks() -> None:
    """Whatever `datasets` raises becomes one kind of error, with its reason."""
    message = _message("no/such:train")

    assert message.startswith("`no/such` cannot be loaded: ")
    assert message.endswith(". Give a file, a folder, or the name of a dataset on the Hub.")
