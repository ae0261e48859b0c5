"""Masked language modelling: random words from V′ in the place of any word of the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import DataCollatorForLanguageModeling

from subvocab.errors import DataError
from subvocab.vocabulary import PartialVocabulary


@dataclass
class PartialMaskingCollator(DataCollatorForLanguageModeling):
    """Mask tokens as ``DataCollatorForLanguageModeling`` does, but draw random words from V′.

    Of the tokens that are to be foretold, that collator replaces a tenth by words drawn from
    the whole tokenizer, whose rows a model with V′ does not hold. Drawing from V′ is not the
    same training: words that the data never uses do not come up as noise. For training that is
    the same in every step, draw none (``random_replace_prob=0``).

    Attributes:
        vocabulary: V′, as the model has it (see `subvocab.vocabulary_of`).

    Raises:
        DataError: If batches of another kind than torch's are asked for.

    Example:
        ``Trainer(model=model, data_collator=PartialMaskingCollator(tokenizer,
        vocabulary=vocabulary_of(model)), ...)``
    """

    vocabulary: PartialVocabulary = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        if self.return_tensors != "pt":
            raise DataError(
                f"`return_tensors` is `{self.return_tensors}`, expected `pt`: models with a "
                "partial vocabulary are torch's."
            )
        token_ids = torch.tensor(self.vocabulary.token_ids)
        # A matrix may have more rows than the tokenizer has tokens.
        self._words = token_ids[token_ids < len(self.tokenizer)]

    def torch_mask_tokens(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Mask a batch.

        Args:
            *args: As the collator of transformers takes them.
            **kwargs: As the collator of transformers takes them.

        Returns:
            The ids, and the labels. Masks are those of the collator of transformers with
            the same seed; where V′ is the whole of V, so are the words.
        """
        with _DrawnFrom(self._words):
            return super().torch_mask_tokens(*args, **kwargs)


class _DrawnFrom(TorchFunctionMode):
    """While it is active, random whole numbers below any bound are drawn from some ids."""

    def __init__(self, ids: torch.Tensor) -> None:
        super().__init__()
        self._ids = ids

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.randint:
            return func(*args, **kwargs)
        _bound, *rest = args
        return self._ids[torch.randint(len(self._ids), *rest, **kwargs)]
