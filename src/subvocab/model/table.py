"""What the modules over one partial table share: V′, and E where it lies on disk."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from subvocab.errors import (
    OutOfVocabularyError,
    UnsupportedModelError,
    VocabularyMismatchError,
    listed,
)
from subvocab.model.partial_matrix import PartialMatrix
from subvocab.storage import FullMatrix
from subvocab.vocabulary import PartialVocabulary

OutOfVocabulary = Literal["error", "frozen"]
POLICIES = ("error", "frozen")
MATRIX_DIMENSIONS = 2
MASKING_ADVICE = (
    " To generate, call `model.eval()` first. If a masking collator drew random words: use "
    "`subvocab.PartialMaskingCollator`, which draws "
    'from V′, or `random_replace_prob=0`, or shrink with `out_of_vocabulary="frozen"`.'
)


class PartialTable(PartialMatrix):
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
        trains_on_frozen: Whether ids outside V′ are allowed in training.
        predicts: Whether the model has an output head, so that its collator may mask.
        fingerprint: That of V′, where compiled code finds it.
        rows: |V′|, where compiled code finds it.
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
        super().__init__(vocabulary, matrix)
        self.tokenizer = tokenizer
        self.trains_on_frozen = out_of_vocabulary == "frozen"
        self.predicts = False
        self.fingerprint = vocabulary.fingerprint
        self.rows = len(vocabulary)
        self._lookup = torch.tensor(vocabulary.lookup)
        self._lookups: dict[torch.device, Tensor] = {}

    def __deepcopy__(self, _memo: object) -> PartialTable:
        """Share what never changes: a copy of a model needs no copy of V′ or of a tokenizer."""
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave copies on devices behind: they are made again where they are needed."""
        return self.__dict__ | {"_lookups": {}}

    def lookup_on(self, device: torch.device) -> Tensor:
        """Give the mapping f as a tensor.

        It is copied once to a device, for all modules over the table. It is no buffer, which
        data-parallel training would send to every rank at each step.

        Args:
            device: Where the ids are.

        Returns:
            The partial id by token id, ``(full,)``; -1 where there is none.
        """
        if device not in self._lookups:
            with torch.inference_mode(False):
                self._lookups[device] = self._lookup.to(device)
        return self._lookups[device]

    def check_weight(self, weight: Tensor) -> None:
        """Refuse another matrix in the place of E′: its rows would be taken for those of V′.

        Args:
            weight: What a module is about to compute with.

        Raises:
            VocabularyMismatchError: If it has other rows than E′. One that is flattened for
                sharding has none.
        """
        if weight.dim() == MATRIX_DIMENSIONS and weight.shape[0] != self.rows:
            raise VocabularyMismatchError(
                f"The weight has {weight.shape[0]:,} rows, expected the {self.rows:,} of the "
                "partial vocabulary: the whole state dict of a shrunk model is for files, not to "
                "compute with. Give `torch.func.functional_call` "
                "`dict(model.named_parameters())`, or load it by `load_state_dict`."
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
