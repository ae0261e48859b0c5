"""Tests of what can be chosen for an output head; what it computes stands in properties."""

from __future__ import annotations

import copy
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import subvocab as sv
from subvocab.model.head import STEPS_BETWEEN_LOOKS, PartialHead
from subvocab.model.language_model import partial_heads
from tests.models import FULL_VOCAB_SIZE, random_batch, tiny_model
from tests.reference import drawn_vocabulary, ids_of

VOCABULARY = drawn_vocabulary()


def shrunk(**options: Any) -> Any:
    """Make a small language model, ready to train."""
    model = tiny_model("llama", "causal-lm", tie_word_embeddings=True)
    return sv.shrink(model, VOCABULARY, **options).model.train()


def batch_for(model: Any) -> dict[str, torch.Tensor]:
    """Draw tokens of V′, each of which is to be predicted."""
    batch = random_batch(model, ids_of(VOCABULARY), "causal-lm")
    return batch | {"labels": batch["input_ids"]}


def losses(model: Any, steps: int = 3) -> list[float]:
    """Train a few steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    taken = []
    for _ in range(steps):
        loss = model(**batch_for(model)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(loss.item())
    return taken


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_rows_may_stay_elsewhere(place: Any) -> None:
    """The same training, from the host or from disk; in other parts, so not to the last bit."""
    assert losses(shrunk(rest_device=place)) == pytest.approx(losses(shrunk()), rel=1e-6)


def test_disk_keeps_no_rows() -> None:
    """That is what it is for."""
    model = shrunk(rest_device="disk")
    losses(model, 1)

    assert partial_heads(model)[0].frozen._rows is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "fast"}, "`head` is 'fast', expected one of 'exact', 'restricted', 'whole'."),
        (
            {"rest_device": "gpu"},
            "`rest_device` is 'gpu', expected None (beside the model), 'cpu' or 'disk'.",
        ),
        (
            {"out_of_vocabulary": "zero"},
            "`out_of_vocabulary` is 'zero', expected one of 'error', 'frozen'.",
        ),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    """Before the model is touched."""
    model = tiny_model("llama", "causal-lm")

    with pytest.raises(sv.UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.shrink(model, VOCABULARY, **options)

    assert model.get_input_embeddings().weight.shape[0] == FULL_VOCAB_SIZE


def test_a_whole_head_is_left_alone() -> None:
    """Untied: the look-up alone is partial, and the softmax ranges over V as ever."""
    whole = tiny_model("llama", "causal-lm", tie_word_embeddings=False)
    model = copy.deepcopy(whole)
    sv.shrink(model, VOCABULARY, head="whole")

    assert not partial_heads(model)
    assert type(model) is type(whole)
    assert torch.equal(model(**batch_for(whole)).loss, whole(**batch_for(whole)).loss)


def test_frozen_rows_may_be_trained_on() -> None:
    """A masked token that was replaced by one outside V′: read, not learned."""
    whole = tiny_model("bert", "masked-lm").eval()
    model = copy.deepcopy(whole)
    sv.shrink(model, VOCABULARY, out_of_vocabulary="frozen")
    vocabulary = sv.vocabulary_of(model)
    batch = random_batch(whole, torch.arange(FULL_VOCAB_SIZE), "masked-lm")
    known = vocabulary.contains(batch["input_ids"].numpy())
    batch["labels"] = batch["input_ids"].masked_fill(~torch.tensor(known), -100)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    loss = model.train()(**batch).loss
    loss.backward()

    assert not known.all()
    assert loss.item() == pytest.approx(whole(**batch).loss.item(), rel=1e-6)
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_restricted_heads_log_what_they_ignore(caplog: pytest.LogCaptureFixture) -> None:
    """Now and then, on a few tokens."""
    model = shrunk(head="restricted")
    (head,) = partial_heads(model)

    with caplog.at_level(logging.INFO, logger="subvocab"):
        losses(model, STEPS_BETWEEN_LOOKS + 1)

    assert head.ignored_mass is not None
    assert 0 < head.ignored_mass < 1
    assert len(caplog.messages) == 2
    outside = FULL_VOCAB_SIZE - len(sv.vocabulary_of(model))
    said = rf"ignores \d+\.\d\d % of the probability: that of the {outside} tokens outside"
    assert re.search(said, caplog.messages[0])


def test_evaluation_puts_the_matrix_together_once() -> None:
    """Generation asks for logits at every token."""
    model = shrunk().eval()
    batch = batch_for(model)
    (head,) = partial_heads(model)
    with torch.no_grad():
        first = model(**batch).logits
    whole = head._whole_weight

    with torch.no_grad():
        again = model(**batch).logits

    assert head._whole_weight is whole
    assert torch.equal(first, again)
    model.train()
    assert head._whole_weight is None


@pytest.mark.parametrize("change", ["rows", "shift", "state dict"])
def test_evaluation_notices_every_change(change: str) -> None:
    """A matrix of yesterday would give yesterday's logits."""
    model = shrunk().eval()
    batch = batch_for(model)
    with torch.no_grad():
        before = model(**batch).logits
        if change == "rows":
            model.get_input_embeddings().weight.add_(0.1)
        elif change == "shift":
            model.get_input_embeddings().rest_shift.add_(0.1)
        else:
            state = {name: tensor * 1.5 for name, tensor in model.state_dict().items()}
            model.load_state_dict(state)
        after = model(**batch).logits
        expected = sv.restore(copy.deepcopy(model))(**batch).logits

    assert not torch.equal(after, before)
    assert torch.equal(after, expected)


def test_a_fused_forward_is_noticed() -> None:
    """One that multiplies by the head's rows itself would see V′ alone."""
    model = shrunk()
    fused = type(model).whole_class.forward

    def forward(self: Any, input_ids: Any, labels: Any, **_: Any) -> Any:
        hidden = self.model(input_ids=input_ids).last_hidden_state
        logits = hidden @ self.lm_head.weight.T
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return hf.modeling_outputs.CausalLMOutput(loss=loss, logits=logits)

    type(model).whole_class.forward = forward
    try:
        with pytest.raises(sv.UnsupportedModelError, match="without calling its output head"):
            model(**batch_for(model))
    finally:
        type(model).whole_class.forward = fused


def test_the_shift_travels_in_compact_checkpoints_alone(tmp_path: Path) -> None:
    """A whole file has it in its rows; a compact one beside E′, and merging puts it there."""
    base = tiny_model("gpt2", "causal-lm")
    base.save_pretrained(tmp_path / "base")
    model = sv.from_pretrained(hf.AutoModelForCausalLM, tmp_path / "base", VOCABULARY).train()
    losses(model)
    shift = model.get_input_embeddings().rest_shift

    model.save_pretrained(tmp_path / "whole")
    sv.save_compact(model, tmp_path / "compact")
    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "merged", progress=False)

    assert shift.abs().sum() > 0
    states = [
        hf.AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("whole", "merged")
    ]
    assert states[0].keys() == states[1].keys() == base.state_dict().keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    unused = ~torch.isin(torch.arange(FULL_VOCAB_SIZE), ids_of(sv.vocabulary_of(model)))
    expected = base.transformer.wte.weight[unused] + shift
    assert torch.equal(states[0]["transformer.wte.weight"][unused], expected)

    again = sv.from_pretrained(hf.AutoModelForCausalLM, tmp_path / "base", VOCABULARY)
    again.load_state_dict(sv.compact_state_dict(model))
    assert torch.equal(again.get_input_embeddings().rest_shift, shift)


def test_a_head_is_one_of_the_partial_modules() -> None:
    """Its shift is the embedding's, so that one optimizer state moves both."""
    model = shrunk()

    assert isinstance(model.lm_head, PartialHead)
    assert model.lm_head.rest_shift is model.get_input_embeddings().rest_shift
    assert model.lm_head.out_features == len(sv.vocabulary_of(model))
    assert shrunk(rest_shift=False).lm_head.rest_shift is None
    assert shrunk(head="restricted").lm_head.rest_shift is None


def test_a_call_with_the_whole_matrix_is_refused() -> None:
    """Its columns are not those of V′, whatever the head is asked for."""
    (head,) = partial_heads(shrunk())
    hidden = torch.zeros(1, head.weight.shape[1])
    whole = {"weight": torch.zeros(FULL_VOCAB_SIZE, head.weight.shape[1])}

    with pytest.raises(sv.VocabularyMismatchError, match=r"^The weight has 300 rows, expected the"):
        torch.func.functional_call(head, whole, (hidden,))
