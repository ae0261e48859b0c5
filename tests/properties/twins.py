"""A language model twice, whole and shrunk, and how far the two are apart."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import subvocab as sv
from tests.models import LANGUAGE_MODELS, language_batch, tiny_language_model, used_part
from tests.reference import drawn_vocabulary, ids_of

LOSS_TOLERANCE = 1e-6
TOLERANCE = 1e-5
"""Relative to the largest entry: what is left of single precision after two layers."""
NOISE = 1e-3
"""Of a model's largest gradient: below, a gradient may be nothing but rounding (biases of keys)."""

every_model = pytest.mark.parametrize("name", LANGUAGE_MODELS)


@functools.cache
def _whole(name: str) -> Any:
    """Build a model once."""
    return tiny_language_model(name)


def whole(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """Give a whole model in training, without dropout."""
    return copy.deepcopy(_whole(name)).to(dtype).train()


def shrunk(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """Give its twin, shrunk."""
    model = whole(name, dtype)
    sv.shrink(model, drawn_vocabulary(), **options)
    return model


def batch_for(model: Any, name: str, *, seed: int = 0) -> dict[str, Tensor]:
    """Draw a batch of tokens of V′."""
    return language_batch(name, ids_of(sv.vocabulary_of(model)), seed=seed)


def difference(ours: Tensor, theirs: Tensor, *, floor: float = 0.0) -> float:
    """Give the largest difference, relative to the largest entry."""
    assert ours.shape == theirs.shape
    largest = max(theirs.abs().max().item(), floor)
    return (ours.double() - theirs.double()).abs().max().item() / largest


def is_shift(parameter_name: str) -> bool:
    """Tell whether a parameter is one that the whole model has not."""
    return parameter_name.endswith(("rest_shift", "rest_bias_shift"))


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Give all gradients by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    """Compare the gradients of the body, of used rows and of used biases."""
    token_ids = ids_of(sv.vocabulary_of(ours))
    expected = gradients_of(theirs)
    found = {name: g for name, g in gradients_of(ours).items() if not is_shift(name)}
    assert found.keys() == expected.keys()
    floor = NOISE * max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in found.items():
        whole_gradient = used_part(expected[name], gradient, token_ids)
        assert difference(gradient, whole_gradient, floor=floor) < TOLERANCE, name
