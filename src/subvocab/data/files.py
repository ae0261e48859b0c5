"""Read files of text as a stream: JSON lines, CSV, TSV, plain lines and Parquet.

No file is held whole in memory, and nothing is cached. Text is UTF-8, with or without a
byte order mark.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from subvocab._atomic import naming
from subvocab.data.arrow import as_array
from subvocab.data.parts import BATCH_ROWS, Batch, Part, refuse_late, unforeseen
from subvocab.data.urls import Url
from subvocab.errors import DataError, shortened

LINES_COLUMN = "text"
BLOCK_BYTES = 1 << 24
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".parquet": "parquet",
}


def parts_of_path(path: Path | Url, *, file_format: str | None, header: bool) -> Iterator[Part]:
    """Read a file, or every file of a known kind in a folder.

    Args:
        path: The file or folder.
        file_format: One of ``FORMATS``' values; by default as the name ends.
        header: Whether the first line of a CSV or TSV file names its columns.

    Yields:
        A part a file, in order of name.

    Raises:
        DataError: If there is nothing to read, or it cannot be read.
    """
    for file in files_of(path, file_format=file_format):
        yield _part_of_file(file, file_format or FORMATS.get(file.suffix.lower()), header=header)


def files_of(path: Path | Url, *, file_format: str | None) -> list[Path | Url]:
    """List the files of a known kind in a folder.

    Args:
        path: The folder, or a file.
        file_format: As for `parts_of_path`; with it every file is of a known kind.

    Returns:
        The files in order of name; the file itself.

    Raises:
        DataError: If there is nothing to read.
    """
    if not path.exists():
        raise DataError(f"There is no file or folder {path}.")
    if not path.is_dir():
        if isinstance(path, Path) and not path.is_file():
            raise DataError(
                f"{path} is a pipe or a device, expected a file, which can be read twice. Write "
                "what comes out of it to one."
            )
        return [path]
    inside: list[Path | Url] = sorted(path.iterdir(), key=str)
    files = [file for file in inside if file_format or file.suffix.lower() in FORMATS]
    files = [file for file in files if not file.is_dir()]
    if not files:
        raise DataError(
            f"No file in {path} ends in {', '.join(FORMATS)}. Name the files, or their format "
            "with `file_format`."
        )
    return files


def _part_of_file(path: Path | Url, file_format: str | None, *, header: bool) -> Part:
    """Choose the reader of a file."""
    openers: dict[str, Callable[[Path | Url], Part]] = {
        "jsonl": _part_of_json_lines,
        "csv": partial(_part_of_table, delimiter=",", quote='"', header=header),
        "tsv": partial(_part_of_table, delimiter="\t", quote=False, header=header),
        "text": _part_of_lines,
        "parquet": _part_of_parquet,
    }
    if file_format not in openers:
        named = (
            f"is of format `{file_format}`" if file_format else "has a name that tells no format"
        )
        raise DataError(f"{path} {named}, expected one of {', '.join(openers)}: `file_format`.")
    return openers[file_format](path)


def _opened(path: Path | Url) -> Any:
    return path.open("rb") if isinstance(path, Path) else path.open()


def _for_arrow(path: Path | Url) -> Any:
    """Let Arrow open what it can open by itself, which is quicker."""
    return path if isinstance(path, Path) else path.open()


def _size(path: Path | Url) -> int:
    return path.stat().st_size if isinstance(path, Path) else path.size


def _unreadable(path: Path | Url, error: Exception) -> DataError:
    """Tell what is wrong with a file, and which line is no text if one is not."""
    with _opened(path) as file:
        begins = file.read(len(GZIP))
        if begins == GZIP or begins in UTF_16:
            kind, cure = ("UTF-16", "iconv -f UTF-16 -t UTF-8")
            if begins == GZIP:
                kind, cure = ("compressed by gzip", "gunzip")
            return DataError(f"{path} is {kind}, expected text in UTF-8. Convert it by `{cure}`.")
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as wrong:
                if path.suffix == ".parquet":
                    break
                return DataError(
                    f"Line {number:,} of {path} is not UTF-8: byte 0x{line[wrong.start]:02X} at "
                    f"its position {wrong.start + 1:,}. Convert the file first, as with `iconv -f "
                    "LATIN1 -t UTF-8`."
                )
    return DataError(
        f"{path} cannot be read: {str(error).rstrip('.')}. Is it UTF-8, and in the format that "
        "its name or `file_format` tells?"
    )


def _part_of_table(path: Path | Url, *, delimiter: str, quote: str | bool, header: bool) -> Part:
    """Read a CSV or TSV file. Columns without a header are numbered from 1."""
    parsing = csv.ParseOptions(
        delimiter=delimiter, quote_char=quote, newlines_in_values=bool(quote)
    )

    def stream(names: list[str], columns: list[str]) -> Any:
        return csv.open_csv(
            _for_arrow(path),
            read_options=csv.ReadOptions(
                column_names=names,
                autogenerate_column_names=not (header or names),
                block_size=BLOCK_BYTES,
            ),
            parse_options=parsing,
            convert_options=csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
            ),
        )

    def schema() -> pa.Schema:
        with stream([], []) as reader:
            found = reader.schema
        names = found.names if header else [str(n + 1) for n in range(len(found))]
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise DataError(
                f"The first line of {path} names {', '.join(map(repr, twice))} twice, expected "
                "a name a column. Rename one; or is the first line a row of data already?"
            )
        # Bytes are text that is not UTF-8: reading the column will tell the line.
        types = [pa.string() if pa.types.is_binary(kind) else kind for kind in found.types]
        return pa.schema(list(zip(names, types, strict=True)))

    def read(columns: list[str]) -> Iterator[Batch]:
        names = [] if header else _guarded(path, schema).names
        try:
            with stream(names, columns) as reader:
                for first, batch in _numbered(reader):
                    yield Batch(batch, row=first.__add__, amount=float(batch.nbytes))
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error

    size = float(_size(path))
    return Part(_guarded(path, schema), read, name=str(path), total=size, reads_text=True)


@contextmanager
def _arrow_reads(path: Path | Url) -> Iterator[None]:
    """Turn what Arrow says of a file that it cannot read into one message."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from error


def _guarded(path: Path | Url, schema: Callable[[], pa.Schema]) -> pa.Schema:
    """Read the names and types of columns; a file of no bytes has none."""
    with _arrow_reads(path):
        return schema() if _size(path) else pa.schema([])


def _part_of_parquet(path: Path | Url) -> Part:
    """Read a Parquet file."""

    def read(columns: list[str]) -> Iterator[Batch]:
        with _arrow_reads(path), pq.ParquetFile(_for_arrow(path)) as file:
            batches = file.iter_batches(batch_size=10 * BATCH_ROWS, columns=columns)
            for first, batch in _numbered(batches):
                share = len(batch) / file.metadata.num_rows
                yield Batch(batch, row=first.__add__, amount=share * _size(path))

    with _arrow_reads(path), pq.ParquetFile(_for_arrow(path)) as file:
        return Part(file.schema_arrow, read, name=str(path), total=float(_size(path)))


def _numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Give the number of the first row with every batch."""
    first = 0
    for batch in batches:
        yield first, batch
        first += len(batch)


def _part_of_lines(path: Path | Url) -> Part:
    """Read a plain text file: a row a line."""

    def read(_columns: list[str]) -> Iterator[Batch]:
        for first, lines, amount in _lines(path):
            try:
                texts = [line.removesuffix(b"\n").removesuffix(b"\r").decode() for line in lines]
            except UnicodeDecodeError as error:
                raise _unreadable(path, error) from error
            table = pa.RecordBatch.from_pydict({LINES_COLUMN: texts})
            yield Batch(table, row=first.__add__, amount=float(amount))

    schema = pa.schema([(LINES_COLUMN, pa.string())])
    return Part(schema, read, name=str(path), total=float(_size(path)))


def _part_of_json_lines(path: Path | Url) -> Part:
    """Read a file with a JSON object a line; a key that a row lacks is null."""

    def read(columns: list[str]) -> Iterator[Batch]:
        late = unforeseen(columns, schema)
        for first, lines, amount in _lines(path):
            rows = _objects(path, lines, first)
            refuse_late({name: [row.get(name) for row in rows] for name in late}, str(path))
            try:
                arrays = {name: as_array([row.get(name) for row in rows]) for name in columns}
            except DataError as error:
                raise DataError(
                    f"A column among {', '.join(columns)} of {path}, in rows {first:,} to "
                    f"{first + len(rows) - 1:,}, {error}. Write every row with the same types."
                ) from error
            table = pa.RecordBatch.from_pydict(arrays)
            yield Batch(table, row=first.__add__, amount=float(amount))

    _, lines, _ = next(_lines(path), (0, [], 0))
    keys: dict[str, pa.DataType] = {}
    for row in _objects(path, lines, 0):
        for key, value in row.items():
            if value is not None and key not in keys:
                keys[key] = _json_type(value, f"Key `{shortened(key)}` of {path}")
    try:
        schema = pa.schema(list(keys.items()))
    except UnicodeEncodeError as error:
        raise DataError(
            f"A key in {path} is no text ({shortened(error)}). Write the file anew, in UTF-8."
        ) from error
    return Part(schema, read, name=str(path), total=float(_size(path)))


def _json_type(value: object, what: str) -> pa.DataType:
    """Tell a column's type by its first value; what is neither text nor list is no matter."""
    if not isinstance(value, str | list):
        return pa.null()
    try:
        return as_array([value]).type
    except DataError as error:
        raise DataError(f"{what} {error}. Write texts in UTF-8, and lists of one type.") from error


def _objects(path: Path | Url, lines: list[bytes], first: int) -> list[dict[str, Any]]:
    """Parse lines, each of which is one row."""
    rows = []
    for number, line in enumerate(lines, start=first + 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except UnicodeDecodeError as error:
            raise _unreadable(path, error) from error
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"Line {number:,} of {path} is no JSON ({shortened(error)}), expected an object a "
                "line. `jq -c . FILE` writes one."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"Line {number:,} of {path} holds a JSON {type(row).__name__}, expected an object "
                "a line. `jq -c '.[]' FILE` writes a list that way."
            )
        rows.append(row)
    return rows


def _lines(path: Path | Url) -> Iterator[tuple[int, list[bytes], int]]:
    """Yield some lines at a time, the number of the first, and their bytes."""
    first = 0
    with naming(Path(str(path))), _opened(path) as file:
        _skip_byte_order_mark(file)
        while lines := list(islice(file, BATCH_ROWS)):
            yield first, lines, sum(map(len, lines))
            first += len(lines)


def _skip_byte_order_mark(file: Any) -> None:
    """Stand behind the mark if there is one, else at the start."""
    if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
        file.seek(0)
