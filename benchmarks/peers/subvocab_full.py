"""This library, all parameters."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

import subvocab as sv
from benchmarks.peers import peer
from benchmarks.peers.task import HEADS, Task

REQUIREMENTS = ("{checkout}",)


def import_subvocab() -> None:
    """Import what the library imports when it is first used, its compiled loop among it."""
    import_module("subvocab.data.kernel")
    for name in ("scan", "from_pretrained", "save_compact", "merge", "restore", "RowAdapter"):
        getattr(sv, name)


def scan(task: Task, tokenizer: Any, folder: Path) -> Any:
    """Find V′ of all texts."""
    return sv.scan(
        task.texts,
        tokenizer=tokenizer,
        model=AutoConfig.from_pretrained(folder),
        max_length=task.length,
        progress=False,
    ).partial_vocabulary()


def load(task: Task, vocabulary: Any, folder: Path) -> Any:
    """Load the rows of V′, and the rest of the model."""
    torch.manual_seed(0)
    return sv.from_pretrained(HEADS[task.head], folder, vocabulary, **task.load_options)


class Peer(peer.Peer):
    """Hold the rows that occur."""

    name = "subvocab"
    requirements = REQUIREMENTS

    def import_libraries(self) -> None:
        """Import this library."""
        super().import_libraries()
        import_subvocab()

    def scan(self) -> None:
        """Scan all texts."""
        self.vocabulary = scan(self.task, self.tokenizer, self.folder)

    def make(self) -> Any:
        """Load the small model."""
        return load(self.task, self.vocabulary, self.folder)

    def save(self, model: Any, folder: Path) -> None:
        """Write the small model and V′."""
        sv.save_compact(model, folder)

    def merge(self, checkpoint: Path, folder: Path) -> bool:
        """Write the whole model, from the base and the checkpoint."""
        sv.merge(checkpoint, base=self.folder, out=folder, progress=False)
        return True

    def restore(self, model: Any) -> Any:
        """Read the other rows again."""
        return sv.restore(model)
