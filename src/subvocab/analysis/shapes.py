"""The shapes of a model's parameters, and what each is to the vocabulary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a weight is to the vocabulary."""

    BODY = "body"
    """Nothing: its shape does not depend on |V|."""
    TABLE = "table"
    """Tokens are looked up in it, and that is all: ``(full, dim)``."""
    TIED = "tied"
    """A table that is the output head too."""
    HEAD = "head"
    """The matrix of an output head of its own, ``(full, dim)``."""
    BIAS = "bias"
    """The bias of an output head, ``(full,)``."""


@dataclass(frozen=True)
class ParameterShape:
    """One Parameter of a model, however many modules hold it.

    Attributes:
        shape: Its shape, whole.
        role: What it is to the vocabulary; rows of all but the body are tokens.
        looked_up: Whether an ``nn.Embedding`` holds it.
        reused: Whether its gradient is a sum of several of its own size (a tied table, one
            that encoder and decoder share), so that two exist for a moment.
        trained: Whether it gets a gradient.
    """

    shape: tuple[int, ...]
    role: Role = Role.BODY
    looked_up: bool = False
    reused: bool = False
    trained: bool = True

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def multiplied(self) -> bool:
        """Whether it is a factor of a matrix product, which autocast casts."""
        return self.role is Role.TIED or (len(self.shape) > 1 and not self.looked_up)


@dataclass(frozen=True)
class ModelShape:
    """All that a plan needs to know of a model; `subvocab.model.shape.model_shape` reads it.

    Attributes:
        name: What the model is called.
        full_vocab_size: |V|, the rows of its token tables.
        weights: Every distinct Parameter once, in the model's order.
        kept_token_ids: Ids that are in every V′ of this model, such as its padding.
    """

    name: str
    full_vocab_size: int
    weights: tuple[ParameterShape, ...]
    kept_token_ids: tuple[int, ...] = ()

    @property
    def embedding_parameters(self) -> int:
        """Of all tables over V (N_emb in the paper)."""
        return sum(w.parameters for w in self.weights if w.role in {Role.TABLE, Role.TIED})

    @property
    def model_parameters(self) -> int:
        """Of the whole model (N in the paper)."""
        return sum(weight.parameters for weight in self.weights)

    @property
    def tied(self) -> bool:
        """Whether a table is the output head too."""
        return any(weight.role is Role.TIED for weight in self.weights)

    @property
    def has_output_head(self) -> bool:
        """Whether the model's logits are over V."""
        return any(weight.role in {Role.TIED, Role.HEAD} for weight in self.weights)
