"""The learned rows of a model in one small file: applied to any copy of the base, and taken out.

A LoRA adapter beside it holds what was learned of the body; nothing here depends on PEFT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from subvocab._typing import StrPath
from subvocab.errors import CheckpointError, UnsupportedModelError, VocabularyMismatchError, listed
from subvocab.model.bias import PartialBias
from subvocab.model.load import local_folder
from subvocab.model.matrices import Applied, ModelMatrix, Reader, matrices_of
from subvocab.model.ranks import gathered
from subvocab.model.row_file import read_rows_file, write_rows
from subvocab.model.row_merge import merge_tables
from subvocab.model.table import PartialTable
from subvocab.model.table_rows import TableRows, differences, fingerprint_of
from subvocab.model.tensors import read_rows


@dataclass(frozen=True, eq=False)
class RowAdapter:
    """The learned rows of every table of a model. Immutable.

    Attributes:
        tables: Rows by the name of their table in the model's state dict.

    Example:
        ``RowAdapter.of(model).save("rows.safetensors")`` after training; later
        ``RowAdapter.load("rows.safetensors").apply(base)``.
    """

    tables: dict[str, TableRows]

    @classmethod
    def of(cls, model: nn.Module, *, differences: bool = False) -> RowAdapter:
        """Take the learned rows of a shrunk model.

        Args:
            model: A model from `shrink` or `from_pretrained`, with adapters or not.
            differences: Whether to keep what was added to each row rather than the rows.
                Then several adapters can be stacked on one model.

        Returns:
            For each table V′, its rows, and the shift of all others where a head trained one:
            all that makes the base's matrices those of the merged model, to the last bit.

        Raises:
            UnsupportedModelError: If the model is not shrunk, or a number differs so much from
                the base that no difference gives it back.
        """
        tables = (_table_of(m, as_differences=differences) for m in matrices_of(model) if m.source)
        found = {table.names[0]: table for table in tables}
        if not found:
            raise UnsupportedModelError(
                f"`{type(model).__name__}` is not shrunk, so which of its rows were learned is not "
                "known. Take the adapter before `subvocab.restore`."
            )
        return cls(found)

    @classmethod
    def load(cls, path: StrPath) -> RowAdapter:
        """Read an adapter back.

        Args:
            path: A file that `save` wrote.

        Returns:
            The adapter.

        Raises:
            CheckpointError: If the file is missing, damaged, or holds something else.
        """
        tables, written = read_rows_file(path)
        adapter = cls(tables)
        if adapter.fingerprint != written:
            raise CheckpointError(
                f"{path} is damaged: it says fingerprint {written[:12] or '(none)'}, but its "
                f"values give {adapter.fingerprint[:12]}. Save it anew."
            )
        return adapter

    def save(self, path: StrPath) -> None:
        """Write the adapter to one safetensors file, all at once or not at all.

        Args:
            path: The file; its folder must exist.
        """
        write_rows(path, self.tables, fingerprint=self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Name of this value."""
        names = "".join(table.fingerprint for table in self.tables.values())
        return hashlib.sha256(names.encode()).hexdigest()

    def __repr__(self) -> str:
        rows = listed([f"{len(t.token_ids):,} rows of `{name}`" for name, t in self.tables.items()])
        return f"RowAdapter({rows}; fingerprint {self.fingerprint[:12]})"

    def apply(self, model: nn.Module, *, check: bool = True) -> None:
        """Give a copy of the base the learned rows, in place.

        Several adapters of differences add up, in the order in which they are applied. Learned
        rows are what they are: no other adapter may make the same rows something else.

        Args:
            model: A copy of the base, whole or shrunk with any V′, with other adapters or not.
            check: Whether to refuse a model that is not a copy of the base. It is one with
                adapters applied too; not if one was merged into the file it was loaded from.

        Raises:
            UnsupportedModelError: If the adapter is applied already, or changes rows that
                another one holds.
            VocabularyMismatchError: If the model is another one.
        """
        matched = self._matched(model)
        for table, matrix in matched:
            record = matrix.applied()
            read = matrix.reader()
            before = read if record is None else _before(record, read)
            _refuse_conflict(table, record, before)
            if check and not table.is_base(before):
                raise _not_the_base(model, matrix.names[0])
        for table, matrix in matched:
            matrix.apply(table)

    def remove(self, model: nn.Module) -> None:
        """Take the adapter out again: each row is as if it had never been applied.

        Args:
            model: A model that it was applied to; other adapters may stay. For differences
                also one that was saved with this adapter alone applied, and loaded again.

        Raises:
            UnsupportedModelError: If the adapter is not applied, or rows were trained or
                loaded since, and taking it out does not give the base.
        """
        todo: list[Callable[[], None]] = []
        for table, matrix in self._matched(model):
            record = matrix.applied()
            known = [] if record is None else [one.fingerprint for one in record.tables]
            if record is not None and table.fingerprint in known:
                todo.append(lambda m=matrix, r=record, t=table: m.remove(r, t))  # type: ignore[misc]
            elif table.differences and table.is_base(_subtracting(table, matrix.reader())):
                change = table.subtracted
                todo.append(lambda m=matrix, t=table, c=change: m.rewrite(t.touched_ids, c))  # type: ignore[misc]
            else:
                raise UnsupportedModelError(
                    f"The rows of `{matrix.names[0]}` are not those of the base with this adapter "
                    "applied: it never was, or they were trained or loaded since. Load the base "
                    "anew, and apply what shall stay."
                )
        for step in todo:
            step()

    def merge(self, base: StrPath, out: StrPath, *, progress: bool = True) -> Path:
        """Write the base with the learned rows to a new folder, on disk.

        Args:
            base: The model that training began from: a folder, or a name on the Hub. It is
                only read.
            out: The folder to write; it must not exist, or be empty.
            progress: Whether to show a progress bar, on a terminal.

        Returns:
            ``out``: a copy of the base with other rows, in the dtype that they have there.

        Raises:
            CheckpointError: If the base is damaged, the disk is full, or ``out`` holds
                something.
            VocabularyMismatchError: If the base is another model.
        """
        merge_tables(self.tables.values(), local_folder(base), out, progress=progress)
        return Path(out)

    def _matched(self, model: nn.Module) -> list[tuple[TableRows, ModelMatrix]]:
        """Find each table's matrix in a model: by name, or by what it holds."""
        matrices = matrices_of(model)
        matched = []
        for name, table in self.tables.items():
            fitting = [m for m in matrices if m.shape == table.shape]
            alike = (
                [m for m in fitting if set(m.names) & set(table.names)]
                or [m for m in fitting if _named_alike(m.names, table.names)]
                or [m for m in fitting if table.is_base(m.reader())]
            )
            if len(alike) != 1:
                raise VocabularyMismatchError(
                    f"`{type(model).__name__}` has {len(alike) or 'no'} matrices that may be "
                    f"`{name}`, of {table.shape[0]:,} rows of {table.shape[1]:,} numbers, expected "
                    "one. Apply the adapter to the model that training began from."
                )
            matched.append((table, alike[0]))
        return matched


def _table_of(matrix: ModelMatrix, *, as_differences: bool) -> TableRows:
    """Take what was learned of one table."""
    assert matrix.source is not None  # noqa: S101 - asked for partial ones only
    vocabulary = matrix.source.vocabulary
    token_ids = torch.tensor(vocabulary.token_ids)
    learned = gathered(matrix.parameter).detach().cpu().clone().view(len(vocabulary), -1)
    if isinstance(matrix.source, PartialBias):
        whole = matrix.source.whole.detach().cpu()[:, None]
        dtype, fingerprint = fingerprint_of(whole)
    else:
        disk = matrix.source.matrix
        dtype, fingerprint = disk.dtype, disk.fingerprint
    values = learned
    if as_differences:
        values = differences(learned, _base_rows(matrix.source, learned), matrix.names[0])
    shift = None if matrix.shift is None else matrix.shift.detach().cpu().clone()
    return TableRows(
        tuple(matrix.names),
        vocabulary.full_vocab_size,
        token_ids,
        values,
        as_differences,
        shift if shift is not None and shift.any() else None,
        dtype,
        fingerprint,
    )


def _base_rows(source: PartialTable | PartialBias, like: torch.Tensor) -> torch.Tensor:
    """Give the rows of V′ as they were before training."""
    token_ids = source.vocabulary.token_ids
    if isinstance(source, PartialBias):
        return source.whole.detach().cpu()[torch.tensor(token_ids), None]
    return read_rows(source.matrix, token_ids, like=like)


def _named_alike(names: Iterable[str], others: Iterable[str]) -> bool:
    """Tell whether two names may mean one matrix: a model without a head has shorter ones."""
    pairs = [(f".{one}", f".{other}") for one in names for other in others]
    return any(one.endswith(other) or other.endswith(one) for one, other in pairs)


def _before(record: Applied, read: Reader) -> Reader:
    """Read rows as they were before anything was applied."""
    return lambda token_ids: record.rows_before(token_ids, read(token_ids))


def _subtracting(table: TableRows, read: Reader) -> Reader:
    """Read rows as they would be without a table of differences."""
    return lambda token_ids: table.subtracted(token_ids, read(token_ids))


def _refuse_conflict(table: TableRows, record: Applied | None, read: Reader) -> None:
    """Refuse what cannot be stacked: two adapters of which the later one would undo the other."""
    for other in () if record is None else record.tables:
        if other.fingerprint == table.fingerprint:
            raise UnsupportedModelError(
                f"The adapter's rows of `{table.names[0]}` are applied already. Call `remove` "
                "first."
            )
        if other.differences and table.differences:
            continue
        shared = table.touched_ids[torch.isin(table.touched_ids, other.touched_ids)]
        rows = read(shared)
        one_way = table.applied(shared, other.applied(shared, rows))
        other_way = other.applied(shared, table.applied(shared, rows))
        differ = int((one_way != other_way).any(1).sum())
        if differ:
            raise UnsupportedModelError(
                f"{differ:,} rows of `{table.names[0]}` are changed by another adapter that is "
                "applied, and learned rows do not add up. Remove that one first, or save both as "
                "differences: `RowAdapter.of(model, differences=True)`."
            )


def _not_the_base(model: nn.Module, name: str) -> VocabularyMismatchError:
    """Say that a model is another one."""
    return VocabularyMismatchError(
        f"`{name}` of `{type(model).__name__}` is not the matrix that the adapter was learned "
        "from. Load the model that training began from; if another adapter was merged into its "
        "file, or it was cast to a narrower dtype, pass `check=False`."
    )
