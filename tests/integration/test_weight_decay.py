"""Weight decay on the embedding: merging does to the unused rows what full fine-tuning does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import subvocab as sv
from subvocab.cli.app import app
from subvocab.errors import CheckpointError
from subvocab.model.checkpoint import DESCRIPTION_FILE
from tests.reference import assert_equal_states, copied
from tests.trainer_runs import IGNORED_WARNINGS, VOCABULARY, trainer_of, whole

DECAY: dict[str, Any] = {"weight_decay": 0.1, "save_strategy": "steps", "save_steps": 4}

pytestmark = [
    pytest.mark.filterwarnings(*IGNORED_WARNINGS),
    pytest.mark.filterwarnings("ignore:Weight decay of 0.1 falls on the embedding"),
]


def partial_run(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """Train on the rows of V′ with decay and compact checkpoints; give the base's folder."""
    model = whole("bert").to(dtype)
    model.save_pretrained(folder / "base")
    sv.shrink(model, VOCABULARY)
    trainer_of(model, folder / "out", watch={"compact": True}, **DECAY, **options).train()
    return folder / "base"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused"])
def test_a_merged_model_is_that_of_full_fine_tuning(
    optimizer: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Every weight and every row, used or not, bit for bit; the learning rate falls meanwhile."""
    full = whole("bert").to(dtype)
    trainer_of(full, tmp_path / "full", **DECAY, optim=optimizer).train()
    base = partial_run(tmp_path, dtype, optim=optimizer)

    sv.merge(
        tmp_path / "out" / "checkpoint-12",
        base=base,
        out=tmp_path / "merged",
        replay_weight_decay=True,
    )

    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert_equal_states(merged, copied(full.state_dict()))


def test_a_resumed_run_remembers_the_steps_before(tmp_path: Path) -> None:
    """What was noted stands in the checkpoint too."""
    base = partial_run(tmp_path)
    noted = tmp_path / "out" / "checkpoint-12" / DESCRIPTION_FILE
    decays = json.loads(noted.read_text(encoding="utf-8"))["decays"]
    noted.unlink()
    model = sv.from_pretrained(type(whole("bert")), base, VOCABULARY)
    trainer = trainer_of(model, tmp_path / "out", watch={"compact": True}, **DECAY)

    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-8"))

    assert len(decays) == 12
    assert decays == sorted(decays, reverse=True)
    assert json.loads(noted.read_text(encoding="utf-8"))["decays"] == decays


def test_steps_may_be_given(tmp_path: Path) -> None:
    """By those who train with a loop of their own."""
    model = whole("bert")
    model.save_pretrained(tmp_path / "base")
    name = "bert.embeddings.word_embeddings.weight"
    expected = model.state_dict()[name].clone().mul_(1 - 0.25).mul_(1 - 0.125)
    sv.shrink(model, VOCABULARY)
    sv.save_compact(model, tmp_path / "small")

    sv.merge(
        tmp_path / "small",
        base=tmp_path / "base",
        out=tmp_path / "merged",
        replay_weight_decay=[0.25, 0.125],
    )

    merged = load_file(tmp_path / "merged" / "model.safetensors")[name]
    unused = torch.ones(len(merged), dtype=torch.bool)
    unused[torch.tensor(sv.vocabulary_of(model).token_ids)] = False
    assert torch.equal(merged[unused], expected[unused])
    assert not torch.equal(merged[~unused], expected[~unused])


def test_without_notes_there_is_nothing_to_replay(tmp_path: Path) -> None:
    """And the message says what to give instead."""
    model = whole("bert")
    model.save_pretrained(tmp_path / "base")
    sv.shrink(model, VOCABULARY)
    sv.save_compact(model, tmp_path / "small")
    arguments = [str(tmp_path / "small"), "--base", str(tmp_path / "base")]

    with pytest.raises(CheckpointError, match="notes no steps to replay"):
        sv.merge(
            tmp_path / "small",
            base=tmp_path / "base",
            out=tmp_path / "out",
            replay_weight_decay=True,
        )
    done = CliRunner().invoke(
        app, ["merge", *arguments, "--out", str(tmp_path / "out"), "--replay-weight-decay"]
    )

    assert done.exit_code == 2
    assert "learning rate times the weight decay of each step" in done.stderr
    assert not (tmp_path / "out").exists()
