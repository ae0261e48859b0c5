"""What was learned of one table: the rows of V′, and what was added to all others.

A value without a model: see `subvocab.model.row_adapter` for what is done with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from subvocab.errors import UnsupportedModelError
from subvocab.model.tensors import STORED_DTYPES, to_bytes, torch_dtype
from subvocab.storage import matrix_fingerprint

DIFFERENCE_DTYPES = (torch.float32, torch.float64)
"""What differences are kept in, should the matrix's own dtype not hold them exactly."""


@dataclass(frozen=True, eq=False, repr=False)
class TableRows:
    """Rows of one table, or of biases, which are a table with one column.

    Attributes:
        names: Where the table stands in the state dict of the model; several if it is tied.
        full_vocab_size: |V|.
        token_ids: V′, ``(partial,)``, ascending.
        values: For each token its learned row, or what was added to it, ``(partial, dim)``.
        differences: Whether they are what was added.
        rest_shift: What was added to every other row, ``(dim,)``, or None.
        base_dtype: Of the matrix that training began from, as safetensors names it.
        base_fingerprint: Its name by content.
    """

    names: tuple[str, ...]
    full_vocab_size: int
    token_ids: Tensor
    values: Tensor
    differences: bool
    rest_shift: Tensor | None
    base_dtype: str
    base_fingerprint: str

    @cached_property
    def fingerprint(self) -> str:
        """Name of the content."""
        digest = hashlib.sha256(repr(self.description()).encode())
        digest.update(to_bytes(self.token_ids).data)
        for tensor in (self.values, self.rest_shift):
            if tensor is not None:
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(to_bytes(tensor).data)
        return digest.hexdigest()

    def description(self) -> dict[str, Any]:
        """Give everything that is no tensor.

        Returns:
            Values that JSON knows, by name.
        """
        return {
            "names": list(self.names),
            "full_vocab_size": self.full_vocab_size,
            "differences": self.differences,
            "base_dtype": self.base_dtype,
            "base_fingerprint": self.base_fingerprint,
        }

    @property
    def shape(self) -> tuple[int, int]:
        """|V| and d."""
        return self.full_vocab_size, self.values.shape[1]

    @property
    def touched_ids(self) -> Tensor:
        """The tokens whose rows it changes: those of V′, or all if there is a shift."""
        return self.token_ids if self.rest_shift is None else torch.arange(self.full_vocab_size)

    def applied(self, token_ids: Tensor, rows: Tensor) -> Tensor:
        """Give rows what was learned.

        Args:
            token_ids: Which rows they are, ``(n,)``.
            rows: As they are, ``(n, dim)``.

        Returns:
            As they become, in the same dtype; new.
        """
        return self._changed(token_ids, rows, 1)

    def subtracted(self, token_ids: Tensor, rows: Tensor) -> Tensor:
        """Take away from rows what was added; only for differences.

        Args:
            token_ids: Which rows they are, ``(n,)``.
            rows: As they are, ``(n, dim)``.

        Returns:
            As they become, in the same dtype; new. A shift comes out but for rounding.
        """
        return self._changed(token_ids, rows, -1)

    def _changed(self, token_ids: Tensor, rows: Tensor, sign: int) -> Tensor:
        place = torch.searchsorted(self.token_ids, token_ids).clamp(max=len(self.token_ids) - 1)
        mine = self.token_ids[place] == token_ids
        changed = rows.clone()
        if self.rest_shift is not None:  # added in the rows' own dtype, as merging does
            changed[~mine] += sign * self.rest_shift.to(rows.dtype)
        values = self.values[place[mine]]
        if self.differences:
            values = rows[mine].double() + sign * values.double()
        changed[mine] = values.to(rows.dtype)
        return changed

    def is_base(self, matrix_rows: Any) -> bool:
        """Tell whether a matrix is the one that training began from.

        Args:
            matrix_rows: Gives rows by token ids, ``(n, dim)``, in any dtype.

        Returns:
            Whether it is by fingerprint, cast to the dtype of the base if it is another.
        """
        dtype = torch_dtype(self.base_dtype)
        found = matrix_fingerprint(
            self.base_dtype,
            self.shape,
            lambda token_ids: to_bytes(matrix_rows(torch.from_numpy(token_ids)).to(dtype)),
        )
        return found == self.base_fingerprint


def fingerprint_of(matrix: Tensor) -> tuple[str, str]:
    """Name a matrix that is in memory.

    Args:
        matrix: ``(full, dim)``.

    Returns:
        Its dtype as safetensors names it, and its fingerprint.
    """
    stored = STORED_DTYPES[matrix.dtype]
    shape = (matrix.shape[0], matrix.shape[1])
    return stored, matrix_fingerprint(
        stored, shape, lambda token_ids: to_bytes(matrix[torch.from_numpy(token_ids)])
    )


def differences(learned: Tensor, base: Tensor, name: str) -> Tensor:
    """Subtract rows so that adding gives them back to the last bit, and taking away the others.

    Args:
        learned: Rows as they were learned.
        base: As they were before, in the same dtype.
        name: Of the matrix, for the message.

    Returns:
        The differences, in the dtype of the rows if it holds them exactly, else in single or
        in double precision.

    Raises:
        UnsupportedModelError: If no dtype holds them: a number grew or fell by far.

    Example:
        >>> differences(torch.tensor([[1.5]]), torch.tensor([[1.0]]), "weight")
        tensor([[0.5000]])
    """
    exact = learned.double() - base.double()
    for dtype in (learned.dtype, *DIFFERENCE_DTYPES):
        kept = exact.to(dtype)
        there = (base.double() + kept.double()).to(learned.dtype)
        back = (learned.double() - kept.double()).to(base.dtype)
        if torch.equal(there, learned) and torch.equal(back, base):
            return kept
    lost = int(((there != learned) | (back != base)).any(1).sum())
    raise UnsupportedModelError(
        f"{lost:,} rows of `{name}` differ so much from the base that no difference gives them "
        "back to the last bit. Keep the learned rows: `RowAdapter.of(model)`."
    )
