"""Files of every format give their texts, whatever is in them, and errors name the place."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subvocab.data import reading, scan
from subvocab.data.columns import Wanted, choose_columns
from subvocab.data.files import parts_of_path
from subvocab.data.urls import Url, file_at
from subvocab.errors import DataError
from tests import tiny_tokenizers

HARD = ['plain "quoted" text', "naïve, 日本語", "a,b;c", " spaces  kept "]


def _texts(
    path: Path | Url, *columns: str, file_format: str | None = None, header: bool = True
) -> list[dict[str, str | None]]:
    parts = parts_of_path(path, file_format=file_format, header=header)
    return [
        row
        for part in parts
        for batch in part.read(list(columns))
        for row in batch.table.to_pylist()
    ]


def _write(path: Path, text: str, *, mark: bool) -> Path:
    path.write_bytes((reading.BYTE_ORDER_MARK if mark else b"") + text.encode())
    return path


@pytest.mark.parametrize("mark", [False, True])
def test_tsv_is_split_on_tabs_without_quoting(tmp_path: Path, mark: bool) -> None:
    """A quotation mark in a field is a character like any other, as in GLUE's files."""
    rows = ['1\t"open', '2\tclosed"', "3\ta ' b", *(f"0\t{text}" for text in HARD)]
    path = _write(tmp_path / "a.tsv", "\n".join(["id\ttext", *rows]) + "\n", mark=mark)

    read = _texts(path, "text")

    assert [row["text"] for row in read] == ['"open', 'closed"', "a ' b", *HARD]
    assert list(read[0]) == ["text"]


@pytest.mark.parametrize("mark", [False, True])
def test_csv_follows_the_standard_quoting(tmp_path: Path, mark: bool) -> None:
    """Quoted fields hold commas, doubled quotes and line breaks."""
    text = 'id,text\r\n1,"a, ""b""\nc"\r\n2,12\r\n3,\r\n'
    path = _write(tmp_path / "a.csv", text, mark=mark)

    assert [row["text"] for row in _texts(path, "text")] == ['a, "b"\nc', "12", ""]


def test_columns_without_header_are_numbered_from_one(tmp_path: Path) -> None:
    """The first row is data, and a column goes by its place."""
    path = _write(tmp_path / "a.tsv", "x\t1\tfirst\ny\t0\tsecond\n", mark=False)

    assert _texts(path, "3", header=False) == [{"3": "first"}, {"3": "second"}]
    assert _texts(path, "3", "1", header=False)[1] == {"3": "second", "1": "y"}


@pytest.mark.parametrize("mark", [False, True])
def test_plain_text_is_a_row_a_line(tmp_path: Path, mark: bool) -> None:
    """Only line feeds end lines; the last needs none."""
    path = _write(tmp_path / "a.txt", "one\r\n\ntwo\u2028still\x0btwo\nlast", mark=mark)

    texts = [row["text"] for row in _texts(path, "text")]

    assert texts == ["one", "", "two\u2028still\x0btwo", "last"]


@pytest.mark.parametrize("mark", [False, True])
def test_json_lines_keep_nulls_and_skip_blank_lines(tmp_path: Path, mark: bool) -> None:
    """A key that is missing, and a line that is blank, are null."""
    rows = [{"text": HARD[0], "n": 1}, {"n": "x"}, {"text": None}, {"text": HARD[1]}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    path = _write(tmp_path / "a.jsonl", text, mark=mark)

    assert [row["text"] for row in _texts(path, "text")] == [HARD[0], None, None, HARD[1], None]


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    """Only the columns asked for are read."""
    pq.write_table(pa.table({"text": HARD, "n": [1] * 4}), tmp_path / "a.parquet")

    assert _texts(tmp_path / "a.parquet", "text") == [{"text": text} for text in HARD]


def test_rows_are_numbered_over_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row keeps its number in the file, and a file is never held whole."""
    monkeypatch.setattr(reading, "BATCH_ROWS", 2)
    path = _write(tmp_path / "a.txt", "a\nb\nc\nd\ne\n", mark=False)
    (part,) = parts_of_path(path, file_format=None, header=True)

    batches = list(part.read(["text"]))

    assert [len(batch.table) for batch in batches] == [2, 2, 1]
    assert [batch.row(0) for batch in batches] == [0, 2, 4]
    assert sum(batch.amount for batch in batches) == part.total


def test_a_folder_is_its_files_in_order_of_name(tmp_path: Path) -> None:
    """Files of other kinds in it are passed over."""
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)

    assert [row["text"] for row in _texts(tmp_path, "text")] == ["a.txt", "b.txt"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl"])
@pytest.mark.parametrize("header", [True, False])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str, header: bool) -> None:
    """Nothing is read from nothing, and it is no error."""
    (tmp_path / name).touch()
    (part,) = parts_of_path(tmp_path / name, file_format=None, header=header)

    assert part.schema.names in ([], ["text"])
    assert list(part.read([])) == []


@pytest.mark.parametrize("content", ["text,id", "text,id\n", "\n", "\n\n"])
def test_a_table_of_a_header_alone_has_no_rows(tmp_path: Path, content: str) -> None:
    """Whether or not its line is ended."""
    (tmp_path / "a.csv").write_text(content)
    (tmp_path / "b.csv").write_text("text,id\nthe cat,1\n")
    tokenizer = tiny_tokenizers.wordpiece()

    assert scan(tmp_path, tokenizer=tokenizer) == scan(tmp_path / "b.csv", tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"text": "x"}]', "Line 1 of PATH holds a JSON list, expected an object"),
        ("a.json", b'{"text": "x"}\n{"text"', "Line 2 of PATH is no JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}', "A column among text of PATH, in rows 0 to 1"),
        ("a.txt", b"a\ncaf\xe9", "Line 2 of PATH is not UTF-8: byte 0xE9 at its position 4. Conve"),
        (
            "a.jsonl",
            b'{"text": "\xe9"}',
            "Line 1 of PATH is not UTF-8: byte 0xE9 at its position 11",
        ),
        ("b.tsv", b"text\tid\nx\t1\ncaf\xe9\t2\n", "Line 3 of PATH is not UTF-8: byte 0xE9"),
        ("a.tsv", b"text\tid\nx\t1\nx\n", "PATH cannot be read: CSV parse error"),
        ("a.csv", b"text\ncaf\xe9\n", "Line 2 of PATH is not UTF-8: byte 0xE9"),
        ("a.parquet", b"text", "PATH cannot be read"),
        ("a.md", b"text", "PATH has a name that tells no format, expected one of jsonl"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    """The message names the file, and the line where that is known."""
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        _texts(path, "text")

    assert message.replace("PATH", str(path)) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r'{"\ud800": "x"}', "A key in {} is no text ('utf-8' codec can't encode"),
        (r'{"text": "ab\ud800"}', "Key `text` of {} holds rows of no one type ('utf-8' codec"),
        ('{"text": ["a", 1]}', "Key `text` of {} holds rows of no one type ("),
    ],
)
def test_half_characters_and_mixed_lists_are_refused(
    tmp_path: Path, line: str, message: str
) -> None:
    """JSON can hold what no text can."""
    path = _write(tmp_path / "a.jsonl", line + "\n", mark=False)

    with pytest.raises(DataError) as caught:
        _texts(path, "text")

    assert message.format(path) in str(caught.value)


def test_a_path_to_nothing_is_refused(tmp_path: Path) -> None:
    """A missing file, and a folder without files to read, are errors."""
    with pytest.raises(DataError, match="There is no file or folder"):
        _texts(tmp_path / "a.txt", "text")
    with pytest.raises(DataError, match=r"No file in .* ends in .jsonl"):
        _texts(tmp_path, "text")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="is of format `xml`, expected one of"):
        _texts(tmp_path / "a.txt", "text", file_format="xml")


def test_files_are_known_by_their_ends_in_any_case(tmp_path: Path) -> None:
    """A file is not left out of a folder by its name's letters; a folder is no file."""
    (tmp_path / "A.JSONL").write_text('{"text": "upper"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "lower"}\n')
    (tmp_path / "c.txt").mkdir()

    assert [row["text"] for row in _texts(tmp_path, "text")] == ["upper", "lower"]


@pytest.mark.parametrize("rows", ["123,x\n456,y\n", "2024-01-01,x\n", "x,12\n", ""])
def test_any_column_of_a_table_is_text(tmp_path: Path, rows: str) -> None:
    """Whatever its values look like: a column of that name is it, and others may be named."""
    path = _write(tmp_path / "a.csv", f"text,id\n{rows}", mark=False)
    (part,) = parts_of_path(path, file_format=None, header=True)
    wanted = Wanted(tokens=None, labels=(), texts=None, tokenizes=True)

    assert choose_columns(part, wanted).texts == ("text",)
    assert choose_columns(part, replace(wanted, texts=("id",))).texts == ("id",)
    assert [row["text"] for row in _texts(path, "text")] == [
        line.split(",")[0] for line in rows.splitlines()
    ]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of them is meant is open."""
    path = _write(tmp_path / "a.csv", "text,label,label\na,1,2\n", mark=False)

    with pytest.raises(DataError, match=r"The first line of .*a\.csv names 'label' twice"):
        _texts(path, "text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b'{"text": "x"}'), r"is compressed by gzip, .* Convert it by `gunzip`\."),
        ("text\nx".encode("utf-16"), r"is UTF-16, .* by `iconv -f UTF-16 -t UTF-8`\."),
    ],
    ids=["gzip", "UTF-16"],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv"])
def test_a_file_in_another_coding_is_told(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    """With what turns it into text."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=message):
        _texts(tmp_path / name, "text")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """It could be read once only."""
    os.mkfifo(tmp_path / "a.txt")

    for path in (tmp_path / "a.txt", tmp_path):
        with pytest.raises(DataError, match=r"a\.txt is a pipe or a device, expected a file"):
            _texts(path, "text")


@pytest.mark.parametrize("name", ["b.jsonl.gz", "b.CSV.GZ", "b.json.zst"])
def test_a_compressed_file_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    """It holds rows that would not be counted; what else is compressed does not."""
    for other in ("a.txt", "c.tar.gz", "d.gz"):
        (tmp_path / other).write_text("a")
    assert len(_texts(tmp_path, "text")) == 1

    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"{name} is compressed, and would not be read\. Unpack"):
        _texts(tmp_path, "text")


def test_a_folder_inside_a_folder_is_told(tmp_path: Path) -> None:
    """If its files would be read, were they named; hidden ones are no data."""
    for name in ("a.txt", ".hidden/b.txt", "notes/b.md", "more/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a")

    for folder in (str(tmp_path), tmp_path.as_uri()):
        with pytest.warns(UserWarning, match=r"more has files as well, which are not read") as told:
            assert len(_texts(file_at(folder), "text")) == 1
        assert len(told) == 1


def test_a_closed_folder_inside_a_folder_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `lost+found` at the root of a disk."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "closed").mkdir()
    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "closed":
            raise PermissionError
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)

    assert len(_texts(tmp_path, "text")) == 1
