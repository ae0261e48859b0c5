"""E where it lies on disk: its rows are read, made whole with E′, replaced by what is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from subvocab.errors import VocabularyMismatchError
from subvocab.model.ranks import gathered
from subvocab.model.tensors import (
    converted,
    read_rows,
    shifted,
    spilled,
    tensor_chunks,
    to_bytes,
    to_tensor,
    torch_dtype,
)
from subvocab.storage import FullMatrix
from subvocab.vocabulary import PartialVocabulary
from subvocab.vocabulary.partial import ABSENT

_part_of = WeakIdKeyDictionary()
"""The part that a whole tensor was made of. Not on the tensor, which would take it into files."""


def shared_whole(part: Tensor, destination: dict[str, Any] | None) -> Tensor | None:
    """Find what was made of a parameter already, so that a tie is saved as one tensor.

    Args:
        part: E′, or the biases of V′.
        destination: A state dict in the making.

    Returns:
        The whole tensor that another module has put there, if any.
    """
    for value in (destination or {}).values():
        if isinstance(value, Tensor) and _part_of.get(value) is part:
            return value
    return None


def share_whole(whole: Tensor, part: Tensor) -> Tensor:
    """Note what a whole tensor was made of, for `shared_whole`.

    Args:
        whole: The tensor.
        part: What it was made of.

    Returns:
        The whole tensor.
    """
    _part_of[whole] = part
    return whole


class PartialMatrix:
    """A matrix on disk, and V′, whose rows are in memory.

    Args:
        vocabulary: V′.
        matrix: E, for every row outside V′.

    Attributes:
        compact: Whether state dicts hold E′ rather than the whole matrix; set by
            `subvocab.model.checkpoint.compact_state_dicts` for a while.
        replaced: The matrices that gave way to what was loaded: the base, and the latest.
        watched_by: "refuse" or "carry_over" where a Trainer's callback compares vocabularies
            before the first step, and what it does about others; else None.
        foreign: Rows of another V′ that were loaded, with their token ids, until that
            callback carries them over.
    """

    def __init__(self, vocabulary: PartialVocabulary, matrix: FullMatrix) -> None:
        self.vocabulary = vocabulary
        self.matrix = matrix
        self.compact = False
        self.replaced: tuple[FullMatrix, ...] = ()
        self.watched_by: str | None = None
        self.foreign: tuple[Tensor, Tensor] | None = None
        self._converted = matrix

    @property
    def base(self) -> FullMatrix:
        """The matrix that the model was shrunk with, whatever was loaded since."""
        return (*self.replaced, self.matrix)[0]

    @property
    def adopted(self) -> bool:
        """Whether E is what was loaded into the model, rather than its base."""
        return bool(self.replaced)

    def matrix_as(self, dtype: torch.dtype) -> FullMatrix:
        """Give E in a dtype; a conversion is kept on disk for the next time.

        Args:
            dtype: The dtype wanted.

        Returns:
            The matrix.
        """
        if torch_dtype(self._converted.dtype) != dtype:
            self._converted = converted(self.matrix, dtype)
        return self._converted

    def read_rows(self, token_ids: Tensor, *, like: Tensor, shift: Tensor | None = None) -> Tensor:
        """Read rows of E that are not in memory.

        Args:
            token_ids: Ids outside V′.
            like: A tensor of the dtype and device wanted.
            shift: What is added to every row outside V′, ``(dim,)``.

        Returns:
            The rows.
        """
        rows = read_rows(self.matrix, token_ids.cpu().numpy(), like=like)
        return rows if shift is None else rows + shift.detach()

    def whole_tensor(
        self,
        weight: Tensor,
        destination: dict[str, Any] | None = None,
        *,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Give E with the rows of V′ as they are now.

        Unused rows are a private mapping of a file: only changed pages take memory.

        Args:
            weight: E′; spread over several processes, all of which must ask.
            destination: A state dict in the making. If another module has put this table
                there, the same tensor is given, so that a tie is saved as one tensor.
            shift: What is added to every row outside V′, ``(dim,)``. A shifted E is
                written to a temporary file first.

        Returns:
            ``(full, dim)`` on the CPU, in the dtype of ``weight``.
        """
        if (shared := shared_whole(weight, destination)) is not None:
            return shared
        rows, shift = gathered(weight), gathered(shift)
        matrix = self.matrix_as(rows.dtype)
        if shift is not None and shift.any():
            matrix = shifted(matrix, shift)
        whole = to_tensor(matrix.overlay(self.vocabulary.token_ids, to_bytes(rows)), matrix.dtype)
        return share_whole(whole, weight)

    def adopt_unused_rows(
        self, whole: Tensor, *, dtype: torch.dtype, shift: Tensor | None = None
    ) -> bool:
        """Make the unused rows those of a whole matrix that is being loaded.

        Usually they are the same, and nothing happens. If not (another base model, full
        training, a shift that was folded in), they are put on disk in place of E.

        Args:
            whole: ``(full, dim)``.
            dtype: The dtype it is loaded as.
            shift: What is added to them at present, ``(dim,)``.

        Returns:
            Whether they were others; if so the shift is in them, and must go.
        """
        if self._same_unused_rows(self.matrix, shift, whole, dtype):
            return False
        # The first and the latest: one may load many, and each takes its place on disk.
        self.replaced = (*self.replaced[:1], self.matrix)
        self.matrix = self._converted = spilled(whole.to(dtype))
        return True

    def put_back(self, weight: Tensor, shift: Tensor | None, wanted: Tensor) -> bool:
        """Undo `adopt_unused_rows` where nothing but a shift was folded into the rows.

        Args:
            weight: E′.
            shift: What is added to the unused rows at present, ``(dim,)``.
            wanted: What shall be added to them, ``(dim,)``.

        Returns:
            Whether with this shift one of the matrices that were held gives the unused rows
            bit for bit. It is E again; ``wanted`` must be added from now on.
        """
        whole = self.whole_tensor(weight, shift=shift)
        known = (*self.replaced, self.matrix)
        for number, matrix in enumerate(known):
            if self._same_unused_rows(matrix, wanted, whole, weight.dtype):
                self.matrix = self._converted = matrix
                self.replaced = known[:number]
                return True
        return False

    def return_to_base(self) -> None:
        """Let E be the matrix that the model was shrunk with, whatever was loaded since."""
        if self.replaced:
            self.matrix = self._converted = self.base
            self.replaced = ()

    def _same_unused_rows(
        self, matrix: FullMatrix, shift: Tensor | None, whole: Tensor, dtype: torch.dtype
    ) -> bool:
        """Compare the unused rows of a matrix, shifted, with those of a whole one, by bits."""
        unused = self.vocabulary.lookup == ABSENT
        added = None if shift is None else shift.detach().to("cpu", dtype)
        matrix = self.matrix_as(dtype) if matrix is self.matrix else converted(matrix, dtype)
        for first, rows in tensor_chunks(matrix):
            mine = rows if added is None else rows + added
            theirs = whole[first : first + len(mine)].to(dtype)
            differs = (to_bytes(theirs) != to_bytes(mine)).any(axis=1)
            if (differs & unused[first : first + len(mine)]).any():
                return False
        return True

    def expanded(self, shift: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Make a whole matrix of E and the rows of another V′ that were loaded.

        Args:
            shift: What is added to the rows outside that V′, ``(dim,)``.
            dtype: Of the matrix.

        Returns:
            ``(full, dim)`` on the CPU.
        """
        assert self.foreign is not None  # noqa: S101 - asked only where there are some
        token_ids, rows = self.foreign
        matrix = self.matrix_as(dtype)
        if shift is not None:
            matrix = shifted(matrix, shift)
        whole = matrix.overlay(token_ids.cpu().numpy(), to_bytes(rows.to(dtype)))
        return to_tensor(whole, matrix.dtype)

    def keeps_foreign(self, token_ids: Tensor, rows: Tensor | None) -> bool:
        """Put the rows of another V′ aside, if a callback will carry them over.

        Args:
            token_ids: The tokens of the rows being loaded.
            rows: The rows, if they stand in the same file.

        Returns:
            Whether these tokens are others, and will be carried over.
        """
        same = np.array_equal(token_ids.cpu().numpy(), self.vocabulary.token_ids)
        if same or self.watched_by != "carry_over":
            return False
        if rows is not None:
            self.foreign = (token_ids, rows)
        return True

    def check_token_ids(self, token_ids: Tensor | None, name: str, shape: tuple[int, ...]) -> None:
        """Refuse the rows of another vocabulary.

        Args:
            token_ids: The tokens that the rows being loaded belong to, if known.
            name: The tensor, for the message.
            shape: Its shape, for the message.

        Raises:
            VocabularyMismatchError: If they are not those of V′.
        """
        if token_ids is None:
            if self.watched_by and shape == (len(self.vocabulary), self.matrix.embedding_dim):
                return  # shards may part the two
            expected = (self.matrix.full_vocab_size, self.matrix.embedding_dim)
            raise VocabularyMismatchError(
                f"`{name}` has shape {shape}, expected the whole matrix of {expected}, or a "
                "compact one with its token ids beside it. Load a checkpoint that the whole "
                "model, or this library, has saved."
            )
        theirs = token_ids.cpu().numpy()
        if not np.array_equal(theirs, self.vocabulary.token_ids):
            raise VocabularyMismatchError(
                f"`{name}` holds rows of a partial vocabulary of {len(theirs):,} tokens, but this "
                f"model has another one of {len(self.vocabulary):,}. Merge the checkpoint with "
                "`subvocab merge` and load the whole model, or shrink the model with the same "
                "vocabulary."
            )

    def base_name(self) -> Tensor:
        """Name E by its dtype and content, for compact state dicts.

        Returns:
            The bytes of a text.
        """
        text = f"{self.matrix.dtype} {self.matrix.fingerprint}"
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    def check_base(self, name_of_base: Tensor | None, name: str) -> None:
        """Refuse rows that were trained beside the unused rows of another matrix.

        Args:
            name_of_base: What `base_name` gave when they were saved, if it is known.
            name: The tensor, for the message.

        Raises:
            VocabularyMismatchError: If E is another one.
        """
        if name_of_base is None:
            return
        dtype, theirs = bytes(name_of_base.tolist()).decode().split()
        if theirs == self.base.fingerprint:
            self.return_to_base()
            return
        ours = self.matrix
        if ours.dtype != dtype:  # one of the two was cast before it was shrunk
            ours = converted(ours, torch_dtype(dtype))
        if theirs != ours.fingerprint:
            raise VocabularyMismatchError(
                f"`{name}` holds rows that were trained from another base: its matrix was "
                f"{theirs[:12]}, but this model's is {ours.fingerprint[:12]}. Shrink the model "
                "that they were trained from, or merge them with it by `subvocab merge`."
            )
