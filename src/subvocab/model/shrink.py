"""Shrink a model that is in memory, and make it whole again (paper §4, before and after)."""

from __future__ import annotations

import gc
import warnings
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from subvocab._typing import StrPath
from subvocab.errors import UnsupportedModelError
from subvocab.model.embedding import PartialEmbedding, make_partial, make_whole
from subvocab.model.table import PartialTable
from subvocab.model.tables import EmbeddingTable, find_tables
from subvocab.model.tensors import spilled
from subvocab.vocabulary import PartialVocabulary

LITTLE_GAINED = 0.9
"""Share of V from which on shrinking is hardly worth it."""

Model = TypeVar("Model", bound=nn.Module)


class Shrunk(Generic[Model]):
    """A model that was shrunk in place; as a context manager it restores the model on any exit.

    Args:
        model: The model.

    Attributes:
        model: The model itself, the same object as before.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def __enter__(self) -> Model:
        return self.model

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if partial_embeddings(self.model):
            restore(self.model)


def shrink(
    model: Model,
    vocabulary: PartialVocabulary,
    *,
    tokenizer: object = None,
    spill_folder: StrPath | None = None,
) -> Shrunk[Model]:
    """Leave only the rows of V′ in a model's embedding matrix, in place.

    The whole matrix is written to a temporary file, from which the model is made whole
    again, saved whole, and from which evaluation reads rows outside V′. Make the
    optimizer after this call.

    Args:
        model: A model without an output head, of any dtype, on any device.
        vocabulary: V′. The special tokens of the model's configuration and its padding
            token are added to it.
        tokenizer: A tokenizer, or the name of one, for readable error messages. By
            default the one that lies where the model came from, if there is one.
        spill_folder: Where to put the temporary file, which is as large as the matrix; by
            default the system's folder for temporary files.

    Returns:
        A handle on the model: ``with shrink(model, vocabulary): ...`` restores it.

    Raises:
        UnsupportedModelError: If the model has an output head, is shrunk already, or
            an optimizer already holds its matrix.
        VocabularyMismatchError: If no embedding matrix has |V| rows.

    Source:
        §4 "Before fine-tuning": E′[f(i)] = E[i].
    """
    if partial_embeddings(model):
        raise UnsupportedModelError(
            f"`{type(model).__name__}` is shrunk already. Call `subvocab.restore(model)` first."
        )
    tables = find_tables(model, vocabulary.full_vocab_size)
    refuse_stale_optimizers(model, tables)
    vocabulary = complete(vocabulary, model, tables)
    warn_if_little_is_gained(vocabulary)

    token_ids = torch.tensor(vocabulary.token_ids)
    tokenizer = tokenizer or getattr(getattr(model, "config", None), "name_or_path", None) or None
    folder = None if spill_folder is None else str(spill_folder)
    # All that may fail comes before the first module is touched.
    prepared = []
    for table in tables:
        whole = table.parameter
        matrix = spilled(whole, folder=folder)
        rows = whole.detach()[token_ids.to(whole.device)]
        weight = nn.Parameter(rows, requires_grad=whole.requires_grad)
        prepared.append((table, weight, PartialTable(vocabulary, matrix, tokenizer)))
    for table, weight, partial_table in prepared:
        for module in table.owners.values():
            make_partial(module, weight, partial_table)
    return Shrunk(model)


def restore(model: Model) -> Model:
    """Make a shrunk model whole again, in memory and in place.

    Args:
        model: A model from `shrink` or `from_pretrained`, trained or not.

    Returns:
        The same model. Its embedding matrix holds the learned rows, and every other row
        as it was. It is a new Parameter: an optimizer made before is of no further use.

    Raises:
        UnsupportedModelError: If the model is not shrunk.

    Source:
        §4 "After fine-tuning": E[f⁻¹(j)] = E′[j].
    """
    modules = partial_embeddings(model)
    if not modules:
        raise UnsupportedModelError(
            f"`{type(model).__name__}` has no partial embedding, so there is nothing to restore. "
            "Was it restored already?"
        )
    wholes: dict[int, nn.Parameter] = {}
    for module in modules.values():
        weight = module.weight
        if id(weight) not in wholes:
            whole = module.table.whole_tensor(weight).clone().to(weight.device)
            wholes[id(weight)] = nn.Parameter(whole, requires_grad=weight.requires_grad)
    for module in modules.values():
        make_whole(module, wholes[id(module.weight)])
    return model


def partial_embeddings(model: nn.Module) -> dict[str, PartialEmbedding]:
    """Find the partial embedding modules of a model.

    Args:
        model: Any model.

    Returns:
        The modules by name; empty if the model is not shrunk.
    """
    return {n: m for n, m in model.named_modules() if isinstance(m, PartialEmbedding)}


def vocabulary_of(model: nn.Module) -> PartialVocabulary:
    """Give the V′ of a shrunk model, its special tokens included.

    Args:
        model: A model from `shrink` or `from_pretrained`.

    Returns:
        V′.

    Raises:
        UnsupportedModelError: If the model is not shrunk.
    """
    for module in partial_embeddings(model).values():
        return module.table.vocabulary
    raise UnsupportedModelError(f"`{type(model).__name__}` has no partial embedding.")


def complete(
    vocabulary: PartialVocabulary, model: nn.Module, tables: list[EmbeddingTable]
) -> PartialVocabulary:
    """Add the tokens that a model may insert by itself.

    Args:
        vocabulary: V′ of the data.
        model: The model; its configurations name tokens as ``*_token_id``.
        tables: Its tables; their padding tokens are kept.

    Returns:
        V′ with those tokens and token 0, which some models put in place of images.
    """
    found = {0}
    for table in tables:
        found |= {m.padding_idx for m in table.owners.values() if m.padding_idx is not None}
    configs = {
        id(config): config
        for module in model.modules()
        for config in (getattr(module, "config", None), getattr(module, "generation_config", None))
        if callable(getattr(config, "to_dict", None))
    }
    for config in configs.values():
        found |= _token_ids_named_in(config.to_dict() if config is not None else {})
    inside = [i for i in sorted(found) if 0 <= i < vocabulary.full_vocab_size]
    return vocabulary.union(np.array(inside))


def _token_ids_named_in(config: dict[Any, Any]) -> set[int]:
    """Collect the values of every ``*_token_id`` entry, nested ones included."""
    found: set[int] = set()
    for key, value in config.items():
        if isinstance(value, dict):
            found |= _token_ids_named_in(value)
        elif str(key).endswith(("_token_id", "_token_ids")):
            values = value if isinstance(value, list | tuple) else [value]
            found |= {v for v in values if isinstance(v, int) and not isinstance(v, bool)}
    return found


def refuse_stale_optimizers(model: nn.Module, tables: list[EmbeddingTable]) -> None:
    """Refuse to take a matrix away under an optimizer, which would go on training the old one.

    Args:
        model: The model, for the message.
        tables: Its tables.

    Raises:
        UnsupportedModelError: If an optimizer holds one of them.
    """
    held = {id(table.parameter) for table in tables}
    found = _optimizers_of(held)
    if found:
        gc.collect()  # one that was dropped may linger in a cycle with its scheduler
        found = _optimizers_of(held)
    if found:
        raise UnsupportedModelError(
            f"`{found[0]}` already holds the embedding matrix of `{type(model).__name__}` and "
            "would go on training it. Make the optimizer after the model is shrunk."
        )


def _optimizers_of(parameters: set[int]) -> list[str]:
    """Name the classes of all optimizers that hold one of these parameters."""
    objects = gc.get_objects()
    # By class first, which is quick: there are millions of objects, and few optimizers.
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, torch.optim.Optimizer)}
    optimizers = [thing for thing in objects if type(thing) in kinds] if kinds else []
    return [
        type(optimizer).__name__
        for optimizer in optimizers
        for group in getattr(optimizer, "param_groups", ())  # one may be half built
        if any(id(parameter) in parameters for parameter in group["params"])
    ]


def warn_if_little_is_gained(vocabulary: PartialVocabulary) -> None:
    """Warn where nearly every row is kept.

    Args:
        vocabulary: V′.
    """
    share = len(vocabulary) / vocabulary.full_vocab_size
    if share > LITTLE_GAINED:
        warnings.warn(
            f"The partial vocabulary holds {len(vocabulary):,} of {vocabulary.full_vocab_size:,} "
            f"tokens ({share:.0%}): the result is right, but little memory is saved.",
            stacklevel=3,
        )
