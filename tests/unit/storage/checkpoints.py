"""Small checkpoints, what merging makes of them, and how broken ones are refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from subvocab.errors import CheckpointError
from subvocab.storage import read_checkpoint

SIZE, DIM = 10, 4
FULL = np.arange(SIZE * DIM, dtype=np.float32).reshape(SIZE, DIM)
BODY = np.full((3, 5), 7, dtype=np.float32)
TOKEN_IDS = np.array([1, 2, 7])
LEARNED = -np.ones((3, DIM), dtype=np.float32)
ROWS = {"e": (TOKEN_IDS, LEARNED.view(np.uint8))}
INDEX = "model.safetensors.index.json"
REMEDY = "Fetch the file again, or write it anew with `save_pretrained`."


def merged() -> np.ndarray:
    """Compute the expected matrix the obvious way."""
    matrix = FULL.copy()
    matrix[TOKEN_IDS] = LEARNED
    return matrix


def shard(folder: Path, first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Replace a folder's weights by two shards and an index."""
    (folder / "model.safetensors").unlink()
    weight_map = dict.fromkeys(first, "m1.safetensors") | dict.fromkeys(second, "m2.safetensors")
    save_file(first, folder / "m1.safetensors")
    save_file(second, folder / "m2.safetensors")
    size = sum(tensor.nbytes for tensor in (*first.values(), *second.values()))
    metadata = {"total_size": float(size), "total_parameters": size // 4, "more": True}
    (folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))


def names(folder: Path) -> set[str]:
    """List the files of a folder and of those in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def refused(error: type[Exception], message: str) -> pytest.RaisesExc[Exception]:
    """Expect an error of exactly this text."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def message_of(path: Path) -> str:
    """Read a checkpoint that must be refused; the message without the folder's name."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    folder = path if path.is_dir() else path.parent
    return str(caught.value).replace(f"{folder}{os.sep}", "")
