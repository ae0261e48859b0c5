"""The rows outside V′ for the output head: in memory, on the host, or read from disk each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from subvocab.model.table import PartialTable
from subvocab.model.tensors import rows_per_chunk, tensor_chunks
from subvocab.storage import FullMatrix
from subvocab.vocabulary.partial import ABSENT

RestDevice = Literal["cpu", "disk"] | None
PLACES = (None, "cpu", "disk")

_in_memory: WeakValueDictionary[tuple[object, ...], Tensor] = WeakValueDictionary()
"""The rows that are in memory, by what they were read from: a copy of a model, such as the
reference of a preference loss, holds them no second time."""


class FrozenRows:
    """What an output head multiplies by, but does not train.

    Args:
        table: V′, and E on disk.
        place: Where they stay: with the model, on the host, or on disk.
    """

    def __init__(self, table: PartialTable, place: RestDevice = None) -> None:
        self.table = table
        self.place = place
        self._unused = torch.tensor(table.vocabulary.lookup == ABSENT).nonzero().squeeze(1)
        self._rows: Tensor | None = None
        self._source: FullMatrix | None = None

    def __len__(self) -> int:
        return len(self._unused)

    def __getstate__(self) -> dict[str, object]:
        """Leave the rows behind: they are read again where they are needed."""
        return self.__dict__ | {"_rows": None, "_source": None}

    def chunks(
        self, rows: int, bias: Tensor | None, *, like: Tensor
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Give the rows in the order of their ids, a part at a time.

        Args:
            rows: How many at a time.
            bias: Their biases, ``(unused,)``, which are divided alike.
            like: A tensor of the dtype and device wanted.

        Yields:
            Rows ``(n, dim)`` and their biases ``(n,)``.
        """
        first = 0
        parts = (
            self._from_disk(rows, like) if self.place == "disk" else self._held(like).split(rows)
        )
        for part in parts:
            last = first + len(part)
            moved = part.to(like.device, non_blocking=True)
            yield moved, None if bias is None else bias[first:last]
            first = last

    def fill(self, whole: Tensor, shift: Tensor | None) -> None:
        """Write all rows of E into a tensor; those of V′ as they were.

        Args:
            whole: ``(full, dim)`` of any dtype, on any device.
            shift: What is added to each, ``(dim,)``.
        """
        added = None if shift is None else shift.detach().to(whole.device, whole.dtype)
        for first, part in tensor_chunks(self.table.matrix):
            rows = part.to(whole.device, whole.dtype)
            whole[first : first + len(part)] = rows if added is None else rows + added

    def _held(self, like: Tensor) -> Tensor:
        """Read the rows once; again if the model was moved, cast, or given another E."""
        device = torch.device("cpu") if self.place == "cpu" else like.device
        held = self._rows
        if (
            held is None
            or self._source is not self.table.matrix
            or (held.device, held.dtype) != (device, like.dtype)
        ):
            self._rows = held = self._read(device, like.dtype)
            self._source = self.table.matrix
        return held

    def _read(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Gather the rows on a device, unless they are there."""
        key = (self.table.matrix, self.table.vocabulary.fingerprint, self.place, device, dtype)
        if (shared := _in_memory.get(key)) is not None:
            return shared
        dim = self.table.matrix.embedding_dim
        pinned = self.place == "cpu" and torch.cuda.is_available()
        self._rows = None  # never the old ones and the new at once
        held = torch.empty((len(self), dim), dtype=dtype, device=device, pin_memory=pinned)
        first = 0
        for part in self._from_disk(rows_per_chunk(held), held):
            held[first : first + len(part)] = part
            first += len(part)
        _in_memory[key] = held
        return held

    def _from_disk(self, rows: int, like: Tensor) -> Iterator[Tensor]:
        """Read the rows outside V′, a part of E at a time."""
        unused = torch.tensor(self.table.vocabulary.lookup == ABSENT)
        for first, part in tensor_chunks(self.table.matrix, rows):
            wanted = part[unused[first : first + len(part)]]
            if len(wanted):
                yield wanted.to(like.device, like.dtype)
