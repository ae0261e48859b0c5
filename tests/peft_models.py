"""Models with adapters of PEFT, whole and shrunk."""

from __future__ import annotations

import copy
from typing import Any

import peft
import torch

import subvocab as sv
from tests.models import FULL_VOCAB_SIZE, tiny_language_model
from tests.reference import drawn_vocabulary, ids_of

IGNORED_WARNINGS = (
    "ignore:Model has `tie_word_embeddings=True`",
    "ignore:Setting `save_embedding_layers`",
    "ignore:Sparse invariant checks",  # SHiRA
    "ignore:Unsupported layer type",  # layer norms
    "ignore:Input and output embeddings are no longer tied",
)
VOCABULARY = drawn_vocabulary()
USED = ids_of(VOCABULARY)
EVERY_ID = torch.arange(FULL_VOCAB_SIZE)


def adapted(model: Any, config: peft.PeftConfig) -> Any:
    """Put an adapter on a model, drawn the same at each call."""
    torch.manual_seed(0)
    return peft.get_peft_model(model, copy.deepcopy(config))


def shrunk(model: Any) -> Any:
    """Shrink a model, or one with adapters."""
    sv.shrink(model, VOCABULARY)
    return model


def language_model(*, tied: bool) -> Any:
    """Make a tiny decoder in evaluation mode, as PEFT's loading leaves it."""
    return tiny_language_model("llama (tied)" if tied else "llama").eval()


def language_config(names: list[str], *, tie: bool = False) -> peft.LoraConfig:
    """Train some modules beside LoRA."""
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=["q_proj"],
        modules_to_save=list(names),
        ensure_weight_tying=tie,
    )
