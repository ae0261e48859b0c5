"""PEFT: LoRA on the other layers, and a trained copy of the embedding matrix."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.peers import peer


def embedding_name(model: Any) -> str:
    """Name the embedding as PEFT wants it: the end of its path."""
    table = model.get_input_embeddings()
    path: str = next(name for name, module in model.named_modules() if module is table)
    return path.rpartition(".")[2]


TASK_TYPES = {"sequence": "SEQ_CLS", "causal-lm": "CAUSAL_LM", "seq2seq-lm": "SEQ_2_SEQ_LM"}

EXCLUDED = {
    "distilbert": ["pre_classifier"],
    "mamba": ["out_proj", "conv1d"],
    "falcon_h1": ["out_proj", "conv1d"],
}
"""Layers that PEFT says it cannot put LoRA on."""


class Peer(peer.Peer):
    """Put LoRA on all linear layers, and train the embedding as it is."""

    name = "PEFT: LoRA + modules_to_save"
    requirements: tuple[str, ...] = ("peft",)
    like = "lora_modules"

    def import_libraries(self) -> None:
        """Import PEFT."""
        import peft  # noqa: F401, PLC0415

        super().import_libraries()

    def rows(self, model: Any) -> dict[str, Any]:
        """Give the options that let rows of the embedding be trained."""
        return {"modules_to_save": [embedding_name(model)]}

    def make(self) -> Any:
        """Load the model, and put the adapter on."""
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415

        model = self.load()
        config = LoraConfig(
            task_type=TASK_TYPES.get(self.task.head),
            target_modules="all-linear",
            exclude_modules=EXCLUDED.get(model.config.model_type),
            **self.rows(model),
        )
        torch.manual_seed(1)
        return get_peft_model(model, config)

    def load(self) -> Any:
        """Load the model that the adapter is put on."""
        return super().make()

    def restore(self, model: Any) -> Any:
        """Add the adapter to the weights."""
        return model.merge_and_unload()
