"""Whole runs of TRL's trainers on preferences: with E′ as with E, references included."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import torch
import transformers as hf
import trl

import subvocab as sv
from tests.trl_runs import (
    IGNORED_WARNINGS,
    arguments,
    assert_close,
    history,
    loaded,
    lora,
    rows,
    tokenizer,
    two_histories,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick"),
    pytest.mark.filterwarnings(*IGNORED_WARNINGS),
]


def dpo(folder: Path, kind: str = "preference", *, reference: Any = None, **options: Any) -> Any:
    """Make a DPOTrainer."""
    config = options.pop("peft_config", None)
    return trl.DPOTrainer(
        model=loaded(folder),
        ref_model=reference,
        args=trl.DPOConfig(**arguments(folder, **options)),
        train_dataset=rows(kind),
        eval_dataset=rows(kind, seed=1),
        processing_class=tokenizer(),
        peft_config=config,
    )


DPO: dict[str, tuple[str, dict[str, Any]]] = {
    "reference from disk": ("preference", {}),
    "reference of one's own": ("preference", {"reference": True}),
    "bfloat16": ("chat preference", {"bf16": True}),
    "weighting": ("preference", {"use_weighting": True}),
    "ipo": ("preference", {"loss_type": "ipo", "ld_alpha": 0.5}),
    "sync": ("preference", {"sync_ref_model": True, "ref_model_sync_steps": 1}),
}


@pytest.mark.parametrize("case", DPO)
def test_dpo_logs_what_it_does_without(case: str, tmp_path: Path) -> None:
    """Rewards, log-probabilities, mean logits, entropy, accuracy; the reference shares the rows."""
    kind, options = DPO[case]
    made: list[Any] = []

    def make() -> Any:
        own = {"reference": loaded(tmp_path)} if options.get("reference") else {}
        made.append(dpo(tmp_path, kind, **options | own))
        return made[-1]

    whole, small = two_histories(make)

    assert whole[0]["logps/chosen"] < 0 < whole[0]["mean_token_accuracy"]
    grad_norm = {"grad_norm": whole[0]["grad_norm"]}
    assert_close(small[0] | grad_norm, whole[0], rel=1e-5 if options.get("bf16") else 1e-6)
    assert small[-1]["eval_loss"] == pytest.approx(whole[-1]["eval_loss"], rel=5e-3)
    policy, reference = made[1].model, made[1].ref_model
    assert reference.lm_head.table.matrix is policy.lm_head.table.matrix
    held = [one.lm_head.frozen._rows.data_ptr() for one in (policy, reference)]
    assert held[0] == held[1]
    assert reference.lm_head.table.trains_on_frozen  # and would not mind unseen text
    assert reference.lm_head.weight.shape == policy.lm_head.weight.shape
    assert reference.lm_head.weight.data_ptr() != policy.lm_head.weight.data_ptr()


def test_a_reference_with_other_rows_keeps_them(tmp_path: Path) -> None:
    """It shares only what is the same."""
    other = loaded(tmp_path)
    with torch.no_grad():
        other.lm_head.weight[-1] += 1
    trainer = dpo(tmp_path, reference=copy.deepcopy(other))
    whole = dpo(tmp_path, reference=other)
    sv.shrink_trainer(trainer)

    ours, theirs = history(trainer), history(whole)

    assert trainer.ref_model.lm_head.table.matrix is not trainer.model.lm_head.table.matrix
    assert ours[0]["rewards/chosen"] != 0
    for name in ("loss", "rewards/chosen", "rewards/rejected"):
        assert ours[0][name] == pytest.approx(theirs[0][name], rel=1e-5, abs=2e-5)


def test_dpo_beside_lora_is_the_same_at_every_step(tmp_path: Path) -> None:
    """The reference is the model without its adapter."""
    whole, small = two_histories(lambda: dpo(tmp_path, peft_config=lora()))

    for ours, theirs in zip(small, whole, strict=True):
        for name in ("loss", "logps/chosen", "logits/chosen", "mean_token_accuracy", "eval_loss"):
            assert ours.get(name, 0.0) == pytest.approx(theirs.get(name, 0.0), rel=2e-6)


def test_reference_scores_may_be_computed_beforehand(tmp_path: Path) -> None:
    """They are made while the model is whole, and no reference is kept."""
    whole, small = two_histories(lambda: dpo(tmp_path, precompute_ref_log_probs=True))

    assert small[0]["loss"] == pytest.approx(whole[0]["loss"], rel=5e-6)
    assert small[0]["logps/chosen"] == pytest.approx(whole[0]["logps/chosen"], rel=1e-6)
    assert small[-1]["eval_loss"] == pytest.approx(whole[-1]["eval_loss"], rel=2e-3)


def test_kto_and_reward_trainers_log_what_they_do_without(tmp_path: Path) -> None:
    """A reward model has no head over tokens, so its run is equal bit for bit."""

    def kto() -> Any:
        return trl.KTOTrainer(
            model=loaded(tmp_path),
            args=trl.KTOConfig(**arguments(tmp_path)),
            train_dataset=rows("label"),
            processing_class=tokenizer(),
        )

    def reward() -> Any:
        torch.manual_seed(0)
        judge = hf.LlamaForSequenceClassification(loaded(tmp_path).config)
        judge.config.num_labels = 1
        judge.score = torch.nn.Linear(32, 1, bias=False)
        return trl.RewardTrainer(
            model=judge,
            args=trl.RewardConfig(**arguments(tmp_path)),
            train_dataset=rows("preference"),
            processing_class=tokenizer(),
        )

    whole, small = two_histories(kto)
    judged, judged_small = two_histories(reward)

    assert_close(small[0] | {"grad_norm": whole[0]["grad_norm"]}, whole[0])
    assert judged_small == judged


def test_a_restricted_softmax_is_no_match_for_a_reference(tmp_path: Path) -> None:
    """Their log-probabilities are of different things."""
    trainer = dpo(tmp_path)

    with pytest.raises(sv.UnsupportedModelError, match="which a restricted softmax does not have"):
        sv.shrink_trainer(trainer, head="restricted")
