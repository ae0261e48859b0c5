"""Shrink a model that is in memory, and make it whole again (paper §4, before and after)."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from subvocab._typing import StrPath
from subvocab.errors import UnsupportedModelError
from subvocab.model.attach import HeadPlan, Prepared, attach, detach
from subvocab.model.choose import choose_tables
from subvocab.model.embedding import PartialEmbedding
from subvocab.model.frozen import RestDevice
from subvocab.model.head import HeadMode
from subvocab.model.partial import PartialModule
from subvocab.model.ranks import refuse_spread, refuse_to_restore_spread
from subvocab.model.table import OutOfVocabulary, PartialTable
from subvocab.model.tables import EmbeddingTable
from subvocab.model.tensors import spilled
from subvocab.vocabulary import PartialVocabulary

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
    vocabulary: PartialVocabulary | Mapping[str, PartialVocabulary],
    *,
    head: HeadMode = "exact",
    rest_shift: bool = True,
    rest_device: RestDevice = None,
    out_of_vocabulary: OutOfVocabulary = "error",
    tokenizer: object = None,
    spill_folder: StrPath | None = None,
) -> Shrunk[Model]:
    """Leave only the rows of V′ in a model's embedding matrix and output head, in place.

    The whole matrix is written to a temporary file, from which the model is made whole
    again, saved whole, and from which evaluation reads rows outside V′. Make the
    optimizer after this call.

    Args:
        model: A model of any dtype, on any device.
        vocabulary: V′. The special tokens of the model's configuration and its padding
            token are added to it. For a model with two vocabularies one for each part:
            ``{"encoder": …, "decoder": …}``.
        head: What an output head predicts while the model computes its loss. "exact": V′,
            and the log-sum-exp of all other tokens, so that the loss is that of the whole
            vocabulary; "restricted": V′ alone; "whole": all, for heads that are not tied.
        rest_shift: Whether an exact head trains one vector that is added to every row
            outside V′. Under Adam it stands for the update that full fine-tuning gives them.
        rest_device: Where those rows stay: with the model (None), on the "cpu", or on
            "disk".
        out_of_vocabulary: What a token outside V′ does in training: "error", or "frozen"
            to read its row from disk and give it no gradient.
        tokenizer: A tokenizer, or the name of one, for readable error messages. By
            default the one that lies where the model came from, if there is one.
        spill_folder: Where to put the temporary file, which is as large as the matrix; by
            default the system's folder for temporary files.

    Returns:
        A handle on the model: ``with shrink(model, vocabulary): ...`` restores it.

    Raises:
        UnsupportedModelError: If the model is shrunk already, an optimizer already holds
            its matrix, or its output head is of a kind that is not known.
        VocabularyMismatchError: If no embedding matrix has |V| rows.

    Source:
        §4 "Before fine-tuning": E′[f(i)] = E[i].
    """
    if partial_embeddings(model):
        raise UnsupportedModelError(
            f"`{type(model).__name__}` is shrunk already. Call `subvocab.restore(model)` first."
        )
    refuse_spread(model)
    plan = HeadPlan(head, rest_shift=rest_shift, rest_device=rest_device)
    chosen = choose_tables(model, vocabulary, head=head)
    refuse_stale_optimizers(model, [table for table, _ in chosen])
    tokenizer = tokenizer or getattr(getattr(model, "config", None), "name_or_path", None) or None
    folder = None if spill_folder is None else str(spill_folder)
    # All that may fail comes before the first module is touched.
    prepared = []
    for table, own in chosen:
        whole = table.parameter
        matrix = spilled(whole, folder=folder)
        rows = whole.detach()[torch.tensor(own.token_ids, device=whole.device)]
        weight = nn.Parameter(rows, requires_grad=whole.requires_grad)
        partial_table = PartialTable(own, matrix, tokenizer, out_of_vocabulary)
        prepared.append(Prepared(table, weight, partial_table))
    attach(model, prepared, plan)
    return Shrunk(model)


def restore(model: Model) -> Model:
    """Make a shrunk model whole again, in memory and in place.

    Args:
        model: A model from `shrink` or `from_pretrained`, trained or not.

    Returns:
        The same model. Its embedding matrix holds the learned rows, and every other row
        as it was, moved by the rest shift where an output head trained one. It is a new
        Parameter: an optimizer made before is of no further use.

    Raises:
        UnsupportedModelError: If the model is not shrunk, or spread over several processes.

    Source:
        §4 "After fine-tuning": E[f⁻¹(j)] = E′[j].
    """
    if not partial_embeddings(model):
        raise UnsupportedModelError(
            f"`{type(model).__name__}` has no partial embedding, so there is nothing to restore. "
            "Was it restored already?"
        )
    refuse_to_restore_spread(model)
    detach(model)
    return model


def partial_embeddings(model: nn.Module) -> dict[str, PartialEmbedding]:
    """Find the partial embedding modules of a model.

    Args:
        model: Any model.

    Returns:
        The modules by name; empty if the model is not shrunk.
    """
    return {n: m for n, m in model.named_modules() if isinstance(m, PartialEmbedding)}


def partial_tables(model: nn.Module) -> dict[str, Any]:
    """Find the modules of a model that hold rows of V′: embeddings and output heads.

    Args:
        model: Any model.

    Returns:
        The modules by name; empty if the model is not shrunk.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, PartialModule) and module.table is not None
    }


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
