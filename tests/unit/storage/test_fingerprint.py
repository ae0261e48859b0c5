"""A matrix has one name, wherever it is."""

from __future__ import annotations

import numpy as np
import pytest

from subvocab.storage import FullMatrix, matrix_fingerprint


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
