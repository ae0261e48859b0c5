"""What a loss is given of a shrunk language model: labels of V′ and, if it asks, all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.trainer_pt_utils import LabelSmoother

import subvocab as sv
from subvocab.model.language_model import partial_heads
from tests.models import LANGUAGE_MODELS, tiny_config
from tests.properties.twins import (
    LOSS_TOLERANCE,
    assert_equal_gradients,
    batch_for,
    every_model,
    shrunk,
    whole,
)
from tests.reference import drawn_vocabulary, ids_of, unused_ids

CAUSAL = [name for name, (head, _) in LANGUAGE_MODELS.items() if head == "causal-lm"]


def with_decoder_inputs(batch: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Take the labels away; an encoder-decoder is given what it would have made of them."""
    rest = {key: value for key, value in batch.items() if key != "labels"}
    if LANGUAGE_MODELS[name][0] == "seq2seq-lm":
        rest["decoder_input_ids"] = batch["labels"].clamp(min=0).roll(1, dims=1)
    return rest


@every_model
def test_without_labels_losses_of_ones_own_see_the_whole_vocabulary(name: str) -> None:
    """Label smoothing, and any other loss that takes logits of width |V|."""
    full, small = whole(name), shrunk(name)
    batch = batch_for(small, name)
    inputs = with_decoder_inputs(batch, name)

    losses = []
    for model in (full, small):
        logits = model(**inputs).logits
        smooth = LabelSmoother(epsilon=0.1)(
            {"logits": logits}, batch["labels"], shift_labels=name in CAUSAL
        )
        loss = smooth + logits.float().softmax(-1)[..., ::7].square().sum()
        loss.backward()
        losses.append(loss.item())

    assert losses[1] == pytest.approx(losses[0], rel=LOSS_TOLERANCE)
    assert_equal_gradients(small, full)


@pytest.mark.parametrize("name", CAUSAL)
def test_the_number_of_items_in_a_batch_is_taken_into_account(name: str) -> None:
    """Trainer divides a loss by the tokens of all accumulated batches."""
    full, small = whole(name), shrunk(name)
    batch = batch_for(small, name)

    expected = full(**batch, num_items_in_batch=torch.tensor(17)).loss.item()

    assert expected != pytest.approx(full(**batch).loss.item())
    assert small(**batch, num_items_in_batch=torch.tensor(17)).loss.item() == pytest.approx(
        expected, rel=LOSS_TOLERANCE
    )


@every_model
def test_restricted_is_the_cross_entropy_over_the_columns_of_v_prime(name: str) -> None:
    """The head measures what it leaves out."""
    full, small = whole(name), shrunk(name, head="restricted")
    token_ids = ids_of(sv.vocabulary_of(small))
    batch = batch_for(small, name)
    labels = batch["labels"]
    with torch.no_grad():
        logits = full(**batch).logits.float()
    mass = 1 - logits.softmax(-1)[..., token_ids].sum(-1).mean().item()
    logits = logits[..., token_ids]
    if name in CAUSAL:
        logits, labels = logits[:, :-1], labels[:, 1:]
    predicted = labels != -100
    targets = torch.searchsorted(token_ids, labels[predicted])

    loss = small(**batch).loss.item()

    expected = nn.functional.cross_entropy(logits[predicted], targets).item()
    assert loss == pytest.approx(expected, rel=LOSS_TOLERANCE)
    (head,) = partial_heads(small)
    assert head.ignored_mass == pytest.approx(mass, abs=1e-4)


@every_model
def test_a_label_outside_v_prime_is_named(name: str) -> None:
    """Its row is frozen: no loss could train it."""
    model = shrunk(name)
    batch = batch_for(model, name)
    missing = int(unused_ids(sv.vocabulary_of(model))[0])
    labels = batch["labels"].clone()
    labels[0, 3] = missing
    inputs = with_decoder_inputs(batch, name)

    message = f"Labels must be .* 1 token id is not in .*: {missing}\\."
    with pytest.raises(sv.OutOfVocabularyError, match=message) as error:
        model(**inputs, labels=labels)

    assert error.value.token_ids == (missing,)


class _LoudLlama(hf.LlamaForCausalLM):
    """Does to its logits what nobody knows of."""

    factor, summand = 1.5, 0.0

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **kwargs: Any) -> Any:
        """Compute the loss on changed logits."""
        logits = super().forward(input_ids, **kwargs).logits * self.factor + self.summand
        vocab_size = self.config.vocab_size
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits)


@pytest.mark.parametrize(("factor", "summand"), [(1.5, 0.0), (1.0, 2.0)])
def test_a_model_that_changes_its_logits_in_an_unknown_way_is_refused(
    factor: float, summand: float
) -> None:
    """The change would have to come before the log-sum-exp."""
    model = _LoudLlama(tiny_config("llama"))
    model.factor, model.summand = factor, summand
    sv.shrink(model.train(), drawn_vocabulary())

    with pytest.raises(sv.UnsupportedModelError, match="`_LoudLlama` changes the logits after its"):
        model(**batch_for(model, "llama"))


class _SilentLlama(hf.LlamaForCausalLM):
    """Does so, and keeps it to itself."""

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **kwargs: Any) -> Any:
        """Return the loss alone."""
        logits = super().forward(input_ids, **kwargs).logits * 1.5
        return (self.loss_function(logits, labels, vocab_size=self.config.vocab_size),)


def test_a_model_that_hides_its_logits_is_refused() -> None:
    """Nobody could see whether the loss is that of the head's logits."""
    model = _SilentLlama(tiny_config("llama")).train()
    sv.shrink(model, drawn_vocabulary())

    with pytest.raises(sv.UnsupportedModelError, match="does not return them"):
        model(**batch_for(model, "llama"))


@pytest.mark.parametrize("name", ["llama", "cohere", "gemma2"])
def test_a_loss_function_of_ones_own_gets_whole_logits(name: str) -> None:
    """It may do anything with them, so it sees what it would see of the whole model."""
    full, small = whole(name), shrunk(name)
    batch = batch_for(small, name)
    seen = []

    def loss_function(logits: Tensor, labels: Tensor, *_: Any, **__: Any) -> Tensor:
        seen.append((logits.detach(), labels))
        return logits.float().pow(2).mean()

    for model in (full, small):
        model.loss_function = loss_function
        model(**batch).loss.backward()

    assert torch.equal(seen[1][0], seen[0][0])
    assert torch.equal(seen[1][1], batch["labels"])
    assert_equal_gradients(small, full)
