"""Fine-tuning a language model on V′ is fine-tuning it on V, with the rows outside V′ frozen."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import subvocab as sv
from subvocab.model.language_model import partial_heads
from tests.models import (
    FULL_VOCAB_SIZE,
    HEADS,
    LANGUAGE_MODELS,
    language_batch,
    tiny_language_model,
)
from tests.properties.twins import (
    LOSS_TOLERANCE,
    TOLERANCE,
    assert_equal_gradients,
    batch_for,
    difference,
    every_model,
    gradients_of,
    is_shift,
    shrunk,
    whole,
)
from tests.reference import assert_equal_states, copied, train, unused_ids

GENERATING = [name for name, (head, _) in LANGUAGE_MODELS.items() if head != "masked-lm"]
HALF_PRECISION = 2.0**-8
"""Twice the largest rounding of a number in bfloat16."""
STEPS = 3


def any_batch(name: str) -> dict[str, Tensor]:
    """Draw a batch of any tokens."""
    return language_batch(name, torch.arange(FULL_VOCAB_SIZE), seed=7)


@pytest.mark.parametrize("rest_shift", [True, False], ids=["shift", "no-shift"])
@every_model
def test_loss_and_gradients_are_those_of_the_whole_model(name: str, rest_shift: bool) -> None:
    """One softmax over V, of which the rows outside V′ are a single column."""
    full, small = whole(name), shrunk(name, rest_shift=rest_shift)
    batch = batch_for(small, name)

    expected, output = full(**batch), small(**batch)
    expected.loss.backward()
    output.loss.backward()

    assert output.logits.shape[-1] == len(sv.vocabulary_of(small)) + 1
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=LOSS_TOLERANCE)
    assert_equal_gradients(small, full)


@every_model
def test_training_is_that_of_the_whole_model_with_frozen_rows(name: str) -> None:
    """Step by step; the reference is the whole model, the gradient of unused rows zeroed."""
    full, small = whole(name), shrunk(name, rest_shift=False)
    before = copied(full.state_dict())
    unused = unused_ids(sv.vocabulary_of(small))
    sizes = {parameter_name: p.shape for parameter_name, p in small.named_parameters()}
    partial = {n: p for n, p in full.named_parameters() if p.shape != sizes[n]}
    optimizers = [
        torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0) for model in (full, small)
    ]

    for step in range(STEPS):
        batch = batch_for(small, name, seed=step)
        expected, loss = full(**batch).loss, small(**batch).loss
        assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
        expected.backward()
        loss.backward()
        for parameter in partial.values():
            assert parameter.grad is not None
            parameter.grad[unused[unused < len(parameter)]] = 0
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    saved = small.state_dict()
    for parameter_name, parameter in partial.items():
        rows = unused[unused < len(parameter)]
        assert torch.equal(saved[parameter_name][rows], before[parameter_name][rows])


@every_model
def test_the_gradient_of_the_shift_is_the_sum_over_unused_rows(name: str) -> None:
    """One vector stands for all rows outside V′, and one number for their biases."""
    full, small = whole(name), shrunk(name)
    batch = batch_for(small, name)
    unused = unused_ids(sv.vocabulary_of(small))

    full(**batch).loss.backward()
    small(**batch).loss.backward()

    expected = gradients_of(full)
    found = {n: gradient for n, gradient in gradients_of(small).items() if is_shift(n)}
    (head,) = partial_heads(small)
    assert len(found) == 1 + (head.own_bias is not None)
    for shift_name, gradient in found.items():
        tensor = "bias" if shift_name.endswith("rest_bias_shift") else "weight"
        whole_gradient = expected[f"{shift_name.rpartition('.')[0]}.{tensor}"]
        total = whole_gradient[unused].sum(0).view(gradient.shape)
        assert difference(gradient, total) < TOLERANCE, shift_name


@every_model
def test_with_all_of_v_training_is_bitwise_equal(name: str) -> None:
    """Where nothing is frozen nothing is computed otherwise: dropout and clipping included."""
    full, small = (tiny_language_model(name, dropout=True) for _ in range(2))
    everything = torch.arange(FULL_VOCAB_SIZE)
    batches = [language_batch(name, everything, seed=step) for step in range(STEPS)]
    with pytest.warns(UserWarning, match="little memory is saved"):
        sv.shrink(small, sv.PartialVocabulary(everything.numpy(), FULL_VOCAB_SIZE))

    assert train(small, batches) == train(full, batches)
    assert_equal_states(copied(small.state_dict()), full.state_dict())


@functools.cache
def _trained(name: str) -> Any:
    """Train a model once, its shifts included; nobody may change it."""
    model = shrunk(name)
    train(model, [batch_for(model, name, seed=step) for step in range(STEPS)], optimizer=_fast)
    assert all(p.any() for n, p in model.named_parameters() if is_shift(n))
    return model.eval()


def _fast(parameters: Any) -> torch.optim.Optimizer:
    """Move far enough in three steps that a forgotten shift is seen."""
    return torch.optim.AdamW(parameters, lr=3e-2)


@every_model
def test_a_shift_that_was_trained_counts_in_the_loss(name: str) -> None:
    """The column of the rest stands for rows that have moved, as the merged model has them."""
    model = copy.deepcopy(_trained(name))
    merged = sv.restore(copy.deepcopy(model)).train()
    batch = batch_for(model, name)

    loss = model.train()(**batch).loss.item()

    assert loss == pytest.approx(merged(**batch).loss.item(), rel=LOSS_TOLERANCE)


@every_model
def test_evaluation_is_that_of_the_merged_and_the_saved_model(name: str, tmp_path: Path) -> None:
    """Logits over V in their own order, to the last bit, on tokens outside V′ too."""
    model = _trained(name)
    model.save_pretrained(tmp_path)
    merged = sv.restore(copy.deepcopy(model))
    loaded = HEADS[LANGUAGE_MODELS[name][0]].from_pretrained(tmp_path)
    batch = any_batch(name)

    with torch.no_grad():
        output, of_merged, of_loaded = model(**batch), merged(**batch), loaded(**batch)

    assert output.logits.shape[-1] == FULL_VOCAB_SIZE
    for expected in (of_merged, of_loaded):
        assert torch.equal(output.logits, expected.logits)
        assert torch.equal(output.loss, expected.loss)


@pytest.mark.parametrize("name", GENERATING)
def test_generation_is_that_of_the_merged_model(name: str) -> None:
    """Prompts and generated tokens may lie outside V′."""
    model = _trained(name)
    merged = sv.restore(copy.deepcopy(model))
    prompt = {key: value[:2] for key, value in any_batch(name).items() if key != "labels"}

    generated, expected = (
        m.generate(**prompt, max_new_tokens=6, do_sample=False) for m in (model, merged)
    )

    assert torch.equal(generated, expected)


def _groups(state_dict: dict[str, Tensor]) -> set[frozenset[str]]:
    """Give the names that stand for one tensor."""
    names: dict[int, set[str]] = {}
    for name, tensor in state_dict.items():
        names.setdefault(tensor.data_ptr(), set()).add(name)
    return {frozenset(group) for group in names.values()}


@every_model
def test_a_checkpoint_has_the_names_and_ties_of_the_whole_model(name: str, tmp_path: Path) -> None:
    """Nobody sees from a saved model that it was shrunk: one tensor where the model ties."""
    full, small = whole(name), _trained(name)
    files = []
    for model, folder in ((full, tmp_path / "full"), (small, tmp_path / "small")):
        model.save_pretrained(folder)
        with safe_open(folder / "model.safetensors", "pt") as file:
            files.append({key: file.get_slice(key).get_shape() for key in file.keys()})  # noqa: SIM118

    assert files[1] == files[0]
    assert _groups(small.state_dict()) == _groups(full.state_dict())


@pytest.mark.parametrize("autocast", [False, True], ids=["weights", "autocast"])
@every_model
def test_in_bfloat16_the_loss_is_as_exact_as_the_whole_models(name: str, autocast: bool) -> None:
    """Each is compared with single precision; the log-sum-exp itself must add no error.

    A logit is rounded by up to 2⁻⁹ of its size, and the hidden states behind it likewise. The
    loss, a mean of logits less a log-sum-exp of them, may be off by that much of its own size,
    twice over; or by as much again as the whole model's is.
    """
    dtype = torch.float32 if autocast else torch.bfloat16
    full, small = whole(name, dtype), shrunk(name, dtype)
    batch = batch_for(small, name)
    with torch.no_grad():
        exact = whole(name).to(dtype).float()(**batch).loss.item()

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = small(**batch)
        theirs = full(**batch).loss.item()
    output.loss.backward()

    allowed = max(2 * abs(theirs - exact), HALF_PRECISION * exact)
    assert abs(output.loss.item() - exact) <= allowed
    assert all(gradient.isfinite().all() for gradient in gradients_of(small).values())
