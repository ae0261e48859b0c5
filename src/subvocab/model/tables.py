"""Find the embedding tables of a model: by Parameter identity, never by name.

One table may be held by several modules (T5 and BART hold one Parameter in three). A model
whose table is also its output head is refused: every row of it gets a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from subvocab.errors import UnsupportedModelError, VocabularyMismatchError, listed


@dataclass(frozen=True)
class EmbeddingTable:
    """One embedding matrix and the modules that look tokens up in it.

    Attributes:
        parameter: The matrix E, ``(full, dim)``, or E′, ``(partial, dim)``.
        owners: The modules by their name in the model; at least one.
    """

    parameter: nn.Parameter
    owners: dict[str, nn.Embedding]

    @property
    def name(self) -> str:
        """Where the matrix stands in the model's state dict."""
        first = next(iter(self.owners))
        return f"{first}.weight" if first else "weight"


def find_tables(model: nn.Module, full_vocab_size: int) -> list[EmbeddingTable]:
    """Find every embedding matrix with a row for each token of V.

    Args:
        model: A transformers model, a wrapper around one, or any module with an
            ``nn.Embedding`` of ``full_vocab_size`` rows.
        full_vocab_size: |V|.

    Returns:
        The tables, in the order of the model's modules.

    Raises:
        UnsupportedModelError: If the model has an output head, or an embedding
            that is no ``nn.Embedding``.
        VocabularyMismatchError: If no embedding matrix has |V| rows.
    """
    inputs = _input_embeddings(model)
    if not inputs:
        inputs = [
            module
            for module in model.modules()
            if isinstance(module, nn.Embedding) and module.num_embeddings == full_vocab_size
        ]
    parameters = {
        id(e.weight): cast("nn.Parameter", e.weight)
        for e in inputs
        if e.weight.shape[0] == full_vocab_size
    }
    if not parameters:
        heights = sorted({f"{e.weight.shape[0]:,}" for e in inputs})
        raise VocabularyMismatchError(
            f"The embedding matrix of `{type(model).__name__}` has {listed(heights) or 'no'} rows, "
            f"but the partial vocabulary was taken from {full_vocab_size:,} tokens. If the model "
            "pads its matrix beyond its tokenizer, call `vocabulary.resized(rows)`; else scan with "
            "the model's own tokenizer."
        )
    refuse_output_head(model)
    return [EmbeddingTable(p, _owners(model, p)) for p in parameters.values()]


def refuse_output_head(model: nn.Module) -> None:
    """Refuse models that predict tokens.

    Args:
        model: Any model.

    Raises:
        UnsupportedModelError: If a part of the model has output embeddings.
    """
    for module in _pretrained_models(model):
        head = module.get_output_embeddings()
        if head is not None:
            raise UnsupportedModelError(
                f"`{type(module).__name__}` has an output head (`{type(head).__name__}` over the "
                "vocabulary), whose softmax gives every row of the embedding matrix a gradient. "
                "Models with an output head are not supported yet: use a classification, "
                "question-answering or encoder class of this model."
            )


def _pretrained_models(model: nn.Module) -> Iterable[Any]:
    """Give every part of a model that follows transformers' interface."""
    return (m for m in model.modules() if callable(getattr(m, "get_output_embeddings", None)))


def _input_embeddings(model: nn.Module) -> list[nn.Embedding]:
    """Ask each part of a model for its input embeddings."""
    found: dict[int, nn.Embedding] = {}
    for module in _pretrained_models(model):
        if getattr(module, "main_input_name", "input_ids") != "input_ids":
            continue  # patches of a picture, frames of sound: what they embed are no tokens
        try:
            embedding = module.get_input_embeddings()
        except (AttributeError, NotImplementedError):  # a part without a table: CANINE
            continue
        if not isinstance(embedding, nn.Embedding | None):
            raise UnsupportedModelError(
                f"The input embedding of `{type(module).__name__}` is a "
                f"`{type(embedding).__name__}`, expected an `nn.Embedding`. If an adapter was put "
                "on it, leave the embedding out of the adapter's target modules."
            )
        if embedding is not None:
            found[id(embedding)] = embedding
    return list(found.values())


def _owners(model: nn.Module, parameter: nn.Parameter) -> dict[str, nn.Embedding]:
    """Give every module that holds a table, or refuse one that does not look tokens up in it."""
    owners: dict[str, nn.Embedding] = {}
    for name, module in model.named_modules(remove_duplicate=True):
        if not any(held is parameter for held in module.parameters(recurse=False)):
            continue
        if not isinstance(module, nn.Embedding):
            raise UnsupportedModelError(
                f"`{name}` (`{type(module).__name__}`) of `{type(model).__name__}` shares the "
                "embedding matrix, so every row of it gets a gradient. Models with a tied output "
                "head are not supported yet."
            )
        owners[name] = module
    return owners
