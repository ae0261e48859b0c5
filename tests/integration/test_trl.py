"""Whole runs of TRL's trainers: losses and what is logged, with E′ as with E."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import numpy as np
import torch
import trl

import subvocab as sv
from subvocab.integrations import trl as integration
from tests.pages import python_blocks, run_block
from tests.trl_runs import (
    FULL,
    IGNORED_WARNINGS,
    arguments,
    assert_close,
    different_letters,
    history,
    loaded,
    lora,
    model,
    rows,
    tokenizer,
    two_histories,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick"),
    pytest.mark.filterwarnings(*IGNORED_WARNINGS),
]


def sft(folder: Path, kind: str = "text", *, trained: Any = None, **options: Any) -> Any:
    """Make an SFTTrainer."""
    config = options.pop("peft_config", None)
    return trl.SFTTrainer(
        model=trained or model(),
        args=trl.SFTConfig(**arguments(folder, **options)),
        train_dataset=rows(kind),
        eval_dataset=rows(kind, seed=1),
        processing_class=tokenizer(),
        peft_config=config,
    )


EVERY_TOKEN = sv.PartialVocabulary(np.arange(FULL), FULL)


@pytest.mark.filterwarnings("ignore:The partial vocabulary holds:UserWarning")
@pytest.mark.parametrize("options", [{}, {"packing": True, "max_length": 32}], ids=str)
@pytest.mark.parametrize("head", ["tied", "untied", "whole"])
def test_equal_bit_for_bit_where_no_logit_is_missing(
    head: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """With all of V in V′, or a head that stays whole: logs, evaluation and weights."""

    def make() -> Any:
        return sft(tmp_path, trained=model(tied=head == "tied"), **options)

    whole, small = make(), make()
    if head == "whole":
        sv.shrink_trainer(small, head="whole")
    else:
        sv.shrink_trainer(small, EVERY_TOKEN)

    assert history(small) == history(whole)
    ours, theirs = small.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


SFT: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("text", {}),
    "completion only": ("completion", {}),
    "assistant only": ("chat", {"assistant_only_loss": True}),
    "packing": ("text", {"packing": True, "max_length": 32}),
    "wrapped packing": ("text", {"packing": True, "packing_strategy": "wrapped", "max_length": 32}),
    "padding-free": ("text", {"padding_free": True, "max_length": None}),
    "dft": ("text", {"loss_type": "dft"}),
    "bfloat16": ("chat", {"bf16": True}),
    "smoothed labels": ("text", {"label_smoothing_factor": 0.1}),
    "accumulation": ("text", {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}),
}


@pytest.mark.parametrize("case", SFT)
def test_sft_logs_what_it_does_without(case: str, tmp_path: Path) -> None:
    """At equal weights the loss, the entropy and the accuracy are those over all of V."""
    kind, options = SFT[case]

    whole, small = two_histories(lambda: sft(tmp_path, kind, **options))

    assert whole[0]["mean_token_accuracy"] > 0
    grad_norm = {"grad_norm": whole[0]["grad_norm"]}  # that of the shift is in ours
    assert_close(small[0] | grad_norm, whole[0], rel=1e-5 if options.get("bf16") else 1e-6)
    for ours, theirs in zip(small, whole, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours.get("num_tokens") == theirs.get("num_tokens")
        for name in ("loss", "eval_loss"):
            assert ours.get(name, 0.0) == pytest.approx(theirs.get(name, 0.0), rel=2e-3)


@pytest.mark.filterwarnings("ignore")  # the compiler walks into code that warns
def test_compiled_sft_is_the_run_that_is_not_compiled(tmp_path: Path) -> None:
    """At every step; and at equal weights that of the whole model, which is compiled too."""
    torch.compiler.reset()
    options: dict[str, Any] = {"torch_compile": True, "torch_compile_backend": "aot_eager"}

    whole, small = two_histories(lambda: sft(tmp_path, **options))

    plain = sft(tmp_path)
    sv.shrink_trainer(plain)
    for ours, theirs in zip(small, history(plain), strict=True):
        assert_close(ours, theirs)
    assert_close(small[0] | {"grad_norm": whole[0]["grad_norm"]}, whole[0])


def test_sft_beside_lora_is_the_same_at_every_step(tmp_path: Path) -> None:
    """No row is trained, so the two runs keep equal weights: also gradients and evaluation."""
    whole, small = two_histories(lambda: sft(tmp_path, "chat", peft_config=lora()))

    for ours, theirs in zip(small, whole, strict=True):
        assert_close(ours, theirs, rel=2e-6)


def test_rows_are_trained_beside_lora(tmp_path: Path) -> None:
    """As modules to save."""
    config = {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}
    whole, small = two_histories(lambda: sft(tmp_path, "chat", peft_config=lora(**config)))

    assert small[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-6)
    assert small[-1]["eval_loss"] == pytest.approx(whole[-1]["eval_loss"], rel=2e-3)


def test_a_model_may_be_shrunk_before_its_trainer_is_made(tmp_path: Path) -> None:
    """With the same V′ it is the same run, to the last bit."""
    after = sft(tmp_path)
    sv.shrink_trainer(after)
    before = model()
    sv.shrink(before, sv.vocabulary_of(after.model))

    assert history(sft(tmp_path, trained=before)) == history(after)


@pytest.mark.parametrize("first", [False, True])
def test_a_restored_model_goes_on_with_its_trainer(tmp_path: Path, *, first: bool) -> None:
    """The fused loss computes with the whole head again, whichever came first."""
    trained = model()
    shrunk = sv.shrink(trained, sv.PartialVocabulary(np.arange(320), FULL)) if first else None
    trainer = sft(tmp_path, trained=trained)
    with shrunk or sv.shrink_trainer(trainer):
        trainer.train()
        small = trainer.evaluate()["eval_loss"]

    assert trainer.evaluate()["eval_loss"] == pytest.approx(small, rel=1e-6)
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[5, 6, 7]])}
    plain = trainer.model.train()(**batch).loss.item()
    fused = trainer.model(**batch, fused_lm_head=True).loss.item()
    assert fused == pytest.approx(plain, rel=1e-6)


def test_a_copy_scores_with_its_own_head(tmp_path: Path) -> None:
    """A forward on the instance is copied with the model."""
    trainer = sft(tmp_path)
    sv.shrink_trainer(trainer)
    twin = copy.deepcopy(trainer.model)
    with torch.no_grad():
        trainer.model.lm_head.weight.zero_()
    ids = torch.tensor([[300, 301, 302]])

    scored = twin.eval()(input_ids=ids, labels=ids, fused_lm_head=True)
    emptied = trainer.model.eval()(input_ids=ids, labels=ids, fused_lm_head=True)

    assert not torch.equal(scored.log_probs, emptied.log_probs)


@pytest.mark.filterwarnings("ignore")  # the compiler walks into code that warns
def test_a_compiled_copy_scores_with_its_own_head(tmp_path: Path) -> None:
    """What was compiled for one head is never run for another."""
    torch.compiler.reset()
    trainer = sft(tmp_path)
    sv.shrink_trainer(trainer)
    both = [trainer.model.eval(), copy.deepcopy(trainer.model).eval()]
    with torch.no_grad():
        both[0].lm_head.weight.zero_()
    ids = torch.tensor(sv.vocabulary_of(both[0]).token_ids[None, -3:])
    batch = {"input_ids": ids, "labels": ids, "fused_lm_head": True}
    plain = [one(**batch).log_probs for one in both]

    for one, expected in zip(both, plain, strict=True):
        compiled: Any = torch.compile(one, backend="eager")
        assert all(torch.equal(compiled(**batch).log_probs, expected) for _ in range(2))


def test_labels_outside_the_vocabulary_stop_training(tmp_path: Path) -> None:
    """Their rows are not there to be trained; in evaluation they are scored."""
    trainer = sft(tmp_path)
    sv.shrink_trainer(trainer, sv.PartialVocabulary(np.arange(280), FULL))
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[5, 6, 300]])}

    with pytest.raises(sv.OutOfVocabularyError, match="Labels must be tokens"):
        trainer.model.train()(**batch, fused_lm_head=True)
    with pytest.raises(sv.OutOfVocabularyError):
        trainer.train()

    assert trainer.state.global_step == 0
    assert trainer.model.eval()(**batch, fused_lm_head=True).loss > 0


def test_a_chat_template_that_resizes_comes_first(tmp_path: Path) -> None:
    """Then its new tokens are in V′; a shrunk model cannot take them."""
    template = tokenizer()
    template.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    template.save_pretrained(tmp_path / "template")
    options = {"chat_template_path": str(tmp_path / "template")}

    trainer = sft(tmp_path, "chat", **options)
    sv.shrink_trainer(trainer)

    added = trainer.processing_class.convert_tokens_to_ids("<|user|>")
    assert added in sv.vocabulary_of(trainer.model).token_ids
    assert history(trainer)[0]["loss"] > 0
    small = model()
    sv.shrink(small, sv.PartialVocabulary(np.arange(280), FULL))
    with pytest.raises(sv.UnsupportedModelError, match="cannot be resized"):
        sft(tmp_path, "chat", trained=small, **options)


def test_an_unknown_trainer_is_refused() -> None:
    """It may multiply by the head's matrix itself, as distillation does."""
    trainer = object.__new__(trl.DistillationTrainer)

    with pytest.raises(sv.UnsupportedModelError, match="It is not known what `Distillation"):
        integration.prepare_trainer(trainer, EVERY_TOKEN, {})


class MyTrainer(trl.SFTTrainer):  # type: ignore[misc]
    """A trainer of a user's own."""


def test_a_trainer_of_ones_own_is_what_it_derives_from() -> None:
    """By the first class that TRL has made."""
    integration.prepare_trainer(object.__new__(MyTrainer), EVERY_TOKEN, {})


def test_the_page_runs(tmp_path: Path) -> None:
    """What `docs/trl.md` shows."""
    names: dict[str, Any] = {
        "model": loaded(tmp_path),
        "tokenizer": tokenizer(),
        "options": arguments(tmp_path),
        "dataset": rows("chat"),
        "preferences": rows("preference"),
        "prompts": rows("prompt"),
        "reward": different_letters,
        "texts": rows("prompt")["prompt"],
    }
    for program in python_blocks("docs/trl.md"):
        names["model"] = loaded(tmp_path)
        run_block(program, names)
