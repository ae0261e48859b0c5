"""What all tests share: no network, and the tiny tokenizers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, below

import datasets
import transformers
from transformers import PreTrainedTokenizerFast

from tests import tiny_tokenizers

# Tiny models gain nothing from more, and on a busy machine threads wait for each other.
torch.set_num_threads(1)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def _closed_network() -> Iterator[None]:
    """Refuse connections to other machines: a test that needs one must not pass by luck."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
            pytest.fail(f"A test connects to {address}.")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Give the folder of real data sets; skip the test where there is none."""
    named = os.environ.get("SUBVOCAB_DATA")
    if not named:
        pytest.skip("SUBVOCAB_DATA does not name the folder of real data sets")
    return Path(named)


@pytest.fixture
def libraries_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the cache of `datasets` to the test, and undo what commands tell the libraries."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    verbosity = transformers.logging.get_verbosity(), datasets.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(verbosity[0])
    datasets.logging.set_verbosity(verbosity[1])
    transformers.logging.enable_progress_bar()
    datasets.enable_progress_bars()


@pytest.fixture
def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer as BERT's."""
    return tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece())


@pytest.fixture
def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer as GPT-2's."""
    return tiny_tokenizers.as_transformers(tiny_tokenizers.byte_level())


@pytest.fixture
def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer as XLM-RoBERTa's."""
    return tiny_tokenizers.as_transformers(tiny_tokenizers.unigram())
