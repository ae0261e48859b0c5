"""The loss that is reported is the mean over tokens, whatever batches they come in."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from subvocab.integrations.language_model import token_loss
from tests.models import random_batch, tiny_model

KINDS = [
    ("gpt2", "causal-lm", True),
    ("llama", "causal-lm", True),
    ("bert", "masked-lm", False),
    ("t5", "seq2seq-lm", False),
    ("bart", "seq2seq-lm", False),
]


def _batch(model: Any) -> dict[str, torch.Tensor]:
    """Draw a batch in which rows have from none to all of their labels."""
    batch = random_batch(model, torch.arange(3, 300), head="lm")
    labels = batch["input_ids"].clone()
    labels[0] = -100
    labels[1, 1:] = -100
    labels[2, :4] = -100
    batch["labels"] = labels
    return batch


def _split(batch: dict[str, torch.Tensor], size: int) -> list[dict[str, torch.Tensor]]:
    return [
        {name: values[n : n + size] for name, values in batch.items()} for n in range(0, 4, size)
    ]


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize(("family", "head", "shifted"), KINDS)
def test_token_loss_is_the_mean_over_tokens(
    family: str, head: str, size: int, *, shifted: bool
) -> None:
    """As computed from the logits of all tokens at once, in double precision."""
    model = tiny_model(family, head)
    batch = _batch(model)

    loss = token_loss(model, _split(batch, size), shifted=shifted)

    with torch.no_grad():
        logits, labels = model.eval()(**batch).logits.double(), batch["labels"]
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    expected = functional.cross_entropy(logits.reshape(-1, 300), labels.reshape(-1))
    assert math.isclose(loss, float(expected), rel_tol=1e-6)


def test_token_loss_of_nothing_is_no_number() -> None:
    """Rather than an error after hours of training."""
    model = tiny_model("gpt2", "causal-lm")
    batch = _batch(model)

    assert math.isnan(token_loss(model, _split(batch, 1)[:2], shifted=True))


def test_token_loss_turns_dropout_off() -> None:
    """And keeps no graph."""
    model = tiny_model("gpt2", "causal-lm").train()
    batch = _batch(model)

    losses = {token_loss(model, [batch], shifted=True) for _ in range(3)}

    assert len(losses) == 1
