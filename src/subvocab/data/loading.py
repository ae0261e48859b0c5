"""Load one split of a dataset for training, by `datasets`: files, folders or the Hub.

Unlike a scan, this keeps what it reads: `datasets` maps it from its own cache. CSV and TSV
files are read as a scan reads them, every value as text, and held in memory; so is plain text.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from subvocab.data.columns import Wanted, choose_columns
from subvocab.data.files import FORMATS, LINES_COLUMN, files_of, parts_of_path
from subvocab.data.hugging_face import is_saved_dataset, load_saved_dataset, part_of_dataset
from subvocab.data.urls import Url
from subvocab.errors import DataError

TABLES = ("csv", "tsv")
BUILDERS = {"jsonl": "json", "parquet": "parquet"}
"""The builder of `datasets` that reads a format."""
PLAIN_TEXT = "text"
PIECE_CHARACTERS = 1 << 22
"""A longer file of plain text is cut at the end of a line: tokenizers hold a text in memory many
times over."""


@dataclass(frozen=True)
class Contents:
    """What a dataset should hold.

    Attributes:
        name: Words for messages: "texts and their labels".
        plain_text: Whether files of plain text will do: each is one text.
    """

    name: str
    plain_text: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of files that can hold it."""
        return (*BUILDERS, *TABLES, *((PLAIN_TEXT,) if self.plain_text else ()))


def load_split(source: str, splits: Sequence[str], contents: Contents) -> Any:
    """Load one split of whatever a name stands for.

    Args:
        source: A file (JSON lines, CSV, TSV, Parquet; plain text where that will do), a
            folder of such files or one that ``save_to_disk`` wrote, or the name of a
            dataset on the Hub. ``NAME:SPLIT`` chooses a split of a folder or Hub dataset,
            ``NAME:CONFIG:SPLIT`` a configuration too. Files in a folder are splits by
            their names; where all are plain text and none is named so, they are one.
        splits: Splits to take, the first that exists, where the source names none.
        contents: What it should hold.

    Returns:
        A ``datasets.Dataset`` with rows. A file of plain text has one column, ``text``.

    Raises:
        DataError: If there is no such source or split, or it has no rows.
    """
    dataset = _load(source, splits, contents)
    if not len(dataset):
        raise DataError(f"{source} has no rows, expected {contents.name}.")
    return dataset


def choose_texts(dataset: Any, source: str, named: Sequence[str] = ()) -> tuple[str, ...]:
    """Choose the column of text, or the two that make a pair.

    Args:
        dataset: A ``datasets.Dataset``.
        source: Where it came from, for messages.
        named: Those a person chose; by default ``text``, ``sentence`` or the only one.

    Returns:
        The columns. Each has a text in every row.

    Raises:
        DataError: If there is no such column, or a text is missing.
    """
    part = part_of_dataset(dataset, name=f"`{source}`")
    wanted = Wanted(tokens=(), labels=(), texts=tuple(named) or None, tokenizes=True)
    texts = choose_columns(part, wanted).texts
    for name in texts:
        refuse_missing(dataset, name, source)
    return texts


def refuse_missing(dataset: Any, name: str, source: str) -> None:
    """Refuse a column with a null.

    Args:
        dataset: A ``datasets.Dataset``.
        name: The column.
        source: Where it came from, for the message.

    Raises:
        DataError: If there is one; names the first row.
    """
    column = dataset.with_format("arrow")[name]
    values = column[:] if not isinstance(column, pa.ChunkedArray) else column
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise DataError(
            f"Row {row:,} of {source} has nothing in column `{name}`, expected a value in every "
            "row. Take such rows out."
        )


def _load(source: str, splits: Sequence[str], contents: Contents) -> Any:
    """Load a split, which may be empty."""
    name, *choice = [source] if Path(source).exists() else source.split(":")
    wanted = choice[-1:] or splits
    path = Path(name)
    if path.is_file():
        return _load_file(path, contents)
    if path.is_dir():
        dataset = _load_folder(path, wanted, contents)
    elif path.suffix in FORMATS or name.startswith((".", "/")):
        raise DataError(f"There is no file or folder {name}.")
    else:
        dataset = _load_name(name, choice[0] if len(choice) > 1 else None)
    if not isinstance(dataset, Mapping):
        return dataset
    for split in wanted:
        if split in dataset:
            chosen = dataset[split]
            return _load_file(chosen, contents) if isinstance(chosen, Path) else chosen
    raise DataError(
        f"{source} has no split {' or '.join(wanted)}. Its splits: {', '.join(dataset)}."
    )


def _load_file(path: Path, contents: Contents) -> Any:
    """Load a file of a format that can hold the contents."""
    found = FORMATS.get(path.suffix.lower(), "")
    if path.stat().st_size == 0:
        raise DataError(f"{path} has no rows, expected {contents.name}.")
    if found not in contents.formats:
        known = ", ".join(end for end, name in FORMATS.items() if name in contents.formats)
        raise DataError(f"{path} ends in `{path.suffix}`, expected one of {known}.")
    if found in TABLES:
        return _load_table(path)
    if found == PLAIN_TEXT:
        return _load_plain_text([path])
    with _reasons(path):
        # Whole, and with no pattern in it: `datasets` would expand a name with brackets.
        return datasets.load_dataset(
            BUILDERS[found], data_files=glob.escape(str(path)), split="train"
        )


def _load_table(path: Path) -> Any:
    """Read a CSV or TSV file as a scan does: every value is text, and nothing is null."""
    part = next(parts_of_path(path, file_format=None, header=True))
    names = part.schema.names
    schema = pa.schema([(name, pa.string()) for name in names])
    batches = [batch.table for batch in part.read(names)]
    return datasets.Dataset(pa.Table.from_batches(batches, schema))


def _load_plain_text(paths: Sequence[Path | Url]) -> Any:
    """Read files of which each is one text, with its lines as they are."""
    texts = pa.array(chain.from_iterable(map(_pieces, paths)), pa.large_string())
    return datasets.Dataset(pa.table({LINES_COLUMN: texts}))


def _pieces(path: Path | Url) -> Iterator[str]:
    """Read a file of plain text; what is very long comes in pieces of whole lines."""
    part = next(parts_of_path(path, file_format=PLAIN_TEXT, header=True))
    lines: list[str] = []
    characters = 0
    for batch in part.read([LINES_COLUMN]):
        for line in batch.table.column(LINES_COLUMN).to_pylist():
            lines.append(f"{line}\n")
            characters += len(line)
            if characters >= PIECE_CHARACTERS:
                yield "".join(lines)
                lines, characters = [], 0
    if lines:
        yield "".join(lines)


def _load_folder(path: Path, splits: Sequence[str], contents: Contents) -> Any:
    """Load what lies in a folder; of files that are splits, give the paths."""
    if is_saved_dataset(path):
        return load_saved_dataset(path)
    formats = {file: FORMATS.get(file.suffix.lower()) for file in sorted(path.iterdir())}
    found = [file for file, name in formats.items() if name in contents.formats]
    plain = all(formats[file] == PLAIN_TEXT for file in found)
    if not plain:  # the others are notes beside the data
        found = [file for file in found if formats[file] != PLAIN_TEXT]
    files = {file.stem: file for file in found}
    if files.keys() & splits or any(formats[file] in TABLES for file in found):
        _refuse_namesakes(found)
        return files  # `datasets` would see splits in the names of the folders above, too
    if found and plain:
        return _load_plain_text(files_of(path, file_format=None))
    return _load_name(str(path), None)


def _refuse_namesakes(files: Sequence[Path]) -> None:
    """Refuse two files that are both the split of their name."""
    for one, other in pairwise(sorted(files, key=lambda file: file.stem)):
        if one.stem == other.stem:
            raise DataError(
                f"{one} and {other} are both the split `{one.stem}`, expected one file a split. "
                "Move one elsewhere, or name the file to read."
            )


def _load_name(name: str, config: str | None) -> Any:
    """Load what `datasets` knows under a name."""
    with _reasons(name):
        return datasets.load_dataset(name, config)


@contextmanager
def _reasons(name: object) -> Iterator[None]:
    """Turn whatever `datasets` and its parsers raise into one kind of error."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or repr(cause)).splitlines()[0]
        raise DataError(
            f"`{name}` cannot be loaded: {reason.rstrip('.')}. Give a file, a folder, or the name "
            "of a dataset on the Hub."
        ) from error
