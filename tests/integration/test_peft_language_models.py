"""PEFT beside a language model on V′: its head is trained and saved as without it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

import subvocab as sv
from tests.models import language_batch
from tests.peft_models import (
    EVERY_ID,
    IGNORED_WARNINGS,
    USED,
    adapted,
    language_config,
    language_model,
    shrunk,
)
from tests.reference import ids_of, train

pytestmark = pytest.mark.filterwarnings(*IGNORED_WARNINGS)


def language_logits(model: Any) -> torch.Tensor:
    """Evaluate a language model on tokens of all of V."""
    batch = language_batch("llama", EVERY_ID)
    del batch["labels"]
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    assert isinstance(logits, torch.Tensor)
    return logits


HEADS = [
    pytest.param(tied, names, tie, id=f"{'tied' if tied else 'untied'}-{'+'.join(names)}-{tie}")
    for tied in (True, False)
    for names in (["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"])
    for tie in ((False, True) if tied else (False,))
]


@pytest.mark.parametrize("order", ["shrink first", "PEFT first"])
@pytest.mark.parametrize(("tied", "names", "tie"), HEADS)
def test_a_head_is_trained_beside_an_adapter(
    tied: bool, names: list[str], tie: bool, order: str, tmp_path: Path
) -> None:
    """Loss and gradients of the whole softmax; what is saved is what was evaluated."""
    config = language_config(names, tie=tie)
    whole = adapted(language_model(tied=tied), config).train()
    if order == "shrink first":
        model = adapted(shrunk(language_model(tied=tied)), config).train()
    else:
        model = shrunk(adapted(language_model(tied=tied), config)).train()
    batch = language_batch("llama", USED)

    expected, output = whole(**batch).loss, model(**batch)
    expected.backward()
    output.loss.backward()

    assert output.logits.shape[-1] == len(sv.vocabulary_of(model)) + 1
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert_close_gradients(model, whole)
    train(model, [language_batch("llama", USED, seed=step) for step in range(2)])
    model.save_pretrained(tmp_path)
    logits = language_logits(model)
    plain = peft.PeftModel.from_pretrained(language_model(tied=tied), tmp_path)
    small = peft.PeftModel.from_pretrained(shrunk(language_model(tied=tied)), tmp_path)
    assert torch.equal(language_logits(plain), logits)
    assert torch.equal(language_logits(small), logits)
    with model.disable_adapter():
        assert torch.equal(language_logits(model), language_logits(language_model(tied=tied)))
    unloaded = copy.deepcopy(model).merge_and_unload()
    merged = plain.merge_and_unload()
    assert torch.equal(language_logits(unloaded), language_logits(merged))
    assert torch.equal(language_logits(sv.restore(unloaded)), language_logits(merged))
    assert torch.equal(language_logits(sv.restore(model)), logits)


def assert_close_gradients(model: nn.Module, whole: nn.Module) -> None:
    """Compare gradients of the rows of V′ and of all else; the rest shift is nobody else's."""
    theirs = {n: p.grad for n, p in whole.named_parameters() if p.requires_grad}
    ours = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    used = ids_of(sv.vocabulary_of(model))
    assert {name for name in ours if "rest_shift" not in name} == theirs.keys()
    assert all(gradient is not None for gradient in ours.values())  # DDP waits for each
    for name, gradient in theirs.items():
        assert gradient is not None
        mine = ours[name]
        assert mine is not None
        expected = gradient if gradient.shape == mine.shape else gradient[used]
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def test_prompts_are_trained_before_a_language_model() -> None:
    """Whose embedding PEFT looks for by the height of V."""
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    whole = adapted(language_model(tied=True), config).train()
    model = adapted(shrunk(language_model(tied=True)), config).train()

    for one in (whole, model):
        one(**language_batch("llama", USED)).loss.backward()

    gradients = [one.prompt_encoder["default"].embedding.weight.grad for one in (model, whole)]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert torch.equal(language_logits(model), language_logits(whole))
