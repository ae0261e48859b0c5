"""A loop of Accelerate, in one process or in two: with the whole model and with a shrunk one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, distributed
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification

import subvocab as sv
from subvocab.integrations.loops import VocabularyState
from tests.models import tiny_language_model, tiny_model
from tests.reference import CLIP, OPTIMIZERS, assert_equal_states, copied, drawn_vocabulary, ids_of
from tests.workers.launching import assert_ranks_agree, run_cases

VOCABULARY = drawn_vocabulary().union([1, 2])
USED = ids_of(VOCABULARY)
EVERY_SECOND = 2


def rows(name: str) -> list[dict[str, Tensor]]:
    """Make a dataset that suits the head."""
    generator = torch.Generator().manual_seed(0)
    ids = USED[torch.randint(len(USED), (32, 8), generator=generator)]
    labels = ids if name == "gpt2" else torch.arange(32) % 2
    return [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]


class Loop:
    """All that a script prepares, and what it saw."""

    def __init__(
        self, name: str, *, shrunk: bool = True, vocabulary: sv.PartialVocabulary = VOCABULARY
    ) -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=EVERY_SECOND)
        model = tiny_language_model(name) if name == "gpt2" else tiny_model(name)
        if shrunk:
            sv.shrink(model, vocabulary)
        optimizer = OPTIMIZERS["adamw-fused"](model.parameters())
        if shrunk:
            self.accelerator.register_for_checkpointing(VocabularyState(model, optimizer))
        self.model, self.optimizer, self.loader, self.schedule = self.accelerator.prepare(
            model,
            optimizer,
            DataLoader(rows(name), batch_size=2),  # type: ignore[arg-type]
            torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=8),
        )
        torch.manual_seed(distributed.get_rank())

    def epoch(self) -> list[tuple[float, float]]:
        """Train on every batch; give losses and norms."""
        seen = []
        self.model.train()
        for batch in self.loader:
            with self.accelerator.accumulate(self.model):
                loss = self.model(**batch).loss
                self.accelerator.backward(loss)
                norm = torch.zeros(())
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), CLIP)
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad()
            seen.append((loss.item(), float(norm)))
        return seen


def equal(folder: Path) -> None:
    """Losses, norms, weights; and what is saved is whole."""
    whole, ours = Loop("bert", shrunk=False), Loop("bert")

    torch.manual_seed(0)
    expected = whole.epoch()
    torch.manual_seed(0)
    assert ours.epoch() == expected

    assert_equal_states(copied(ours.model.state_dict()), whole.model.state_dict())
    assert_ranks_agree(ours.model.state_dict())
    unwrapped: Any = ours.accelerator.unwrap_model(ours.model)
    unwrapped.save_pretrained(
        folder,
        is_main_process=ours.accelerator.is_main_process,
        state_dict=ours.accelerator.get_state_dict(ours.model),
    )
    ours.accelerator.wait_for_everyone()
    saved = AutoModelForSequenceClassification.from_pretrained(folder)
    assert_equal_states(saved.state_dict(), copied(unwrapped.state_dict()))


def resumed(name: str, folder: Path) -> None:
    """From a state that was saved, into a model that is shrunk alike."""
    ours = Loop(name)
    ours.epoch()
    ours.accelerator.save_state(str(folder))
    expected = ours.epoch()

    again = Loop(name)
    again.accelerator.load_state(str(folder))

    assert again.epoch() == expected
    assert_ranks_agree(again.model.state_dict())
    assert_equal_states(copied(again.model.state_dict()), copied(ours.model.state_dict()))


def another_vocabulary(folder: Path) -> None:
    """Of as many tokens, where no shape tells."""
    Loop("bert").accelerator.save_state(str(folder))
    unused = drawn_vocabulary(300).token_ids[-len(VOCABULARY) + 3 :]
    other = sv.PartialVocabulary(unused, 300).union([0, 1, 2])

    with pytest.raises(sv.VocabularyMismatchError, match="made with the partial vocabulary"):
        Loop("bert", vocabulary=other).accelerator.load_state(str(folder))


def language_model(_folder: Path) -> None:
    """Its exact head and its rest shift: ranks agree, and every number is finite."""
    ours = Loop("gpt2")

    losses = [loss for loss, _ in ours.epoch() + ours.epoch()]

    assert losses[-1] < losses[0]
    assert_ranks_agree(ours.model.state_dict())


def refused(_folder: Path) -> None:
    """An optimizer, or a wrapper, that was prepared before."""
    whole = Loop("bert", shrunk=False)

    with pytest.raises(sv.UnsupportedModelError, match=r"already holds|is wrapped by"):
        sv.shrink(whole.accelerator.unwrap_model(whole.model), VOCABULARY)


CASES: Mapping[str, Callable[[Path], None]] = {
    "equal": equal,
    "resumed": partial(resumed, "bert"),
    "resumed language model": partial(resumed, "gpt2"),
    "another vocabulary": another_vocabulary,
    "language model": language_model,
    "refused": refused,
}

if __name__ == "__main__":
    run_cases(CASES, Path(sys.argv[1]))
