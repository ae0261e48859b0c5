"""Models of which only the rows of V′ were trained, and the matrix that they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import subvocab as sv
from subvocab.model.partial import PartialModule
from tests.models import FULL_VOCAB_SIZE, random_batch, tiny_model
from tests.reference import drawn_vocabulary, ids_of, train

VOCABULARY = drawn_vocabulary()
OTHER = drawn_vocabulary(60, seed=5)
EVERY_ID = torch.arange(FULL_VOCAB_SIZE)
MATRIX = "bert.embeddings.word_embeddings.weight"


def classifier(first: int, last: int, *, seed: int = 0) -> Any:
    """Train only the rows of some tokens of a classifier."""
    vocabulary = sv.PartialVocabulary(np.array([0, *range(first, last)]), FULL_VOCAB_SIZE)
    model = tiny_model("bert")
    sv.shrink(model, vocabulary)
    return rows_trained(
        model, [random_batch(model, ids_of(vocabulary), seed=seed + step) for step in range(3)]
    )


def rows_trained(model: Any, batches: list[dict[str, Tensor]]) -> Any:
    """Train what belongs to V′, and nothing else."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, PartialModule):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)
    train(model, batches, lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0))
    return model.eval()


def matrix_of(model: Any) -> Tensor:
    """Copy the whole matrix of a model."""
    value = model.state_dict()[MATRIX]
    assert isinstance(value, Tensor)
    return value.clone()


BASE = matrix_of(tiny_model("bert"))
