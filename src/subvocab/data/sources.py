"""Tell any source of tokens or texts from any other, and split it into parts that read alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from subvocab._typing import StrPath
from subvocab.data import hugging_face
from subvocab.data.files import parts_of_path
from subvocab.data.iterables import part_of_array, part_of_iterable
from subvocab.data.parts import TOKEN_COLUMNS, Part, part_of_columns, part_of_table
from subvocab.data.urls import Url, file_at
from subvocab.errors import DataError


def parts_of(
    source: Any, *, file_format: str | None, header: bool, in_order: bool
) -> Iterator[Part]:
    """Split any source into parts that are read alike.

    Args:
        source: As for `subvocab.scan`.
        file_format: How files are to be read, or None to go by their names.
        header: Whether the first line of a CSV or TSV file names its columns.
        in_order: Whether rows must come in their order, which may be slower.

    Yields:
        The splits, files or streams.

    Raises:
        DataError: If it is nothing that can be scanned, or a file cannot be read.
    """
    if isinstance(source, str | os.PathLike | Url):
        yield from _parts_of_path(source, file_format=file_format, header=header, in_order=in_order)
    elif hugging_face.is_dataset(source):
        yield hugging_face.part_of_dataset(source, in_order=in_order)
    elif hugging_face.is_iterable_dataset(source):
        yield hugging_face.part_of_iterable_dataset(source)
    elif isinstance(source, pa.Table):
        yield part_of_table(source)
    elif isinstance(source, pa.RecordBatch):
        yield part_of_table(pa.Table.from_batches([source]))
    elif isinstance(source, Mapping):
        yield from _parts_of_mapping(
            source, file_format=file_format, header=header, in_order=in_order
        )
    elif isinstance(source, pa.Array | pa.ChunkedArray) or hasattr(source, "__array__"):
        yield part_of_array(source)
    elif isinstance(source, Iterable):
        yield from _parts_of_iterable(
            source, file_format=file_format, header=header, in_order=in_order
        )
    else:
        raise DataError(
            f"A `{type(source).__name__}` cannot be scanned, expected a dataset, a table, an "
            "iterable of token ids, or a path. Pass one of these."
        )


def _parts_of_path(
    path: StrPath | Url, *, file_format: str | None, header: bool, in_order: bool
) -> Iterator[Part]:
    """Read a saved dataset, or files."""
    path = file_at(path)
    if (
        isinstance(path, Path)
        and path.is_dir()
        and file_format is None
        and hugging_face.is_saved_dataset(path)
    ):
        dataset = hugging_face.load_saved_dataset(path)
        yield from parts_of(dataset, file_format=None, header=header, in_order=in_order)
    else:
        yield from parts_of_path(path, file_format=file_format, header=header)


def _parts_of_mapping(
    source: Mapping[Any, Any], *, file_format: str | None, header: bool, in_order: bool
) -> Iterator[Part]:
    """Read columns, or splits: the values of splits have columns of their own."""
    values = list(source.values())
    if TOKEN_COLUMNS[0] in source or not any(map(has_columns, values)):
        yield part_of_columns(source)
        return
    for split, value in source.items():
        for part in parts_of(value, file_format=file_format, header=header, in_order=in_order):
            name = f"split `{split}`" + (f" ({part.name})" if part.name else "")
            yield replace(part, name=name)


def has_columns(value: object) -> bool:
    """Tell a split from a column.

    Args:
        value: A value of a mapping.

    Returns:
        True for what has columns of its own.
    """
    return (
        hugging_face.is_dataset(value)
        or hugging_face.is_iterable_dataset(value)
        or isinstance(value, pa.Table | pa.RecordBatch | Mapping | str | os.PathLike | Url)
    )


def _parts_of_iterable(
    source: Iterable[Any], *, file_format: str | None, header: bool, in_order: bool
) -> Iterator[Part]:
    """Read files if paths were given, else rows."""
    if isinstance(source, Sequence) and source and isinstance(source[0], os.PathLike | Url):
        for path in source:
            yield from _parts_of_path(
                path, file_format=file_format, header=header, in_order=in_order
            )
        return
    if isinstance(source, Sequence) and source and _names_file(source[0]):
        raise DataError(
            f"The first text, {source[0]}, names a file. Pass `pathlib.Path` objects to scan files."
        )
    yield part_of_iterable(source)


def _names_file(text: object) -> bool:
    try:
        return isinstance(text, str) and Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False
