"""What whole runs share: an encoder on disk, and quiet."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

from tests import tiny_tokenizers
from tests.models import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny encoder with its tokenizer."""
    path = tmp_path_factory.mktemp("encoder")
    tiny_model("bert", "encoder").save_pretrained(path)
    tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece()).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Draw no bars; and let no collection, of which a trainer asks for many, visit the imports."""
    datasets.disable_progress_bars()
    gc.freeze()
    yield
    gc.unfreeze()
