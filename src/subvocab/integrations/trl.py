"""TRL: trainers that fuse the output head with their loss, and may hold a reference model.

What they compute with a partial head is told in `subvocab.model.fused`. Here is what
`subvocab.shrink_trainer` does for them: which columns are scanned, and that a reference model is
shrunk with the policy and shares what lies on disk with it.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from subvocab.errors import UnsupportedModelError
from subvocab.integrations import shrink_trainer as any_trainer
from subvocab.model.head import PartialHead
from subvocab.model.shrink import partial_embeddings, partial_tables, shrink, vocabulary_of
from subvocab.model.table import PartialTable
from subvocab.vocabulary import PartialVocabulary, TokenCounts

OFFLINE = ("SFTTrainer", "DPOTrainer", "KTOTrainer", "RewardTrainer")
"""Trainers that learn from given texts, and what is known to be right with a partial head."""
ONLINE = ("GRPOTrainer", "RLOOTrainer")
"""Those that learn from what the model writes."""
TOKENS = "_ids"
"""How columns of tokens are called once a trainer has prepared its data."""
EVERYWHERE = "frozen"


def scan_trainer(trainer: Any, **options: Any) -> TokenCounts:
    """Count the tokens that a trainer of TRL will feed to its model.

    They were made in its constructor: templates, truncation and packing are in them.

    Args:
        trainer: The trainer.
        **options: For `subvocab.scan`.

    Returns:
        The counts.

    Raises:
        UnsupportedModelError: If the tokens of training are not known beforehand.
    """
    _check_kind(trainer)
    if _is_one_of(trainer, ONLINE):
        raise UnsupportedModelError(
            f"`{type(trainer).__name__}` trains on what the model will write, which no scan can "
            "tell. Pass a `vocabulary`, such as that of prompts and of completions sampled from "
            'the model, and `out_of_vocabulary="frozen"`.'
        )
    row: dict[str, Any] = next(iter(trainer.train_dataset), {})
    columns = [name for name in row if name.endswith(TOKENS)]
    if columns:
        options.setdefault("columns", columns)
    return any_trainer.scan_trainer(trainer, **options)


def prepare_trainer(trainer: Any, vocabulary: PartialVocabulary, options: dict[str, Any]) -> None:
    """Refuse what would go wrong, before the model is shrunk.

    Args:
        trainer: The trainer.
        vocabulary: V′.
        options: For `subvocab.shrink`.

    Raises:
        UnsupportedModelError: If the trainer is not known, or its model has to write tokens
            outside V′, or a reference is to be compared with a restricted softmax.
    """
    _check_kind(trainer)
    if _is_one_of(trainer, ONLINE) and options.get("out_of_vocabulary") != EVERYWHERE:
        raise UnsupportedModelError(
            f"`{type(trainer).__name__}` trains on what the model writes, and it may write any of "
            f"{vocabulary.full_vocab_size:,} tokens, not only the {len(vocabulary):,} of the "
            'partial vocabulary. Pass `out_of_vocabulary="frozen"`: the rows of all others are '
            "read, and not trained."
        )
    if hasattr(trainer, "ref_model") and options.get("head") == "restricted":
        raise UnsupportedModelError(
            f"`{type(trainer).__name__}` compares log-probabilities with those of a reference "
            'model, which a restricted softmax does not have. Use `head="exact"`.'
        )


def finish_trainer(trainer: Any, vocabulary: PartialVocabulary, options: dict[str, Any]) -> None:  # noqa: ARG001
    """Shrink the reference model too, so that no second matrix is held.

    Args:
        trainer: The trainer; its own model is shrunk.
        vocabulary: V′ of the data.
        options: As for `subvocab.shrink`.
    """
    reference = getattr(trainer, "ref_model", None)
    if not isinstance(reference, PreTrainedModel) or partial_embeddings(reference):
        return
    # Accelerate has wrapped its forward for mixed precision, and shall do so again.
    unwrapped = vars(reference).pop("_original_forward", None)
    if unwrapped is not None:
        reference.forward = unwrapped
    whole = vocabulary_of(trainer.model)
    shrink(reference, whole, **options | {"out_of_vocabulary": EVERYWHERE})
    share_matrix(reference, trainer.model)
    if unwrapped is not None:
        vars(reference).pop("_is_accelerate_prepared", None)  # it would do nothing otherwise
        trainer.accelerator._models.remove(reference)  # noqa: SLF001
        trainer.accelerator.prepare_model(reference, evaluation_mode=True)


def share_matrix(model: Any, other: Any) -> None:
    """Let a model read rows outside V′ where another does, as far as they are the same.

    Args:
        model: A shrunk model.
        other: Another, with the same V′.
    """
    theirs = partial_tables(other)
    shared: dict[int, PartialTable] = {}
    for name, module in partial_tables(model).items():
        twin = theirs.get(name)
        if id(module.table) not in shared:
            if twin is None or not _same(module.table, twin.table):
                continue
            shared[id(module.table)] = table = copy.copy(twin.table)
            table.trains_on_frozen = module.table.trains_on_frozen
        table = shared[id(module.table)]
        vars(module)["table"] = table
        if isinstance(module, PartialHead):
            module.frozen.table = table


def _same(ours: PartialTable, theirs: PartialTable) -> bool:
    """Compare V′ and every bit of E."""
    one, other = ours.matrix, theirs.matrix
    shapes = [(m.full_vocab_size, m.embedding_dim, m.dtype) for m in (one, other)]
    if ours.vocabulary != theirs.vocabulary or shapes[0] != shapes[1]:
        return False
    pairs = zip(one.chunks(), other.chunks(), strict=True)
    return all(np.array_equal(mine, yours) for (_, mine), (_, yours) in pairs)


def _check_kind(trainer: Any) -> None:
    """Refuse a trainer of which it is not known what it does with the output head."""
    if not _is_one_of(trainer, (*OFFLINE, *ONLINE)):
        raise UnsupportedModelError(
            f"It is not known what `{type(trainer).__name__}` does with the output head, expected "
            f"one of {', '.join((*OFFLINE, *ONLINE))}. Those that multiply by its matrix need all "
            "of it; if yours takes logits from the model, call `subvocab.shrink(trainer.model, "
            "vocabulary)` yourself."
        )


def _is_one_of(trainer: Any, names: tuple[str, ...]) -> bool:
    """Tell whether a trainer is of a kind, or of a user's own made of it."""
    kinds = [kind for kind in type(trainer).__mro__ if kind.__module__.startswith("trl.")]
    return any(kind.__name__ in names for kind in kinds[:1])
