"""What snippets take for granted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import DataCollatorWithPadding, TrainingArguments

from tests import tiny_tokenizers
from tests.models import tiny_model


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give what the snippets take for granted, by the names that they use."""
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece())
    tiny_model("bert", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    encoded = tokenizer(tiny_tokenizers.CORPUS)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "logs"), num_train_epochs=1, report_to=[], disable_tqdm=True
    )
    arguments.dataloader_pin_memory = False
    return {
        "dataset": datasets.Dataset.from_dict({**encoded, "labels": [0, 1, 0, 1]}),
        "tokenizer": tokenizer,
        "collator": DataCollatorWithPadding(tokenizer),
        "args": arguments,
        "name": str(tmp_path / "base"),
        "out": str(tmp_path / "out"),
    }
