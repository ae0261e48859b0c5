"""Tests of what a language model over a partial head refuses, and of what it must not mind."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from accelerate.utils import convert_outputs_to_fp32

import subvocab as sv
from subvocab.model.language_model import partial_heads
from tests.models import FULL_VOCAB_SIZE, random_batch, tiny_model
from tests.reference import drawn_vocabulary, ids_of

VOCABULARY = drawn_vocabulary()


def shrunk(family: str = "llama", head: str = "causal-lm", **changes: Any) -> tuple[Any, Any]:
    """Make a model whole and shrunk, both ready to train, without dropout."""
    whole = tiny_model(family, head, tie_word_embeddings=True, **changes).train()
    for module in whole.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model = copy.deepcopy(whole)
    sv.shrink(model, VOCABULARY)
    return whole, model


def batch_for(model: Any, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw tokens of V′, each of which is to be predicted."""
    batch = random_batch(model, ids_of(VOCABULARY), "causal-lm", seed=seed)
    return batch | {"labels": batch["input_ids"]}


def fused(self: Any, input_ids: Any, labels: Any, **_: Any) -> Any:
    """Multiply by the head's rows, as fused losses do."""
    hidden = self.model(input_ids=input_ids).last_hidden_state
    return torch.nn.functional.linear(hidden, self.lm_head.weight), labels


def test_a_fused_forward_is_refused() -> None:
    """It would take rows of V′ for those of V, and labels as they are: wrong, and silent."""
    _, model = shrunk()
    message = (
        "`tests.unit.model.test_language_model` replaces the forward of `LlamaForCausalLM`, and "
        "would compute logits from the rows of the partial vocabulary with labels of the whole "
        "one. Switch its fused or chunked loss off, or call `subvocab.restore(model)` first."
    )

    with pytest.raises(sv.UnsupportedModelError, match=f"^{re.escape(message)}$"):
        model.forward = MethodType(fused, model)


def test_a_forward_that_was_replaced_before_is_refused() -> None:
    """A change of class does not reach it."""
    whole, _ = shrunk()
    whole.forward = MethodType(fused, whole)
    message = (
        "The forward of `LlamaForCausalLM` was replaced by one of "
        "`tests.unit.model.test_language_model`, which would pass by the partial vocabulary. "
        "Shrink the model first, then dispatch it over devices, wrap or patch it."
    )

    with pytest.raises(sv.UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.shrink(whole, VOCABULARY)


def test_a_wrapped_forward_is_welcome() -> None:
    """As accelerate wraps it for mixed precision."""
    whole, model = shrunk()
    model.forward = convert_outputs_to_fp32(model.forward)

    loss = model(**batch_for(model)).loss

    assert loss.item() == pytest.approx(whole(**batch_for(model)).loss.item(), rel=1e-6)


def test_resizing_is_refused() -> None:
    """New rows would be none of V′."""
    _, model = shrunk()

    with pytest.raises(sv.UnsupportedModelError, match="cannot be resized"):
        model.resize_token_embeddings(FULL_VOCAB_SIZE + 1)

    sv.restore(model).resize_token_embeddings(FULL_VOCAB_SIZE + 1)


class ScalesInPlace(hf.LlamaForCausalLM):
    """Changes the very tensor that its head made."""

    def forward(self, input_ids: Any, labels: Any = None, **_: Any) -> Any:
        """Compute a loss of other logits than the head's."""
        logits = self.lm_head(self.model(input_ids=input_ids).last_hidden_state)
        logits *= 1.5
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return hf.modeling_outputs.CausalLMOutput(loss=loss, logits=logits)


def test_logits_changed_in_place_are_noticed() -> None:
    """A comparison of the tensor with itself would not."""
    model = ScalesInPlace(tiny_model("llama", "causal-lm").config).train()
    sv.shrink(model, VOCABULARY)

    with pytest.raises(sv.UnsupportedModelError, match="changes the logits after its output head"):
        model(**batch_for(model))


def test_label_smoothing_inside_a_model_is_refused() -> None:
    """One column stands for many tokens."""
    _, model = shrunk(label_smoothing=0.1)

    with pytest.raises(sv.UnsupportedModelError, match=r"smooths its labels by 0\.1"):
        model(**batch_for(model))


def test_labels_without_a_loss_are_refused() -> None:
    """BERT's pretraining model wants two kinds of them."""
    torch.manual_seed(0)
    model = hf.BertForPreTraining(tiny_model("bert").config).train()
    sv.shrink(model, VOCABULARY)
    batch = batch_for(model)

    with pytest.raises(sv.UnsupportedModelError, match="computed no loss"):
        model(**batch)

    assert model(**batch, next_sentence_label=torch.zeros(4, dtype=torch.long)).loss > 0


def test_shifted_labels_alone_are_no_labels() -> None:
    """A model computes a loss only from `labels`; else its logits are those of V."""
    _, model = shrunk()
    batch = batch_for(model)
    shifted = batch.pop("labels")

    assert model(**batch, shift_labels=shifted).logits.shape[-1] == FULL_VOCAB_SIZE


def test_trying_out_leaves_caches_alone() -> None:
    """What a model does to logits is found out by running it; its cache would grow meanwhile."""
    torch.manual_seed(0)
    config = hf.Gemma2Config(
        vocab_size=FULL_VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    whole = hf.Gemma2ForCausalLM(config).train()
    model = copy.deepcopy(whole)
    sv.shrink(model, VOCABULARY)
    ids = batch_for(model)["input_ids"]

    losses = []
    for each in (whole, model):
        with torch.no_grad():
            cache = each(input_ids=ids[:, :4], use_cache=True).past_key_values
        output = each(input_ids=ids[:, 4:], labels=ids[:, 4:], past_key_values=cache)
        losses.append(output.loss.item())

    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_frozen_embedding_freezes_the_shift() -> None:
    """Who freezes the rows that are there does not want the others to move."""
    _, model = shrunk()
    model.get_input_embeddings().weight.requires_grad_(requires_grad=False)

    model(**batch_for(model)).loss.backward()

    assert model.get_input_embeddings().rest_shift.grad is None
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_threads_do_not_meet() -> None:
    """The head and the configuration hold a state while a loss is computed."""
    whole, model = shrunk()
    expected = [whole(**batch_for(whole, seed=seed)).loss.item() for seed in range(8)]
    found: dict[int, float] = {}

    def compute(seeds: range) -> None:
        for seed in seeds:
            found[seed] = model(**batch_for(model, seed=seed)).loss.item()

    threads = [threading.Thread(target=compute, args=(range(first, 8, 2),)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [found[seed] for seed in range(8)] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_evaluation_notices_a_change_that_leaves_no_count(guard: Callable[[], Any]) -> None:
    """Averages of weights are written to `.data`."""
    _, model = shrunk()
    model.eval()
    batch = batch_for(model)
    with guard():
        model(**batch)
    model.get_input_embeddings().weight.data.zero_()

    with guard():
        logits = model(**batch).logits

    assert not logits[..., ids_of(sv.vocabulary_of(model))].any()


def test_parameters_keep_their_order() -> None:
    """An optimizer's state goes by it."""
    model = tiny_model("deberta-v2", "masked-lm", legacy=False).train()
    sv.shrink(model, VOCABULARY)
    before = [name for name, _ in model.named_parameters()]

    model(**batch_for(model)).loss.backward()

    assert [name for name, _ in model.named_parameters()] == before


def test_a_model_with_adapters_shrinks() -> None:
    """The other way round than usual."""
    whole, _ = shrunk()
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    adapted = peft.get_peft_model(copy.deepcopy(whole), config)
    sv.shrink(adapted, VOCABULARY)

    loss = adapted.train()(**batch_for(whole)).loss

    assert loss.item() == pytest.approx(whole(**batch_for(whole)).loss.item(), rel=1e-6)


def test_compact_checkpoints_tell_which_base_they_need(tmp_path: Path) -> None:
    """After a whole checkpoint was loaded, with the shift in its rows, it is that one."""
    whole, model = shrunk()
    whole.save_pretrained(tmp_path / "base")
    for parameter in (model.get_input_embeddings().rest_shift,):
        parameter.data.fill_(0.1)
    model.save_pretrained(tmp_path / "checkpoint")
    auto_class = hf.AutoModelForCausalLM
    resumed = sv.from_pretrained(auto_class, tmp_path / "base", VOCABULARY)
    resumed.load_state_dict(auto_class.from_pretrained(tmp_path / "checkpoint").state_dict())

    with pytest.warns(UserWarning, match="Keep that checkpoint: `merge` needs it as the base"):
        sv.save_compact(resumed, tmp_path / "compact")

    base = tmp_path / "checkpoint"
    sv.merge(tmp_path / "compact", base=base, out=tmp_path / "merged", progress=False)
    merged = auto_class.from_pretrained(tmp_path / "merged").state_dict()
    assert all(torch.equal(merged[name], value) for name, value in model.state_dict().items())


def test_one_head_has_one_lock_that_copies_do_not_share() -> None:
    """A lock can be neither copied nor pickled, and is not in the way of either."""
    _, model = shrunk()
    batch = batch_for(model)
    loss = model(**batch).loss
    twin = copy.deepcopy(model)

    assert torch.equal(twin(**batch).loss, loss)
    assert partial_heads(twin)[0] is not partial_heads(model)[0]


@pytest.mark.parametrize("ignored", [-100, int(VOCABULARY.token_ids[-3]), len(VOCABULARY) - 3])
def test_an_ignored_label_is_an_id_of_v(ignored: int) -> None:
    """The loss of the whole model: the id is not compared with renumbered labels."""
    whole, model = shrunk()
    token_ids = torch.tensor(VOCABULARY.token_ids[-8:])[None]
    batch = {"input_ids": token_ids, "labels": token_ids, "ignore_index": ignored}

    expected = whole.train()(**batch).loss.item()

    assert model.train()(**batch).loss.item() == pytest.approx(expected, rel=1e-6)
