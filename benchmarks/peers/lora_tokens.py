"""PEFT: LoRA on the other layers, and the rows of some tokens."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import lora_modules


class Peer(lora_modules.Peer):
    """Put LoRA on all linear layers, and train the rows that occur."""

    name = "PEFT: LoRA + trainable_token_indices"

    def scan(self) -> None:
        """Gather the ids, as its users do: there is no help for it."""
        encoded = self.tokenizer(
            self.task.texts, truncation=True, max_length=self.task.length, padding="max_length"
        )
        self.used = sorted({one for ids in encoded["input_ids"] for one in ids})

    def rows(self, model: Any) -> dict[str, Any]:
        """Name the rows."""
        return {"trainable_token_indices": {lora_modules.embedding_name(model): self.used}}
