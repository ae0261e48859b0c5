"""Write learned rows into a copy of a checkpoint, on disk: no model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from subvocab._typing import StrPath
from subvocab.errors import VocabularyMismatchError, listed
from subvocab.model.table_rows import TableRows
from subvocab.model.tensors import SPILL_NAME, TORCH_DTYPES, tensor_chunks, to_bytes, to_tensor
from subvocab.storage import Checkpoint, FullMatrix, merge_rows, read_checkpoint
from subvocab.storage.merge import Rows


def merge_tables(
    tables: Iterable[TableRows], base: Path, out: StrPath, *, progress: bool = False
) -> None:
    """Copy a checkpoint with what was learned of its tables.

    Args:
        tables: Learned rows.
        base: A checkpoint folder; it is only read.
        out: The folder to write; it must not exist, or be empty.
        progress: Whether to show a progress bar, on a terminal.

    Raises:
        VocabularyMismatchError: If a table is not in the checkpoint.
    """
    checkpoint = read_checkpoint(base)
    rows: dict[str, Rows | FullMatrix] = {}
    for table in tables:
        for matrix in _stored_matrices(table, checkpoint):
            rows[matrix.tensor.name] = _merged(table, matrix)
    merge_rows(base, out, rows, progress=progress)


def _stored_matrices(table: TableRows, base: Checkpoint) -> list[FullMatrix]:
    """Find a table in a checkpoint by its content, whatever its name; a tie may be stored twice."""
    tall = [
        t for t in base.tensors.values() if (*t.shape, 1)[: max(2, len(t.shape))] == table.shape
    ]
    candidates = [
        FullMatrix(replace(t, shape=table.shape)) for t in tall if t.dtype in TORCH_DTYPES
    ]
    alike = [m for m in candidates if table.is_base(_disk_reader(m))]
    named = [m for m in alike if m.tensor.name in table.names]
    if not alike:
        raise VocabularyMismatchError(
            f"No matrix in {base.folder} is `{table.names[0]}` as the adapter was learned from it; "
            f"of its size there: {listed([f'`{t.name}`' for t in tall]) or 'none'}. Give as base "
            "the very model that training began from."
        )
    return named or alike


def _disk_reader(matrix: FullMatrix) -> Callable[[Tensor], Tensor]:
    """Give what reads rows of a stored matrix."""
    return lambda token_ids: to_tensor(matrix.rows(token_ids.numpy()), matrix.dtype)


def _merged(table: TableRows, matrix: FullMatrix) -> Rows | FullMatrix:
    """Make the rows to write: those of V′, or with a shift all, by way of a temporary file."""
    if table.rest_shift is None:
        rows = table.applied(table.token_ids, _disk_reader(matrix)(table.token_ids))
        return table.token_ids.numpy(), to_bytes(rows)

    def chunks() -> Iterator[Tensor]:
        for first, part in tensor_chunks(matrix):
            yield table.applied(torch.arange(first, first + len(part)), part)

    return FullMatrix.spill(SPILL_NAME, matrix.dtype, table.shape, map(to_bytes, chunks()))
