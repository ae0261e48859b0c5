"""Ids outside V′ are never silent: the look-up f on tensors, and its check."""

from __future__ import annotations

import torch
from torch import Tensor

from subvocab.errors import OutOfVocabularyError, listed
from subvocab.vocabulary.partial import ABSENT


def partial_ids_or_absent(token_ids: Tensor, lookup: Tensor) -> tuple[Tensor, Tensor | None]:
    """Apply f, and mark the ids that have no partial id.

    Args:
        token_ids: Ids of V, any shape.
        lookup: f as a table, ``(full,)``; -1 where there is none.

    Returns:
        The partial ids, and None if all are in V′, else a mask of those that are not
        (where the partial id is -1). On an accelerator this waits for the device.

    Raises:
        OutOfVocabularyError: If an id is no token of V at all.
    """
    try:
        # index_select rather than indexing: a negative id must fail, not count from the end.
        partial_ids = lookup.index_select(0, token_ids.reshape(-1)).view(token_ids.shape)
    except IndexError:
        outside = token_ids[(token_ids < 0) | (token_ids >= len(lookup))].unique().tolist()
        raise OutOfVocabularyError(
            f"Token ids {listed(outside)} lie outside the vocabulary of {len(lookup):,}. Was the "
            "text encoded with another model's tokenizer, or are labels being looked up?",
            token_ids=outside,
        ) from None
    if token_ids.is_meta:
        return partial_ids, None
    absent = partial_ids == ABSENT
    return partial_ids, (absent if absent.any() else None)


@torch.library.custom_op("subvocab::checked_partial_ids", mutates_args=())
def checked_partial_ids(token_ids: Tensor, lookup: Tensor) -> Tensor:
    """Apply f inside a compiled graph, where a check must be an operator of its own.

    Args:
        token_ids: Ids of V, any shape.
        lookup: f as a table, ``(full,)``.

    Returns:
        The partial ids.

    Raises:
        OutOfVocabularyError: If an id is not in V′, in evaluation too: a compiled graph
            cannot read rows from disk.
    """
    partial_ids, absent = partial_ids_or_absent(token_ids, lookup)
    if absent is not None:
        missing = token_ids[absent].unique().tolist()
        raise OutOfVocabularyError(
            f"{len(missing):,} token {'id is' if len(missing) == 1 else 'ids are'} not in the "
            f"partial vocabulary of this compiled model: {listed(missing)}. Scan every split the "
            "model will train on; to evaluate on other text, call the model without "
            "`torch.compile`.",
            token_ids=missing,
        )
    return partial_ids


@checked_partial_ids.register_fake
def _(token_ids: Tensor, lookup: Tensor) -> Tensor:
    return token_ids.new_empty(token_ids.shape, dtype=lookup.dtype)
