"""Tests of biases over the vocabulary."""

from __future__ import annotations

import copy

import torch
from torch import nn

from subvocab.model.bias import PartialBias, bias_holders
from subvocab.vocabulary.partial import ABSENT
from tests.models import FULL_VOCAB_SIZE, tiny_model
from tests.reference import drawn_vocabulary, ids_of

VOCABULARY = drawn_vocabulary()
USED = ids_of(VOCABULARY)
UNUSED = torch.tensor(VOCABULARY.lookup == ABSENT)
WHOLE = torch.arange(float(FULL_VOCAB_SIZE))


def made() -> PartialBias:
    """Divide some biases."""
    return PartialBias(VOCABULARY, WHOLE)


def test_it_divides_biases() -> None:
    """Those of V′, and all others."""
    assert torch.equal(made().of_vocabulary(WHOLE), WHOLE[USED])
    assert torch.equal(made().of_rest(like=WHOLE), WHOLE[UNUSED])
    assert made().of_rest(like=WHOLE.half()).dtype == torch.float16


def test_whole_tensor_puts_them_together() -> None:
    """The learned ones in their places, the others moved by the shift."""
    whole = made().whole_tensor(-WHOLE[USED], shift=torch.tensor([0.5]))

    assert torch.equal(whole[USED], -WHOLE[USED])
    assert torch.equal(whole[UNUSED], WHOLE[UNUSED] + 0.5)


def test_whole_tensor_gives_one_tensor_a_state_dict() -> None:
    """BERT's bias stands in two modules, and is saved as one."""
    bias, learned = made(), nn.Parameter(WHOLE[USED])
    state = {"first": bias.whole_tensor(learned)}

    assert bias.whole_tensor(learned, state) is state["first"]
    assert bias.whole_tensor(learned.clone(), state) is not state["first"]


def test_adopt_unused_takes_only_what_differs() -> None:
    """What was saved with a shift and comes back is no news; other biases are."""
    bias, shift = made(), torch.tensor([0.5])
    saved = bias.whole_tensor(-WHOLE[USED], shift=shift)

    assert not bias.adopt_unused(saved, shift)
    assert torch.equal(bias.whole, WHOLE)
    assert bias.adopt_unused(saved, None)
    assert torch.equal(bias.of_rest(like=WHOLE), WHOLE[UNUSED] + 0.5)


def test_deepcopy_goes_its_own_way() -> None:
    """What one copy adopts, the other does not."""
    bias = made()
    twin = copy.deepcopy(bias)

    twin.adopt_unused(WHOLE + 1, None)

    assert torch.equal(bias.whole, WHOLE)


def test_bias_holders_finds_all() -> None:
    """By identity."""
    model = tiny_model("bert", "masked-lm")

    found = bias_holders(model, model.cls.predictions.bias)

    assert set(found) == {"cls.predictions", "cls.predictions.decoder"}
