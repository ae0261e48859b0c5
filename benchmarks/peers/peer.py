"""Full fine-tuning; each peer is told by what it does otherwise."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW, Optimizer
from transformers import AutoConfig

from benchmarks.peers.task import Task


class Peer:
    """Fine-tune the whole model, all of its parameters.

    Attributes:
        name: As users know it.
        requirements: Of its environment, for pip, beside torch and transformers.
        transformers: The version it can be used with; by default the tested one.
        like: The adapter whose result it should have.
        note: What a reader of the table must know.
    """

    name = "full fine-tuning"
    requirements: tuple[str, ...] = ()
    transformers = ""
    like = "full"
    note = ""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder
        self.tokenizer = task.tokenizer(folder)

    def import_libraries(self) -> None:
        """Import what is used, so that it counts neither as time nor as memory."""
        family = AutoConfig.from_pretrained(self.folder).model_type.replace("-", "_")
        with suppress(ImportError):  # not every family has a module of its name
            import_module(f"transformers.models.{family}.modeling_{family}")

    def scan(self) -> None:
        """Find the tokens that occur in all texts."""

    def make(self) -> Any:
        """Load the model, and prepare it for training."""
        return self.task.load_model(self.folder)

    def batches(self) -> list[dict[str, torch.Tensor]]:
        """Encode the texts that are trained on."""
        task = self.task
        return task.batches(task.encoded(self.tokenizer, task.trained_texts))

    def optimizers(self, model: Any) -> list[Optimizer]:
        """Make what updates the parameters."""
        return [self.adamw(p for p in model.parameters() if p.requires_grad)]

    def adamw(self, parameters: Any) -> Optimizer:
        """Make AdamW for some parameters, as all peers use it."""
        return AdamW(parameters, lr=self.task.learning_rate, weight_decay=0)

    def save(self, model: Any, folder: Path) -> None:
        """Write a checkpoint, as small as the peer offers it."""
        model.save_pretrained(folder)

    def merge(self, checkpoint: Path, folder: Path) -> bool:  # noqa: ARG002
        """Make a whole model of a checkpoint on disk, and tell whether the peer can."""
        return False

    def restore(self, model: Any) -> Any:
        """Give the whole model back, in memory."""
        return model
