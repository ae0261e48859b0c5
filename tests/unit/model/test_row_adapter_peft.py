"""Learned rows and an adapter of PEFT, each in a small file of its own, are the trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import subvocab as sv
from subvocab.model.row_adapter import RowAdapter
from tests.models import random_batch, tiny_model
from tests.reference import ids_of, train
from tests.unit.model.row_adapters import BASE, EVERY_ID, MATRIX, VOCABULARY


def lora(**options: Any) -> peft.LoraConfig:
    """Put LoRA on the attention of a classifier."""
    return peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], **options)


@pytest.mark.parametrize("order", ["rows first", "LoRA first"])
def test_rows_and_lora_together_are_the_trained_model(order: str, tmp_path: Path) -> None:
    """Each in a small file of its own, on the whole base: the same logits, bit for bit."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)
    torch.manual_seed(0)
    trained: Any = peft.get_peft_model(model, lora())
    trained.get_input_embeddings().weight.requires_grad_(True)
    train(trained, [random_batch(model, ids_of(VOCABULARY), seed=step) for step in range(3)])
    trained.save_pretrained(tmp_path)
    RowAdapter.of(trained).save(tmp_path / "rows.safetensors")
    whole = tiny_model("bert")
    batch = random_batch(whole, EVERY_ID)

    rows = RowAdapter.load(tmp_path / "rows.safetensors")
    if order == "rows first":
        rows.apply(whole)
    again: Any = peft.PeftModel.from_pretrained(whole, tmp_path)
    if order == "LoRA first":
        rows.apply(again)

    with torch.no_grad():
        assert torch.equal(again.eval()(**batch).logits, trained.eval()(**batch).logits)
    rows.remove(again)
    assert torch.equal(whole.get_input_embeddings().weight, BASE)


def test_the_copy_that_peft_trains_is_taken() -> None:
    """Not the module it was copied from."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)
    trained: Any = peft.get_peft_model(model, lora(modules_to_save=["word_embeddings"]))
    train(trained, [random_batch(model, ids_of(VOCABULARY))])
    copied_rows = trained.get_input_embeddings().modules_to_save["default"].weight

    adapter = RowAdapter.of(trained)

    assert list(adapter.tables) == [MATRIX]
    assert torch.equal(adapter.tables[MATRIX].values, copied_rows)
    with trained.disable_adapter():
        unlearned = RowAdapter.of(trained)
    assert torch.equal(unlearned.tables[MATRIX].values, BASE[ids_of(VOCABULARY)])
