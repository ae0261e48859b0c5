"""This library, beside PEFT: LoRA on the other layers, and the rows that occur."""

from __future__ import annotations

from typing import Any

import subvocab as sv
from benchmarks.peers import lora_modules, subvocab_full


class Peer(lora_modules.Peer):
    """Shrink the model, then put the adapter on as ever."""

    name = "subvocab, PEFT: LoRA + modules_to_save"
    requirements = (*subvocab_full.REQUIREMENTS, "peft")

    def import_libraries(self) -> None:
        """Import both libraries."""
        super().import_libraries()
        subvocab_full.import_subvocab()

    def scan(self) -> None:
        """Scan all texts."""
        self.vocabulary = subvocab_full.scan(self.task, self.tokenizer, self.folder)

    def load(self) -> Any:
        """Load the small model."""
        return subvocab_full.load(self.task, self.vocabulary, self.folder)

    def restore(self, model: Any) -> Any:
        """Add the adapter to the weights, and read the other rows again."""
        return sv.restore(model.merge_and_unload())
