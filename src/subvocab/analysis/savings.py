"""What a partial vocabulary saves: parameters and bytes, foretold from shapes alone (paper §5.3).

Pure arithmetic: no weight is loaded, no torch. Activations, the context of CUDA and what an
allocator wastes are not foretold; say so wherever a figure is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from subvocab.analysis.memory import (
    HEADS,
    OPTIMIZERS,
    WEIGHT_BYTES,
    Memory,
    Training,
    training_memory,
)
from subvocab.analysis.shapes import ModelShape, ParameterShape, Role
from subvocab.errors import DataError, UnsupportedModelError, VocabularyMismatchError

__all__ = [
    "HEADS",
    "OPTIMIZERS",
    "WEIGHT_BYTES",
    "Memory",
    "ModelShape",
    "ParameterCounts",
    "ParameterShape",
    "Role",
    "Savings",
    "Training",
    "estimate_savings",
]

LOOKUP_BYTES = 4
"""A token of V takes in the look-up that PEMA adds to a model."""


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model with E, and with E′ in its place.

    Attributes:
        full_vocab_size: |V|.
        partial_vocab_size: |V′|.
        embedding_parameters: Of all tables over V, whole (N_emb in the paper).
        partial_embedding_parameters: Of the same tables with the rows of V′.
        model_parameters: Of the whole model (N in the paper).
        partial_model_parameters: Of the shrunk model.

    Source:
        §5.3 and Table 5 of the paper.
    """

    full_vocab_size: int
    partial_vocab_size: int
    embedding_parameters: int
    partial_embedding_parameters: int
    model_parameters: int
    partial_model_parameters: int

    @property
    def embedding_reduction(self) -> float:
        """Share of the embedding parameters that is saved, in [0, 1]."""
        return 1 - self.partial_embedding_parameters / self.embedding_parameters

    @property
    def model_reduction(self) -> float:
        """Share of all parameters that is saved, in [0, 1]."""
        return 1 - self.partial_model_parameters / self.model_parameters


@dataclass(frozen=True)
class Savings:
    """What training takes with E, and with E′ in its place.

    Attributes:
        model: What the model is called.
        parameters: Its parameters; with PEMA those alone that are trained.
        training: How it is trained.
        full: Bytes with E.
        partial: Bytes with E′.
    """

    model: str
    parameters: ParameterCounts
    training: Training
    full: Memory
    partial: Memory

    @property
    def memory_reduction(self) -> float:
        """Share of the memory that is saved, in [0, 1]; activations left out on both sides."""
        return 1 - self.partial.total / self.full.total

    def figures(self) -> dict[str, Any]:
        """Gather all numbers for machines.

        Returns:
            Values by name, for JSON; memory in bytes.
        """
        return {
            "model": self.model,
            **asdict(self.parameters),
            "embedding_reduction": self.parameters.embedding_reduction,
            "model_reduction": self.parameters.model_reduction,
            "training": asdict(self.training),
            "full_bytes": {**asdict(self.full), "total": self.full.total},
            "partial_bytes": {**asdict(self.partial), "total": self.partial.total},
        }


def estimate_savings(
    shape: ModelShape, partial_vocab_size: int, training: Training | None = None
) -> Savings:
    """Foretell the memory of training with E, and with E′ in its place.

    Args:
        shape: The model's.
        partial_vocab_size: |V′|, special tokens included.
        training: How; by default in fp32 with AdamW, batches of 32 × 128.

    Returns:
        Parameters and bytes.

    Raises:
        VocabularyMismatchError: If |V′| is not in [1, |V|].
        DataError: If the head to be trained does not suit the model: one that the model
            lacks, or none where it has one.
        UnsupportedModelError: If a tied head is to be left whole.

    Source:
        §4 and §5.3 of the paper; its tables count parameters, bytes are our addition.

    Example:
        >>> table = ParameterShape((1000, 8), Role.TABLE, looked_up=True)
        >>> body = ParameterShape((8, 8))
        >>> saved = estimate_savings(ModelShape("tiny", 1000, (table, body)), 100)
        >>> saved.parameters.embedding_reduction, saved.full.total, saved.partial.total
        (0.9, 129024, 17824)
    """
    training = training or Training()
    _check(shape, partial_vocab_size, training)
    partial = list(_with_pema(shape, partial_vocab_size, training.head))
    head = [w for w in partial if w.trained and w.role in {Role.TIED, Role.HEAD}]
    columns = max((w.shape[0] for w in head), default=0) + (training.head == "exact")
    whole_columns = shape.full_vocab_size if shape.has_output_head else 0
    small = training_memory(partial, columns, training)
    lookup_bytes = LOOKUP_BYTES * shape.full_vocab_size
    tables = [w for w in partial if w.trained and w.role in {Role.TABLE, Role.TIED}]
    return Savings(
        model=shape.name,
        parameters=ParameterCounts(
            full_vocab_size=shape.full_vocab_size,
            partial_vocab_size=partial_vocab_size,
            embedding_parameters=shape.embedding_parameters,
            partial_embedding_parameters=sum(w.parameters for w in tables),
            model_parameters=shape.model_parameters,
            partial_model_parameters=sum(
                w.parameters for w in partial if w.trained or w.role is Role.BODY
            ),
        ),
        training=training,
        full=training_memory(shape.weights, whole_columns, training),
        partial=replace(small, weights=small.weights + lookup_bytes),
    )


def _check(shape: ModelShape, partial_vocab_size: int, training: Training) -> None:
    """Refuse what cannot be trained."""
    if not 1 <= partial_vocab_size <= shape.full_vocab_size:
        raise VocabularyMismatchError(
            f"A partial vocabulary of {partial_vocab_size:,} tokens was asked for, but "
            f"`{shape.name}` has {shape.full_vocab_size:,}. Expected from one to as many: count "
            "the data with the model's own tokenizer."
        )
    if shape.has_output_head and training.head == "none":
        raise DataError(
            f"`{shape.name}` has an output head over the vocabulary, but `head` is `none`. "
            "Expected `exact`, `restricted` or, if it is not tied, `whole`."
        )
    if not shape.has_output_head and training.head != "none":
        raise DataError(
            f"`{shape.name}` has no output head over the vocabulary, but `head` is "
            f"`{training.head}`. Expected `none`."
        )
    if shape.tied and training.head == "whole":
        raise UnsupportedModelError(
            f"The output head of `{shape.name}` is tied to its embedding matrix, so it cannot stay "
            "whole while the matrix shrinks. Choose `exact` or `restricted`."
        )


def _with_pema(shape: ModelShape, partial_vocab_size: int, head: str) -> Iterator[ParameterShape]:
    """Give the weights of the shrunk model: trained rows, and frozen ones where they stay."""
    for weight in shape.weights:
        is_head = weight.role in {Role.TIED, Role.HEAD, Role.BIAS}
        if weight.role is Role.BODY or (is_head and head == "whole"):
            yield weight
            continue
        yield replace(weight, shape=(partial_vocab_size, *weight.shape[1:]))
        rest = shape.full_vocab_size - partial_vocab_size
        if is_head and head == "exact" and rest:
            yield replace(weight, shape=(rest, *weight.shape[1:]), trained=False)
