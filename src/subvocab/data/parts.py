"""What every source is turned into before it is counted: parts, read as Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from subvocab.data.arrow import as_array, as_batch
from subvocab.errors import DataError

BATCH_ROWS = 1000
UNNAMED = "token ids"
TOKEN_COLUMNS = ("input_ids", "decoder_input_ids")


def _same(row: int) -> int:
    return row


@dataclass(frozen=True)
class Batch:
    """Some rows of a part.

    Attributes:
        table: The columns that were asked for.
        row: Turns a row of the table into the row a person would look for.
        amount: The share of the part's ``total`` that this batch is.
    """

    table: pa.RecordBatch
    row: Callable[[int], int] = field(default=_same)
    amount: float = 0.0


@dataclass(frozen=True)
class Part:
    """A split, file or stream: rows that have the same columns.

    Attributes:
        schema: The columns there are.
        read: Yields the rows with the columns of the given names only. Called once.
        grows: Whether later rows may have columns that the schema lacks. Such a column may be
            asked for, too; batches have it where rows do.
        name: Words for messages, such as ``split `train` ``; empty if there is one part.
        total: Amount of work, in a unit that all parts of a source share, or None.
        reads_text: Whether any column is read as text, whatever its values look like.
    """

    schema: pa.Schema
    read: Callable[[list[str]], Iterator[Batch]]
    name: str = ""
    total: float | None = None
    reads_text: bool = False
    grows: bool = False


def part_of_table(table: pa.Table, *, name: str = "") -> Part:
    """Read a table that lies in memory or is mapped.

    Args:
        table: The table.
        name: Words for messages.

    Returns:
        A part that yields slices of the table, nothing copied.
    """

    def read(columns: list[str]) -> Iterator[Batch]:
        first = 0
        for batch in table.select(columns).to_batches(max_chunksize=1 << 16):
            yield Batch(batch, row=first.__add__, amount=float(len(batch)))
            first += len(batch)

    return Part(table.schema, read, name=name, total=float(len(table)))


def part_of_columns(columns: Mapping[str, Any]) -> Part:
    """Read columns given in Python, as a tokenizer returns them.

    Args:
        columns: Rows by column name.

    Returns:
        The part.
    """
    return part_of_table(pa.Table.from_batches([as_batch(columns.items())]))


def part_of_batches(
    batches: Iterator[Mapping[str, Any]], *, name: str = "", first_row: int = 0
) -> Part:
    """Read a stream of batches given in Python.

    Args:
        batches: Rows by column name, a batch at a time. The first is read at once, to
            know the columns.
        name: Words for messages.
        first_row: The number of the first row, if others were read before.

    Returns:
        The part.
    """
    first = next(batches, None)
    schema = pa.schema([]) if first is None else _schema(first)

    def read(columns: list[str]) -> Iterator[Batch]:
        start = first_row
        batch = first
        while batch is not None:
            there = [column for column in columns if column in batch or column in schema.names]
            table = as_batch((column, _column(batch, column, name)) for column in there)
            yield Batch(table, row=start.__add__)
            start += len(table)
            batch = next(batches, None)

    return Part(schema, read, name=name, grows=True)


def _schema(batch: Mapping[str, Any]) -> pa.Schema:
    """Tell the type of each column; a column of no one type is shown as null."""
    fields = []
    for name, rows in batch.items():
        try:
            fields.append(pa.field(name, as_array(rows).type))
        except DataError:
            fields.append(pa.field(name, pa.null()))
    return pa.schema(fields)


def _column(batch: Mapping[str, Any], column: str, name: str) -> Any:
    if column not in batch:
        raise DataError(
            f"A batch{' of ' + name if name else ''} has no column `{column}`, which earlier "
            f"ones had; it has {', '.join(batch)}. Give every row the same columns."
        )
    return batch[column]
