"""A shrunk model is neither resized nor tied to what it was not tied to."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import subvocab as sv
from tests.models import FULL_VOCAB_SIZE, LANGUAGE_MODELS, tiny_language_model, tiny_model
from tests.reference import assert_equal_states, copied, drawn_vocabulary

VOCABULARY = drawn_vocabulary(60)


def _message(name: str) -> str:
    return (
        f"`{name}` holds the rows of a partial vocabulary, so it cannot be resized. Resize the "
        "model before it is shrunk, or call `subvocab.restore(model)` first."
    )


@pytest.mark.parametrize(
    ("family", "head"),
    [("bert", "sequence"), ("bert", "masked-lm"), ("t5", "encoder"), ("llama", "causal-lm")],
)
@pytest.mark.parametrize("size", [FULL_VOCAB_SIZE + 8, FULL_VOCAB_SIZE, 20])
def test_a_shrunk_model_is_not_resized(family: str, head: str, size: int) -> None:
    """Rows would be added that no look-up reaches, or learned ones thrown away."""
    model = tiny_model(family, head)
    before = copied(model.state_dict())
    sv.shrink(model, VOCABULARY)

    for part in (model, model.base_model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        with pytest.raises(sv.UnsupportedModelError) as caught:
            part.resize_token_embeddings(size)
        assert str(caught.value) == _message(type(part).__name__)

    assert_equal_states(model.state_dict(), before)
    assert model.config.vocab_size == FULL_VOCAB_SIZE
    sv.restore(model).resize_token_embeddings(FULL_VOCAB_SIZE + 8)
    assert len(model.get_input_embeddings().weight) == FULL_VOCAB_SIZE + 8


class Own(nn.Module):
    """A model of no library, which resizes its table by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(FULL_VOCAB_SIZE, 8)

    def get_input_embeddings(self) -> nn.Embedding:
        """Give the table."""
        return self.table

    def resize_token_embeddings(self, size: int) -> None:
        """Cut the table off."""
        self.table.weight = nn.Parameter(self.table.weight[:size])


def test_a_model_of_no_library_is_not_resized() -> None:
    """The refusal asks for the method, not for the class."""
    model = Own()
    with sv.shrink(model, VOCABULARY):
        with pytest.raises(sv.UnsupportedModelError) as caught:
            model.resize_token_embeddings(20)
        assert str(caught.value) == _message("Own")

    model.resize_token_embeddings(20)
    assert len(model.table.weight) == 20


def test_a_shrunk_model_is_freed_at_once() -> None:
    """What refuses knows the model by name: in a circle it would stay until the next collection."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)
    gc.collect()
    gc.disable()
    try:
        alive = weakref.ref(model)
        del model
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_tying_again_changes_nothing(name: str) -> None:
    """Libraries call `tie_weights` when they have moved or loaded a model."""
    model = tiny_language_model(name)
    before = copied(model.state_dict())
    sv.shrink(model, VOCABULARY)
    parameters = [id(parameter) for parameter in model.parameters()]

    model.tie_weights()

    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert_equal_states(model.state_dict(), before)
    sv.restore(model)
    assert_equal_states(model.state_dict(), before)


@pytest.mark.parametrize("head", ["exact", "whole"])
def test_tying_again_leaves_apart_what_is_apart(head: Any) -> None:
    """The class says that they are tied, as with T5 v1.1, and plain `tie_weights` would do it."""
    whole = tiny_language_model("t5")
    whole.lm_head.weight = nn.Parameter(torch.randn_like(whole.lm_head.weight))
    before = copied(whole.state_dict())
    model = copy.deepcopy(whole)
    sv.shrink(model, VOCABULARY, head=head)

    model.tie_weights()
    whole.tie_weights()

    assert_equal_states(model.state_dict(), before)
    assert torch.equal(whole.lm_head.weight, whole.shared.weight), "there was nothing to prevent"


def test_tying_again_ties_what_was_parted() -> None:
    """Moved to another kind of device and back, a model has a Parameter a module."""
    model = tiny_language_model("bert")
    sv.shrink(model, VOCABULARY)
    before = copied(model.state_dict())
    decoder, embedding = model.cls.predictions.decoder, model.bert.embeddings.word_embeddings
    decoder.weight = nn.Parameter(decoder.weight.detach().clone())

    model.tie_weights()

    assert decoder.weight is embedding.weight
    assert_equal_states(model.state_dict(), before)
