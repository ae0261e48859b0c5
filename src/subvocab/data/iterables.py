"""Read token ids from Python: lists, arrays, tensors, rows with columns, texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from subvocab.data.arrow import as_batch
from subvocab.data.parts import BATCH_ROWS, UNNAMED, Part, part_of_batches, part_of_table


def part_of_array(source: Any) -> Part:
    """Read one array, the first axis of which counts rows.

    Args:
        source: An Arrow or NumPy array, or one that NumPy can read.

    Returns:
        A part with the one column ``UNNAMED``.
    """
    if isinstance(source, pa.ChunkedArray):
        return part_of_table(pa.table({UNNAMED: source}))
    array = source if isinstance(source, pa.Array) else None
    batch = (
        as_batch([(UNNAMED, source)])
        if array is None
        else pa.RecordBatch.from_arrays([array], names=[UNNAMED])
    )
    return part_of_table(pa.Table.from_batches([batch]))


def part_of_iterable(rows: Iterable[Any]) -> Part:
    """Read rows one after another.

    Args:
        rows: Token ids a row, a text a row, or a mapping of columns a row.

    Returns:
        A part with the columns of the first rows that are not null throughout, or with the
        one column ``UNNAMED``.
    """
    stream = iter(rows)
    empty = 0
    while some := list(islice(stream, BATCH_ROWS)):
        if any(map(_has_value, some)):
            break
        empty += len(some)
    batched = _batched(chain(some, stream))
    if any(isinstance(row, Mapping) for row in some):
        return part_of_batches((_columns(batch) for batch in batched), first_row=empty)
    return part_of_batches(({UNNAMED: batch} for batch in batched), first_row=empty)


def _has_value(row: Any) -> bool:
    """Tell a row that shows what columns there are."""
    values = row.values() if isinstance(row, Mapping) else (row,)
    return any(value is not None for value in values)


def _batched(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch


def _columns(rows: list[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
    """Turn rows of columns into columns of rows; a key that a row lacks is null."""
    names = dict.fromkeys(chain.from_iterable(row for row in rows if row is not None))
    return {name: [None if row is None else row.get(name) for row in rows] for name in names}
