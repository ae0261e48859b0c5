"""The encoder that loading and training are measured on: XLM-RoBERTa's table, one layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from subvocab import PartialVocabulary

FULL_VOCAB_SIZE, DIM = 250_002, 768
PARTIAL_VOCAB_SIZE = 12_500
"""Five per cent of the rows."""

BATCH = (4, 32)


def config(vocab_size: int = FULL_VOCAB_SIZE, **changes: Any) -> BertConfig:
    """Describe the encoder.

    Args:
        vocab_size: Rows of its table.
        **changes: To other sizes.

    Returns:
        Its configuration.
    """
    return BertConfig(vocab_size=vocab_size, num_hidden_layers=1, pad_token_id=0, **changes)


def vocabulary() -> PartialVocabulary:
    """Draw a V′ that holds token 0.

    Returns:
        Five per cent of V.
    """
    drawn = np.random.default_rng(0).choice(FULL_VOCAB_SIZE - 1, PARTIAL_VOCAB_SIZE - 1, False)
    return PartialVocabulary(np.sort(np.append(drawn + 1, 0)), FULL_VOCAB_SIZE)


def write_checkpoint(folder: str, dtype: str) -> None:
    """Save the encoder with random weights.

    Args:
        folder: Where.
        dtype: Of its weights, such as ``bfloat16``.
    """
    model = BertForSequenceClassification(config()).to(getattr(torch, dtype))
    model.save_pretrained(Path(folder))


def batches(count: int) -> list[dict[str, Any]]:
    """Draw batches of tokens of V′.

    Args:
        count: How many.

    Returns:
        Inputs with class labels.
    """
    rng = np.random.default_rng(1)
    ids = vocabulary().token_ids
    return [
        {
            "input_ids": torch.tensor(rng.choice(ids, BATCH)),
            "attention_mask": torch.ones(BATCH, dtype=torch.long),
            "labels": torch.tensor(rng.integers(0, 2, BATCH[0])),
        }
        for _ in range(count)
    ]


def training_step(model: Any) -> Callable[[dict[str, Any]], None]:
    """Make an optimizer for a model.

    Args:
        model: The model.

    Returns:
        A function that trains one step on a batch.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)

    def step(batch: dict[str, Any]) -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
