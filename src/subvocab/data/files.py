"""Read files of text as a stream: JSON lines, CSV, TSV, plain lines and Parquet.

No file is held whole in memory, and nothing is cached. Text is UTF-8, with or without a
byte order mark.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from subvocab.data.arrow import as_array
from subvocab.data.parts import BATCH_ROWS, Batch, Part
from subvocab.data.reading import arrow_reads, for_arrow, lines_of, size_of, unreadable
from subvocab.data.urls import Url
from subvocab.errors import DataError, shortened

LINES_COLUMN = "text"
BLOCK_BYTES = 1 << 24
FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".parquet": "parquet",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")


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
        DataError: If there is nothing to read, or a file that cannot be. A warning tells of
            files in a folder inside the folder, which are not read.
    """
    if not path.exists():
        raise DataError(f"There is no file or folder {path}.")
    if not path.is_dir():
        _refuse_pipe(path)
        return [path]
    inside: list[Path | Url] = sorted(path.iterdir(), key=str)
    files = [file for file in inside if _is_known(file, file_format)]
    for file in inside if file_format is None else []:
        _refuse_packed(file)
    if not files:
        raise DataError(
            f"No file in {path} ends in {', '.join(FORMATS)}. Name the files, or their format "
            "with `file_format`."
        )
    for file in files:
        _refuse_pipe(file)
    _tell_of_folders(inside, file_format)
    return files


def _is_known(file: Path | Url, file_format: str | None) -> bool:
    """Tell a file that is read as one of its folder."""
    return (file_format is not None or file.suffix.lower() in FORMATS) and not file.is_dir()


def _refuse_pipe(file: Path | Url) -> None:
    """Refuse what would be waited for without end."""
    if isinstance(file, Path) and file.exists() and not file.is_file():
        raise DataError(
            f"{file} is a pipe or a device, expected a file, which can be read twice. Write "
            "what comes out of it to one."
        )


def _refuse_packed(file: Path | Url) -> None:
    """Refuse to pass over a file of a known kind that is compressed."""
    inner, outer = ["", "", *PurePath(file.name.lower()).suffixes][-2:]
    if inner in FORMATS and outer in COMPRESSED:
        raise DataError(
            f"{file} is compressed, and would not be read. Unpack it, or name the files to read."
        )


def _tell_of_folders(inside: list[Path | Url], file_format: str | None) -> None:
    """Warn of the first folder inside a folder that holds files, too; hidden ones are no data."""
    folders = (one for one in inside if one.is_dir() and not one.name.startswith("."))
    if folder := next((one for one in folders if _holds_files(one, file_format)), None):
        warnings.warn(
            f"{folder} has files as well, which are not read: of a folder, only those directly in "
            "it are. Name it, too, if they are wanted.",
            stacklevel=2,
        )


def _holds_files(folder: Path | Url, file_format: str | None) -> bool:
    """Look into a folder; one that is closed to the reader holds nothing for it."""
    with suppress(PermissionError, DataError):
        return any(_is_known(file, file_format) for file in folder.iterdir())
    return False


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
    if isinstance(path, Url):
        return _part_elsewhere(path, openers[file_format])
    return openers[file_format](path)


def _part_elsewhere(url: Url, part_of: Callable[[Path | Url], Part]) -> Part:
    """Read a file that may be lost on the way."""
    with url.reached():
        part = part_of(url)

    def read(columns: list[str]) -> Iterator[Batch]:
        with url.reached():
            yield from part.read(columns)

    return replace(part, read=read)


def _part_of_table(path: Path | Url, *, delimiter: str, quote: str | bool, header: bool) -> Part:
    """Read a CSV or TSV file. Columns without a header are numbered from 1."""
    parsing = csv.ParseOptions(
        delimiter=delimiter, quote_char=quote, newlines_in_values=bool(quote)
    )

    def stream(names: list[str], columns: list[str]) -> Any:
        return csv.open_csv(
            for_arrow(path),
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
        if not found.names:
            return
        try:
            with stream([] if header else found.names, columns) as reader:
                for first, batch in _numbered(reader):
                    yield Batch(batch, row=first.__add__, amount=float(batch.nbytes))
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise unreadable(path, error) from error

    found = _schema_of_table(path, schema)
    return Part(found, read, name=str(path), total=size_of(path), reads_text=True)


def _schema_of_table(path: Path | Url, schema: Callable[[], pa.Schema]) -> pa.Schema:
    """Read the names and types of columns; a file without a row after its header has none."""
    with arrow_reads(path):
        try:
            return schema()
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return pa.schema([])
            raise


def _part_of_parquet(path: Path | Url) -> Part:
    """Read a Parquet file."""

    def read(columns: list[str]) -> Iterator[Batch]:
        with arrow_reads(path), pq.ParquetFile(for_arrow(path)) as file:
            batches = file.iter_batches(batch_size=10 * BATCH_ROWS, columns=columns)
            for first, batch in _numbered(batches):
                share = len(batch) / file.metadata.num_rows
                yield Batch(batch, row=first.__add__, amount=share * (size_of(path) or 0))

    with arrow_reads(path), pq.ParquetFile(for_arrow(path)) as file:
        return Part(file.schema_arrow, read, name=str(path), total=size_of(path))


def _numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Give the number of the first row with every batch."""
    first = 0
    for batch in batches:
        yield first, batch
        first += len(batch)


def _part_of_lines(path: Path | Url) -> Part:
    """Read a plain text file: a row a line."""

    def read(_columns: list[str]) -> Iterator[Batch]:
        for first, lines, amount in lines_of(path):
            try:
                texts = [line.removesuffix(b"\n").removesuffix(b"\r").decode() for line in lines]
            except UnicodeDecodeError as error:
                raise unreadable(path, error) from error
            table = pa.RecordBatch.from_pydict({LINES_COLUMN: texts})
            yield Batch(table, row=first.__add__, amount=float(amount))

    schema = pa.schema([(LINES_COLUMN, pa.string())])
    return Part(schema, read, name=str(path), total=size_of(path))


def _part_of_json_lines(path: Path | Url) -> Part:
    """Read a file with a JSON object a line; a key that a row lacks is null."""

    def read(columns: list[str]) -> Iterator[Batch]:
        for first, lines, amount in lines_of(path):
            rows = _objects(path, lines, first)
            try:
                arrays = {name: as_array([row.get(name) for row in rows]) for name in columns}
            except DataError as error:
                raise DataError(
                    f"A column among {', '.join(columns)} of {path}, in rows {first:,} to "
                    f"{first + len(rows) - 1:,}, {error}. Write every row with the same types."
                ) from error
            table = pa.RecordBatch.from_pydict(arrays)
            yield Batch(table, row=first.__add__, amount=float(amount))

    try:
        schema = pa.schema(list(_keys(path).items()))
    except UnicodeEncodeError as error:
        raise DataError(
            f"A key in {path} is no text ({shortened(error)}). Write the file anew, in UTF-8."
        ) from error
    return Part(schema, read, name=str(path), total=size_of(path), grows=True)


def _keys(path: Path | Url) -> dict[str, pa.DataType]:
    """Tell the columns of the first rows that are not null throughout; none if all are."""
    for first, lines, _amount in lines_of(path):
        kinds: dict[str, pa.DataType] = {}
        rows = _objects(path, lines, first)
        for row in rows:
            for key, value in row.items():
                if value is None:
                    kinds.setdefault(key, pa.null())
                elif kinds.get(key, pa.null()) == pa.null():
                    kinds[key] = _json_type(value, f"Key `{shortened(key)}` of {path}")
        if any(value is not None for row in rows for value in row.values()):
            return kinds
    return {}


def _json_type(value: object, what: str) -> pa.DataType:
    """Tell a column's type by its first value; what is neither text nor list is no matter."""
    try:
        return as_array([value]).type
    except DataError as error:
        if not isinstance(value, str | list):
            return pa.null()
        raise DataError(f"{what} {error}. Write texts in UTF-8, and lists of one type.") from error


def _objects(path: Path | Url, lines: list[bytes], first: int) -> list[dict[str, Any]]:
    """Parse lines, each of which is one row."""
    rows = []
    for number, line in enumerate(lines, start=first + 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except UnicodeDecodeError as error:
            raise unreadable(path, error) from error
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
