"""What a partial vocabulary saves, counted in parameters."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from subvocab.analysis.savings import ParameterCounts
from subvocab.model.partial import PartialModule
from subvocab.model.shrink import partial_embeddings, partial_tables, vocabulary_of


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count the parameters of a shrunk model, and those it has when it is whole.

    Args:
        model: A model from `shrink` or `from_pretrained`.

    Returns:
        The counts; a tied matrix counts once, and the matrix of an output head of its own is
        no embedding.

    Raises:
        UnsupportedModelError: If the model is not shrunk.
    """
    vocabulary = vocabulary_of(model)
    full_embedding, partial_embedding = _sizes(partial_embeddings(model).values())
    full, partial = _sizes(partial_tables(model).values())
    total = sum(parameter.numel() for parameter in model.parameters())
    return ParameterCounts(
        full_vocab_size=vocabulary.full_vocab_size,
        partial_vocab_size=len(vocabulary),
        embedding_parameters=full_embedding,
        partial_embedding_parameters=partial_embedding,
        model_parameters=total - partial + full + _rest_of_biases(model),
        partial_model_parameters=total,
    )


def _sizes(modules: Iterable[PartialModule]) -> tuple[int, int]:
    """Count the parameters of the matrices of modules: with all rows, and with those of V′."""
    weights = {id(module.weight): module for module in modules}.values()
    full = sum(m.table.vocabulary.full_vocab_size * m.weight.shape[1] for m in weights if m.table)
    return full, sum(module.weight.numel() for module in weights)


def _rest_of_biases(model: nn.Module) -> int:
    """Count the biases outside V′, less the shifts, which a whole model does not have."""
    modules = [m for m in model.modules() if isinstance(m, PartialModule)]
    shifts = {
        id(p): p.numel()
        for m in modules
        for p in (m.rest_shift, m.rest_bias_shift)
        if p is not None
    }
    biases = {id(m.bias): m for m in modules if m.partial_bias is not None}
    rest = sum(
        m.partial_bias.whole.numel() - m.bias.numel() for m in biases.values() if m.partial_bias
    )
    return rest - sum(shifts.values())
