"""Plain text is read as texts of many lines; what else can be loaded, `test_labelled` tells."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest

from subvocab.data import loading, scan
from subvocab.data.loading import Contents, choose_texts, load_split
from subvocab.errors import DataError
from tests import tiny_tokenizers

TEXTS = Contents("texts", plain_text=True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the cache of `datasets` to the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _load(source: Path | str, contents: Contents = TEXTS, split: str = "train") -> Any:
    return load_split(str(source), (split,), contents)


def test_load_split_reads_a_plain_file_as_one_text(tmp_path: Path) -> None:
    """Lines are no texts of their own, and their ends belong to the text."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfOne\r\n\r\n  two\nthr\xc3\xa9e")

    assert _load(tmp_path / "a.txt")[:] == {"text": ["One\n\n  two\nthrée\n"]}


def test_load_split_cuts_a_long_plain_file_at_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer would hold a text of gigabytes in memory many times over."""
    monkeypatch.setattr(loading, "PIECE_CHARACTERS", 5)
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\nfour\n")

    assert _load(tmp_path / "a.txt")["text"][:] == ["one\ntwo\n", "three\n", "four\n"]


def test_load_split_joins_a_folder_of_plain_files(tmp_path: Path) -> None:
    """Each is a text, in order of name; other files beside them are no texts."""
    for name in ("b.txt", "a.txt", "c.pdf"):
        (tmp_path / name).write_text(f"{name}\n")

    assert _load(tmp_path)["text"][:] == ["a.txt\n", "b.txt\n"]


def test_load_split_takes_plain_files_named_as_splits(tmp_path: Path) -> None:
    """As it does with files of other formats."""
    for name in ("train", "validation"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")

    assert _load(tmp_path, split="validation")["text"][:] == ["validation\n"]


def test_load_split_passes_over_notes_beside_rows(tmp_path: Path) -> None:
    """A folder with rows of a dataset may have a plain file about them."""
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "the cat"}) + "\n")
    (tmp_path / "license.txt").write_text("free\n")

    assert _load(tmp_path)["text"][:] == ["the cat"]


def test_load_split_refuses_two_files_of_one_split(tmp_path: Path) -> None:
    """One would hide the other."""
    for name in ("train.csv", "train.jsonl", "test.csv"):
        (tmp_path / name).write_text("text\na\n")

    with pytest.raises(
        DataError, match=r"train\.csv and .*train\.jsonl are both the split `train`"
    ):
        _load(tmp_path)


def test_load_split_does_not_pass_over_a_compressed_text(tmp_path: Path) -> None:
    """The others of the folder are not all of it."""
    for name in ("a.txt", "b.txt.gz"):
        (tmp_path / name).write_text("a\n")

    with pytest.raises(DataError, match=r"b\.txt\.gz is compressed, and would not be read"):
        _load(tmp_path)


@pytest.mark.parametrize("damaged", ["dataset_dict.json", "dataset_info.json", "*.arrow"])
def test_load_split_refuses_a_damaged_saved_dataset(tmp_path: Path, damaged: str) -> None:
    """As a scan does."""
    saved = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["the cat"] * 99}))
    saved.save_to_disk(tmp_path)
    (path,) = tmp_path.rglob(damaged)
    path.write_bytes(path.read_bytes()[: 1 if path.suffix == ".json" else 300])

    for load in (_load, partial(scan, tokenizer=tiny_tokenizers.wordpiece())):
        with pytest.raises(DataError, match="is a dataset that `save_to_disk` wrote, and cannot b"):
            load(tmp_path)


def test_load_split_names_the_line_that_is_not_utf8(tmp_path: Path) -> None:
    """As a scan does."""
    (tmp_path / "a.txt").write_bytes(b"fine\ncaf\xe9\n")

    with pytest.raises(DataError, match=r"^Line 2 of .*a\.txt is not UTF-8: byte 0xE9 at its"):
        _load(tmp_path / "a.txt")


def test_load_split_refuses_plain_text_where_rows_are_needed(tmp_path: Path) -> None:
    """It has neither labels nor prompts."""
    (tmp_path / "a.txt").write_text("a\n")

    with pytest.raises(DataError, match=r"ends in `\.txt`, expected one of \.jsonl, \.json, "):
        _load(tmp_path / "a.txt", Contents("prompts and responses"))


def test_load_split_says_what_an_empty_file_should_hold(tmp_path: Path) -> None:
    """Before anything else is done with it."""
    (tmp_path / "a.txt").touch()

    with pytest.raises(DataError, match=r"a\.txt has no rows, expected texts\.$"):
        _load(tmp_path / "a.txt")


def test_choose_texts_passes_over_ids() -> None:
    """A dataset that was tokenized still has its texts."""
    dataset = datasets.Dataset.from_dict({"input_ids": [[1]], "content": ["a"]})

    assert choose_texts(dataset, "data") == ("content",)


def test_choose_texts_lists_what_there_is() -> None:
    """To find the right column."""
    dataset = datasets.Dataset.from_dict({"number": [1]})

    with pytest.raises(DataError, match=r"Its columns: `number` \(int64\)\.$"):
        choose_texts(dataset, "data")
