"""Loops that people write themselves, plain or with Accelerate: with E′ as with E."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

import subvocab as sv
from subvocab.integrations.loops import VocabularyState
from tests.models import (
    language_batch,
    random_batch,
    tiny_language_model,
    tiny_model,
)
from tests.pages import python_blocks, run_block
from tests.reference import (
    CLIP,
    OPTIMIZERS,
    assert_equal_states,
    copied,
    drawn_vocabulary,
    ids_of,
    loss_of,
)

VOCABULARY = drawn_vocabulary().union([1, 2])
USED = ids_of(VOCABULARY)
STEPS = 4


class Loop:
    """A model, its optimizer, a schedule and a scaler, as in the tutorials."""

    def __init__(
        self, name: str = "bert", vocabulary: Any = VOCABULARY, *, lr: float = 1e-3
    ) -> None:
        predicts = name == "gpt2"
        self.model = tiny_language_model(name) if predicts else tiny_model(name, pad_token_id=0)
        self.batches: list[Any] = [
            language_batch(name, USED, seed=seed)
            if predicts
            else random_batch(self.model, USED, seed=seed)
            for seed in range(2 * STEPS)
        ]
        if vocabulary is not None:
            sv.shrink(self.model, vocabulary)
        self.optimizer = OPTIMIZERS["adamw-fused"](self.model.parameters())
        self.optimizer.param_groups[0]["lr"] = lr
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimizer, total_iters=STEPS)

    def run(self, first: int = 0, last: int = STEPS) -> list[tuple[float, float]]:
        """Train on some batches; give losses and norms."""
        seen = []
        self.model.train()
        torch.manual_seed(first)
        for batch in self.batches[first:last]:
            loss = loss_of(self.model(**batch))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            seen.append((loss.item(), norm.item()))
        return seen

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state["schedule"] = self.schedule.state_dict()
        state["vocabulary"] = VocabularyState(self.model, self.optimizer).state_dict()
        torch.save(state, path)

    def load(self, path: Path) -> None:
        """Read one."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        VocabularyState(self.model, self.optimizer).load_state_dict(state["vocabulary"])


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_loop_is_equal(family: str) -> None:
    """Losses, norms, weights, under a clip that bites and a schedule."""
    whole, ours = Loop(family, None), Loop(family)

    assert ours.run() == whole.run()
    assert_equal_states(copied(ours.model.state_dict()), whole.model.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_is_equal(dtype: torch.dtype) -> None:
    """Autocast, and the scaler that half precision needs."""
    results = []
    for vocabulary in (None, VOCABULARY):
        loop = Loop("bert", vocabulary)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        losses = []
        torch.manual_seed(0)
        loop.model.train()
        for batch in loop.batches:
            with torch.autocast("cpu", dtype):
                loss = loss_of(loop.model(**batch))
            scaler.scale(loss).backward()
            scaler.unscale_(loop.optimizer)
            nn.utils.clip_grad_norm_(loop.model.parameters(), CLIP)
            scaler.step(loop.optimizer)
            scaler.update()
            loop.optimizer.zero_grad()
            losses.append(loss.item())
        results.append((losses, copied(loop.model.state_dict())))

    assert results[1][0] == results[0][0]
    assert_equal_states(results[1][1], results[0][1])


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_resumed_loop_is_equal(name: str, tmp_path: Path) -> None:
    """As if it had not been interrupted: the rest shift of a head is taken out of the rows."""
    ours, again = Loop(name), Loop(name)
    ours.run()
    ours.save(tmp_path / "state.pt")
    expected = ours.run(STEPS, 2 * STEPS)

    again.load(tmp_path / "state.pt")

    assert again.run(STEPS, 2 * STEPS) == expected
    assert_equal_states(copied(again.model.state_dict()), copied(ours.model.state_dict()))


@pytest.mark.parametrize("size", [len(VOCABULARY), 30])
def test_resuming_with_another_vocabulary_is_refused(size: int, tmp_path: Path) -> None:
    """Of the same size too, where no shape tells."""
    ours = Loop()
    ours.run()
    ours.save(tmp_path / "state.pt")
    token_ids = np.append(0, np.arange(300 - size + 1, 300))
    other = Loop(vocabulary=sv.PartialVocabulary(token_ids, 300).union([1, 2]))

    with pytest.raises(sv.VocabularyMismatchError, match="made with the partial vocabulary"):
        other.load(tmp_path / "state.pt")


def test_a_state_belongs_to_a_shrunk_model() -> None:
    """There is nothing to compare in another."""
    loop = Loop(vocabulary=None)

    with pytest.raises(sv.UnsupportedModelError, match="has no partial embedding"):
        VocabularyState(loop.model, loop.optimizer)


def test_the_whole_state_loads_into_a_whole_model(tmp_path: Path) -> None:
    """A plain script goes on from there."""
    ours, whole = Loop(), tiny_model("bert", seed=1)
    ours.run()
    ours.save(tmp_path / "state.pt")

    whole.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True)["model"])

    assert_equal_states(copied(ours.model.state_dict()), whole.state_dict())


def test_an_optimizer_that_was_made_before_is_refused() -> None:
    """It would go on training the whole matrix."""
    model = tiny_model("bert")
    optimizer = torch.optim.AdamW(model.parameters())

    with pytest.raises(sv.UnsupportedModelError, match="Make the optimizer after the model"):
        sv.shrink(model, VOCABULARY)

    assert optimizer.param_groups


def test_the_page_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snippets run one after another, from a model on disk."""
    tiny_model("bert").save_pretrained(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    ids = USED[torch.randint(len(USED), (16, 8), generator=torch.Generator().manual_seed(0))]
    dataset = [{"input_ids": row, "labels": i % 2} for i, row in enumerate(ids)]
    names: dict[str, Any] = {"dataset": dataset}

    for block in python_blocks("docs/pytorch.md"):
        run_block(block, names)

    expected = {"out": names["saved"]["model"], "accelerated": copied(names["model"].state_dict())}
    for folder, state in expected.items():
        saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / folder)
        assert_equal_states(saved.state_dict(), state)
