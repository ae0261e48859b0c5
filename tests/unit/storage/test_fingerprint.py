"""A matrix has one name, wherever it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from subvocab.storage import FullMatrix, matrix_fingerprint, write_matrix
from tests.unit.storage.matrices import DIM, SIZE, VALUES


def named(matrix: np.ndarray, dtype: str = "F32") -> str:
    """Name a matrix in memory."""
    shape = (matrix.shape[0], matrix.shape[1])
    return matrix_fingerprint(dtype, shape, lambda token_ids: matrix[token_ids].view(np.uint8))


@pytest.mark.parametrize("size", [1, 2, 1024, 1025, 5000])
def test_memory_and_disk_agree(size: int) -> None:
    """Few rows are all compared, many are sampled."""
    matrix = np.random.default_rng(0).normal(size=(size, 3)).astype(np.float32)

    assert named(matrix) == FullMatrix.spill("any", "F32", matrix.shape, [matrix]).fingerprint


def test_content_shape_and_dtype_count() -> None:
    """The same bytes in another shape are another matrix."""
    matrix = np.ones((4, 6), dtype=np.float32)
    other = matrix.copy()
    other[3, 5] = 2

    assert (
        len({named(matrix), named(other), named(matrix.reshape(6, 4)), named(matrix, "I32")}) == 4
    )


# The fingerprint


def test_fingerprint_is_that_of_the_content(matrix: FullMatrix, tmp_path: Path) -> None:
    """Another file, name and place in the file: the same matrix."""
    other = write_matrix(tmp_path / "other.safetensors", "wte", "F32", (SIZE, DIM), [VALUES])

    assert other.fingerprint == matrix.fingerprint


@pytest.mark.parametrize("row", [0, 1777, 2999])
def test_fingerprint_differs_between_checkpoints(tmp_path: Path, row: int) -> None:
    """First, last and many rows between are looked at; so are dtype and shape."""
    rows = np.random.default_rng(0).integers(0, 256, (3000, 4), dtype=np.uint8)
    changed = rows.copy()
    changed[row : row + 3] += 1

    prints = {
        write_matrix(tmp_path / f"{dtype}{dim}{k}", "e", dtype, (3000, dim), [content]).fingerprint
        for k, content in enumerate((rows, changed))
        for dtype, dim in (("U8", 4), ("I8", 4), ("F16", 2))
    }

    assert len(prints) == 6


def test_fingerprint_is_the_one_documented(tmp_path: Path) -> None:
    """It is written into checkpoints, so it must not change between versions."""
    matrix = write_matrix(tmp_path / "x", "e", "U8", (2, 2), [np.arange(4, dtype=np.uint8)])

    assert matrix.fingerprint == hashlib.sha256(b"U8 2 2\n" + bytes(range(4))).hexdigest()
