"""What the tests of the commands share: a tiny classifier, data for it, and quiet afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny_tokenizers
from tests.models import tiny_model

ROWS = [
    ("the cat sat on the mat", "pets"),
    ("a naïve café in São Paulo", "food"),
    ("the dog didn't", "pets"),
    ("12 cups, 345 grams", "food"),
]


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Write texts and labels as JSON lines."""
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _as_before(libraries_as_before: None) -> None:
    """Undo what commands tell the libraries."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Save a tiny BERT with a classifier, and its tokenizer."""
    folder = tmp_path / "base"
    tiny_model("bert").save_pretrained(folder)
    tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece()).save_pretrained(folder)
    return folder


@pytest.fixture
def job(base: Path, tmp_path: Path) -> Path:
    """Put training data `train.jsonl` and `eval.jsonl` beside the model `base`."""
    write_rows(tmp_path / "train.jsonl", ROWS * 2)
    write_rows(tmp_path / "eval.jsonl", ROWS)
    return base.parent
