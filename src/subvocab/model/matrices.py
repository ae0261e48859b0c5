"""The matrices of a model as whole ones, be it shrunk or not: found by name, read, rewritten.

What was applied to a matrix is kept beside it, with the rows as they were before, so that it can
be taken out again in any order, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from subvocab.model.adapters import plain_name, running_modules
from subvocab.model.bias import PartialBias
from subvocab.model.partial import PartialModule
from subvocab.model.ranks import gathered
from subvocab.model.table import PartialTable
from subvocab.model.table_rows import TableRows
from subvocab.model.tensors import (
    SPILL_NAME,
    STORED_DTYPES,
    read_rows,
    rows_per_chunk,
    to_bytes,
)
from subvocab.storage import FullMatrix

KEYS = ("weight", "bias")
Reader = Callable[[Tensor], Tensor]
"""Gives rows by token ids, on the CPU."""
RECORD = "row_adapters"
"""The attribute of a module that tells what was applied to it."""


@dataclass(frozen=True)
class Applied:
    """What was applied to a matrix.

    Attributes:
        token_ids: The tokens whose rows may differ from what they were, ascending.
        before: Their rows as they were, on disk.
        tables: What was applied, in that order.
    """

    token_ids: Tensor
    before: FullMatrix
    tables: tuple[TableRows, ...]

    def rows_before(self, token_ids: Tensor, rows: Tensor) -> Tensor:
        """Give rows as they were before anything was applied.

        Args:
            token_ids: Which rows.
            rows: As they are now.

        Returns:
            As they were; new.
        """
        place = torch.searchsorted(self.token_ids, token_ids).clamp(max=len(self.token_ids) - 1)
        kept = self.token_ids[place] == token_ids
        old = rows.clone()
        old[kept] = read_rows(self.before, place[kept].numpy(), like=rows)
        return old

    def rows_after(self, token_ids: Tensor, rows: Tensor) -> Tensor:
        """Give rows as they must be now.

        Args:
            token_ids: Which rows.
            rows: As they are; those it knows nothing of stay so.

        Returns:
            As they must be; new.
        """
        before = self.rows_before(token_ids, rows)
        return reduce(lambda now, table: table.applied(token_ids, now), self.tables, before)


@dataclass
class ModelMatrix:
    """One matrix of a model, or biases, which are a matrix with one column.

    Attributes:
        names: Where it stands in the model's state dict without adapters.
        module: A module that holds it.
        key: Its name there: "weight" or "bias".
        parameter: What is in memory of it.
        source: What that is a part of, or None if it is all.
        shift: What is added to all rows outside V′, or None.
    """

    module: nn.Module
    key: str
    parameter: nn.Parameter
    source: PartialTable | PartialBias | None = None
    shift: Tensor | None = None
    names: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """|V| and d."""
        rows, dim = (*self.parameter.shape, 1)[:2]
        return (rows if self.source is None else self.source.vocabulary.full_vocab_size), dim

    def whole(self) -> Tensor:
        """Give all of it, ``(full, dim)``: the parameter itself, or for V′ a copy-on-write one."""
        if self.source is None:
            return self.parameter.detach().view(self.shape)
        return self.source.whole_tensor(self.parameter, shift=self.shift).view(self.shape)

    def reader(self) -> Reader:
        """Give what reads rows by token ids, ``(n, dim)`` on the CPU."""
        whole = self.whole()
        return lambda token_ids: whole[token_ids.to(whole.device)].cpu()

    @torch.no_grad()
    def rewrite(self, token_ids: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Change rows in place; the Parameter stays the same object.

        Args:
            token_ids: Which rows.
            change: Makes new rows of token ids and rows, on the CPU.
        """
        whole = self.whole()
        for part in token_ids.split(rows_per_chunk(whole)):
            place = part.to(whole.device)
            whole[place] = change(part, whole[place].cpu()).to(whole.device)
        if self.source is not None:
            loaded = whole if self.parameter.dim() > 1 else whole.flatten()
            self.module.load_state_dict({self.key: loaded}, strict=False)

    def applied(self) -> Applied | None:
        """Tell what was applied; None too if rows were changed since by anything else."""
        record: Applied | None = vars(self.module).get(RECORD, {}).get(self.key)
        if record is None:
            return None
        read = self.reader()
        for part in record.token_ids.split(rows_per_chunk(self.parameter.view(-1, self.shape[1]))):
            rows = read(part)
            if not torch.equal(record.rows_after(part, rows), rows):
                return None
        return record

    def apply(self, table: TableRows) -> None:
        """Apply what was learned, and note how the rows were before.

        Args:
            table: Rows of this matrix.
        """
        record, touched = self.applied(), table.touched_ids
        if record is None:
            record = Applied(touched, self._spilled_rows(touched), (table,))
        else:
            touched = torch.cat([record.token_ids, touched]).unique()
            if len(touched) > len(record.token_ids):
                before = self._spilled_rows(touched, record)
                record = replace(record, token_ids=touched, before=before)
            record = replace(record, tables=(*record.tables, table))
        self._become(record)

    def remove(self, record: Applied, table: TableRows) -> None:
        """Take out one of those that were applied; the rest is as if it had never been there.

        Args:
            record: What was applied.
            table: One of it.
        """
        kept = tuple(one for one in record.tables if one.fingerprint != table.fingerprint)
        self._become(replace(record, tables=kept))

    def _become(self, record: Applied) -> None:
        """Make the rows what a record says, and keep it as long as it says anything."""
        self.rewrite(record.token_ids, record.rows_after)
        records = {**vars(self.module).get(RECORD, {}), self.key: record}
        if not record.tables:
            del records[self.key]
        vars(self.module)[RECORD] = records

    def _spilled_rows(self, token_ids: Tensor, record: Applied | None = None) -> FullMatrix:
        """Put rows on disk as they were before anything was applied."""
        read, dtype = self.reader(), self.parameter.dtype
        parts = token_ids.split(rows_per_chunk(self.parameter.view(-1, self.shape[1])))
        rows = ((part, read(part)) for part in parts)
        chunks = (to_bytes(r if record is None else record.rows_before(i, r)) for i, r in rows)
        shape = (len(token_ids), self.shape[1])
        return FullMatrix.spill(SPILL_NAME, STORED_DTYPES[dtype], shape, chunks)


def matrices_of(model: nn.Module) -> list[ModelMatrix]:
    """Find the weights and biases of a model.

    Args:
        model: A model, whole or shrunk, with adapters or wrappers around it or not.

    Returns:
        Each Parameter once, with all its names; where PEFT trains a copy of a module, the one
        that runs.
    """
    modules = dict(running_modules(model))
    root = next((name for name, m in modules.items() if isinstance(m, PreTrainedModel)), "")
    found: dict[int, ModelMatrix] = {}
    for name, module in modules.items():
        parts: Any = module.parts() if isinstance(module, PartialModule) else {}
        for key in KEYS:
            parameter = module._parameters.get(key)  # noqa: SLF001
            if parameter is None or parameter.dim() not in (1, 2):
                continue
            source, _, shift = parts.get(key, (None, None, None))
            matrix = ModelMatrix(module, key, parameter, source, gathered(shift))
            own = plain_name(name.removeprefix(root).removeprefix("."))
            found.setdefault(id(parameter), matrix).names.append(f"{own}.{key}" if own else key)
    return list(found.values())
