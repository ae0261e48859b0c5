"""Runs of TRL in which a model learns from what it writes, which may be any token of V."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import numpy as np
import transformers as hf
import trl

import subvocab as sv
from tests.trl_runs import (
    FULL,
    IGNORED_WARNINGS,
    arguments,
    assert_close,
    different_letters,
    loaded,
    rows,
    tokenizer,
    two_histories,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick"),
    pytest.mark.filterwarnings(*IGNORED_WARNINGS),
]


def grpo(folder: Path, **options: Any) -> Any:
    """Make a trainer whose model writes what it learns from."""
    return trl.GRPOTrainer(
        model=loaded(folder),
        reward_funcs=different_letters,
        args=trl.GRPOConfig(
            **arguments(folder, max_steps=2, num_generations=2, max_completion_length=6, beta=0.1),
            **options,
        ),
        train_dataset=rows("prompt"),
        processing_class=tokenizer(),
    )


def test_a_model_may_write_tokens_outside_the_vocabulary(tmp_path: Path) -> None:
    """GRPO samples over all of V; rows outside V′ are read and scored, but not trained."""
    prompts = sv.scan(rows("prompt")["prompt"], tokenizer=tokenizer(), progress=False)
    vocabulary = prompts.partial_vocabulary().resized(FULL)

    whole, small = two_histories(lambda: grpo(tmp_path), vocabulary, out_of_vocabulary="frozen")

    assert_close(small[0] | {"grad_norm": whole[0]["grad_norm"]}, whole[0], rel=1e-5)


def test_what_a_model_will_write_cannot_be_scanned(tmp_path: Path) -> None:
    """So it is asked for; and rows outside V′ must be allowed."""
    trainer = grpo(tmp_path)
    vocabulary = sv.PartialVocabulary(np.arange(280), FULL)

    with pytest.raises(sv.UnsupportedModelError, match="trains on what the model will write"):
        sv.shrink_trainer(trainer)
    with pytest.raises(sv.UnsupportedModelError, match="may write any of 600 tokens, not only"):
        sv.shrink_trainer(trainer, vocabulary)

    assert type(trainer.model) is hf.LlamaForCausalLM


def test_a_head_whose_forward_is_replaced_is_refused(tmp_path: Path) -> None:
    """It would multiply by E′ and sample from columns as if they were tokens."""
    small = loaded(tmp_path)
    sv.shrink(small, sv.PartialVocabulary(np.arange(280), FULL), out_of_vocabulary="frozen")
    options = arguments(tmp_path, num_generations=2, cast_lm_head_to_fp32=True)

    with pytest.raises(sv.UnsupportedModelError, match=r"`trl.trainer.grpo_trainer` replaces"):
        trl.GRPOTrainer(
            model=small,
            reward_funcs=different_letters,
            args=trl.GRPOConfig(**options),
            train_dataset=rows("prompt"),
            processing_class=tokenizer(),
        )
