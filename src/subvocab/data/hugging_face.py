"""Read the datasets of `datasets`: the mapped Arrow table itself, or what a transform gives.

A dataset and its format are left as they are, and nothing is cached. `datasets` takes most
of a second to import, so it is only looked for among the modules loaded: whoever has a
dataset has loaded it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from subvocab.data.arrow import unwrapped
from subvocab.data.parts import BATCH_ROWS, Batch, Part, part_of_batches, part_of_table
from subvocab.errors import DataError, shortened

_SAVED_MARKS = ("dataset_dict.json", "state.json")


def is_dataset(source: object) -> bool:
    """Tell a ``datasets.Dataset``.

    Args:
        source: Anything.

    Returns:
        True for a dataset that can be indexed.
    """
    return _is_a(source, "Dataset")


def is_iterable_dataset(source: object) -> bool:
    """Tell a ``datasets.IterableDataset``.

    Args:
        source: Anything.

    Returns:
        True for a dataset that streams.
    """
    return _is_a(source, "IterableDataset")


def _is_a(source: object, name: str) -> bool:
    module = sys.modules.get("datasets")
    return module is not None and isinstance(source, getattr(module, name, ()))


def is_saved_dataset(folder: Path) -> bool:
    """Tell a folder that ``save_to_disk`` wrote.

    Args:
        folder: Any folder.

    Returns:
        True if ``datasets.load_from_disk`` reads it.
    """
    return any((folder / mark).is_file() for mark in _SAVED_MARKS)


def load_saved_dataset(folder: Path) -> Any:
    """Map a dataset that ``save_to_disk`` wrote.

    Args:
        folder: The folder.

    Returns:
        A ``Dataset`` or ``DatasetDict``.

    Raises:
        DataError: If it is damaged.
    """
    from datasets import load_from_disk  # noqa: PLC0415

    try:
        return load_from_disk(folder)
    except Exception as error:
        raise DataError(
            f"{folder} is a dataset that `save_to_disk` wrote, and cannot be loaded "
            f"({shortened(error).rstrip('.')}). Save it once more."
        ) from error


def part_of_dataset(dataset: Any, *, name: str = "", in_order: bool = False) -> Part:
    """Read a dataset as its model will see it.

    Args:
        dataset: A ``Dataset``.
        name: Words for messages.
        in_order: Whether selected and shuffled rows are read as they stand. Counting does not
            ask for the order: without it each row of the table is read as often as it is
            taken, which is quicker.

    Returns:
        The part. With a transform (``set_transform``) rows are made by it; any other
        format only changes the container, so the table is read.
    """
    if dataset.format["type"] == "custom":
        return part_of_batches(iter(dataset.iter(batch_size=BATCH_ROWS)), name=name)
    table = dataset.data.table.select(dataset.format["columns"])
    if dataset._indices is None:  # noqa: SLF001  (there is no public way to see a view)
        return part_of_table(table, name=name)
    chosen = dataset._indices.column(0).to_numpy().astype(np.int64)  # noqa: SLF001
    if in_order:
        return _part_in_order(dataset, table.schema, name=name)
    return _part_of_view(table, chosen, name=name)


def part_of_iterable_dataset(dataset: Any, *, name: str = "") -> Part:
    """Read a streaming dataset once.

    Args:
        dataset: An ``IterableDataset``.
        name: Words for messages.

    Returns:
        The part.
    """
    return part_of_batches(batches_of(dataset), name=name)


def batches_of(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Stream a dataset in whatever format it has.

    Args:
        dataset: An ``IterableDataset``.

    Yields:
        Rows by column name, a batch at a time.
    """
    for batch in dataset.iter(batch_size=BATCH_ROWS):
        yield batch.to_pydict() if isinstance(batch, pa.Table) else batch


def steps_of(dataset: Any) -> list[str]:
    """Name what a stream reads, and what it does to its rows.

    Args:
        dataset: An ``IterableDataset``.

    Returns:
        The kinds of steps, the last first; with those that read, their files or arguments.
    """

    def below(step: Any) -> Iterator[str]:
        yield type(step).__name__
        if arguments := getattr(step, "kwargs", None):
            yield json.dumps(arguments, default=lambda value: type(value).__name__)
        for earlier in (getattr(step, "ex_iterable", None), *getattr(step, "ex_iterables", ())):
            if earlier is not None:
                yield from below(earlier)

    return list(below(dataset._ex_iterable))  # noqa: SLF001  (there is no public way to see them)


def _part_in_order(dataset: Any, schema: pa.Schema, *, name: str) -> Part:
    """Read the rows of a view as they stand."""

    def read(columns: list[str]) -> Iterator[Batch]:
        first = 0
        for table in dataset.with_format("arrow", columns=columns).iter(10 * BATCH_ROWS):
            (batch,) = table.combine_chunks().to_batches()
            yield Batch(batch, row=first.__add__, amount=float(len(batch)))
            first += len(batch)

    return Part(schema, read, name=name, total=float(len(dataset)))


def _part_of_view(table: pa.Table, chosen: Int64[np.ndarray, "rows"], *, name: str) -> Part:
    """Read each row as often as a view shows it, in the order of the table."""
    times = np.bincount(chosen, minlength=len(table))

    def read(columns: list[str]) -> Iterator[Batch]:
        first = 0
        for batch in table.select(columns).to_batches(max_chunksize=1 << 16):
            wanted = times[first : first + len(batch)]
            if wanted.all() and wanted.max(initial=0) == 1:
                rows = np.arange(first, first + len(batch))
                yield Batch(batch, row=_place_in_view(rows, chosen), amount=float(len(batch)))
            else:
                yield from _taken(batch, wanted, first, chosen)
            first += len(batch)

    return Part(table.schema, read, name=name, total=float(len(chosen)))


def _taken(
    batch: pa.RecordBatch,
    wanted: Int64[np.ndarray, "batch"],
    first: int,
    chosen: Int64[np.ndarray, "rows"],
) -> Iterator[Batch]:
    """Copy out the rows of a batch that a view shows, some at a time."""
    rows = np.repeat(np.arange(len(batch)), wanted)
    plain = pa.RecordBatch.from_arrays(
        [unwrapped(column) for column in batch.columns], names=batch.schema.names
    )
    for start in range(0, rows.size, 10 * BATCH_ROWS):
        some = rows[start : start + 10 * BATCH_ROWS]
        yield Batch(
            plain.take(pa.array(some)),
            row=_place_in_view(some + first, chosen),
            amount=float(len(some)),
        )


def _place_in_view(
    rows: Int64[np.ndarray, "batch"], chosen: Int64[np.ndarray, "rows"]
) -> Callable[[int], int]:
    """Find where a view first shows the row of the table that a batch holds at some place."""
    return lambda row: int(np.flatnonzero(chosen == rows[row])[0])
