"""What the tests of checkpoints and matrices share: a base with its other files, and a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from subvocab.storage import FullMatrix
from tests.unit.storage.checkpoints import BODY, FULL
from tests.unit.storage.matrices import VALUES


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write a model folder of one file of weights, with what usually lies beside it."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({"e": FULL, "body": BODY}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("pool")
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a checkpoint of one matrix and two other tensors."""
    path = tmp_path / "model.safetensors"
    save_file({"bias": np.zeros(5), "e": VALUES, "z": np.ones((2, 2, 2))}, path)
    return path


@pytest.fixture
def matrix(file: Path) -> FullMatrix:
    """Open that matrix."""
    return FullMatrix.open(file, "e")
