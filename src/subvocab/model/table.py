"""What the modules over one partial table share: V′, and E where it lies on disk."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from subvocab.errors import (
    OutOfVocabularyError,
    UnsupportedModelError,
    VocabularyMismatchError,
    listed,
)
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

OutOfVocabulary = Literal["error", "frozen"]
POLICIES = ("error", "frozen")
MASKING_ADVICE = (
    " To generate, call `model.eval()` first. If a masking collator drew random words: use "
    "`subvocab.PartialMaskingCollator`, which draws "
    'from V′, or `random_replace_prob=0`, or shrink with `out_of_vocabulary="frozen"`.'
)

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


class PartialTable:
    """One embedding table of which only the rows of V′ are in memory.

    Args:
        vocabulary: V′.
        matrix: E, for every row outside V′.
        tokenizer: A tokenizer, or the name of one, that turns ids into text in messages.
        out_of_vocabulary: What an id outside V′ does in training: "error", or "frozen" to
            read its row from disk and give it no gradient.

    Raises:
        UnsupportedModelError: If there is no such policy.

    Attributes:
        compact: Whether state dicts hold E′ rather than the whole matrix; set by
            `subvocab.model.checkpoint.compact_state_dicts` for a while.
        trains_on_frozen: Whether ids outside V′ are allowed in training.
        adopted: Whether E is what was loaded into the model, rather than its base.
        predicts: Whether the model has an output head, so that its collator may mask.
    """

    def __init__(
        self,
        vocabulary: PartialVocabulary,
        matrix: FullMatrix,
        tokenizer: object = None,
        out_of_vocabulary: OutOfVocabulary = "error",
    ) -> None:
        if out_of_vocabulary not in POLICIES:
            raise UnsupportedModelError(
                f"`out_of_vocabulary` is {out_of_vocabulary!r}, expected one of "
                f"{', '.join(map(repr, POLICIES))}."
            )
        self.vocabulary = vocabulary
        self.matrix = matrix
        self.tokenizer = tokenizer
        self.compact = False
        self.trains_on_frozen = out_of_vocabulary == "frozen"
        self.predicts = False
        self.adopted = False
        self._converted = matrix

    def __deepcopy__(self, _memo: object) -> PartialTable:
        """Share what never changes: a copy of a model needs no copy of V′ or of a tokenizer."""
        return copy.copy(self)

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
            weight: E′.
            destination: A state dict in the making. If another module has put this table
                there, the same tensor is given, so that a tie is saved as one tensor.
            shift: What is added to every row outside V′, ``(dim,)``. A shifted E is
                written to a temporary file first.

        Returns:
            ``(full, dim)`` on the CPU, in the dtype of ``weight``.
        """
        if (shared := shared_whole(weight, destination)) is not None:
            return shared
        matrix = self.matrix_as(weight.dtype)
        if shift is not None and shift.any():
            matrix = shifted(matrix, shift)
        whole = to_tensor(matrix.overlay(self.vocabulary.token_ids, to_bytes(weight)), matrix.dtype)
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
        unused = self.vocabulary.lookup == ABSENT
        added = None if shift is None else shift.detach().to("cpu", dtype)
        for first, rows in tensor_chunks(self.matrix_as(dtype)):
            mine = rows if added is None else rows + added
            theirs = whole[first : first + len(mine)].to(dtype)
            differs = (to_bytes(theirs) != to_bytes(mine)).any(axis=1)
            if (differs & unused[first : first + len(mine)]).any():
                self.matrix = self._converted = spilled(whole.to(dtype))
                self.adopted = True
                return True
        return False

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

    def out_of_vocabulary_error(self, token_ids: Tensor) -> OutOfVocabularyError:
        """Say which tokens are missing.

        Args:
            token_ids: Ids outside V′.

        Returns:
            The error to raise.
        """
        missing = token_ids.unique().tolist()
        tokens = self._tokens(missing[:5])
        shown = [f"{i} {token!r}" for i, token in zip(missing, tokens, strict=False)] or missing
        rest = missing[len(shown) :] if tokens else []
        return OutOfVocabularyError(
            f"{len(missing):,} token {'id is' if len(missing) == 1 else 'ids are'} not in the "
            f"partial vocabulary of {len(self.vocabulary):,}: {listed([*shown, *rest])}. Scan "
            "every split the model will train on, and what the collator adds."
            + (MASKING_ADVICE if self.predicts else ""),
            token_ids=missing,
        )

    def refuse_gradient(self, token_ids: Tensor) -> Callable[[Tensor], None]:
        """Make a hook for rows that were read for evaluation, which nothing may train.

        Args:
            token_ids: Ids outside V′.

        Returns:
            A hook that raises as soon as a gradient arrives.
        """

        def refuse(_gradient: Tensor) -> None:
            raise self.out_of_vocabulary_error(token_ids)

        return refuse

    def _tokens(self, token_ids: list[int]) -> list[str]:
        """Turn ids into text, or give nothing where no tokenizer is at hand."""
        tokenizer: Any = self.tokenizer
        if tokenizer is None:
            return []
        try:
            if isinstance(tokenizer, str):
                from transformers import AutoTokenizer  # noqa: PLC0415 - only a message needs it

                tokenizer = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
            tokens = list(tokenizer.convert_ids_to_tokens(token_ids))
            # Where a folder holds no tokenizer, transformers makes up one that knows no token.
            return tokens if tokenizer.convert_tokens_to_ids(tokens) == token_ids else []
        except Exception:  # noqa: BLE001 - whatever fails here, the error to report is another
            return []
