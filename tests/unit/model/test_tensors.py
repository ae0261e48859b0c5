"""Tests of the step between bytes on disk and tensors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from subvocab.errors import CheckpointError
from subvocab.model.tensors import (
    CHUNK_BYTES,
    STORED_DTYPES,
    converted,
    read_rows,
    spilled,
    tensor_chunks,
    to_bytes,
    to_tensor,
    torch_dtype,
)

DTYPES = list(STORED_DTYPES)


def drawn(dtype: torch.dtype, rows: int = 7, dim: int = 3) -> torch.Tensor:
    """Draw a matrix with values that are easily lost: -0, infinity, NaN."""
    matrix = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
    matrix[0] = torch.tensor([-0.0, float("inf"), float("nan")])[:dim]
    return matrix.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_to_tensor_undoes_to_bytes(dtype: torch.dtype) -> None:
    """No bit changes, in any dtype."""
    matrix = drawn(dtype)

    back = to_tensor(to_bytes(matrix), STORED_DTYPES[dtype])

    assert back.dtype == dtype
    assert torch.equal(back.view(torch.uint8), matrix.view(torch.uint8))


def test_to_tensor_shares_memory() -> None:
    """An overlay of gigabytes must not be copied."""
    rows = to_bytes(drawn(torch.float32))

    assert to_tensor(rows, "F32").data_ptr() == rows.ctypes.data


def test_to_tensor_reads_unaligned_bytes() -> None:
    """A file may place a tensor at any byte."""
    matrix = drawn(torch.float32)[1:]
    shifted = np.empty(matrix.numel() * 4 + 1, dtype=np.uint8)
    shifted[1:] = to_bytes(matrix).reshape(-1)

    back = to_tensor(shifted[1:].reshape(6, 12), "F32")

    assert torch.equal(back, matrix)


def test_torch_dtype_refuses_integers() -> None:
    """A quantised matrix has no rows to train."""
    message = (
        "The embedding matrix is stored as I8, expected one of F64, F32, F16, BF16, F8_E4M3, "
        "F8_E5M2. Load the model in floating point and save it anew."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        torch_dtype("I8")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_spilled_keeps_every_bit(dtype: torch.dtype) -> None:
    """What is put on disk comes back."""
    matrix = drawn(dtype)

    on_disk = spilled(matrix)

    assert on_disk.rows(np.arange(7)).tobytes() == to_bytes(matrix).tobytes()


def test_spilled_writes_where_it_is_told(tmp_path: Path) -> None:
    """Temporary folders may be small, or memory."""
    matrix = spilled(drawn(torch.float32), folder=str(tmp_path))

    assert matrix.tensor.path.parent == tmp_path


def test_spilled_file_goes_with_its_matrix(tmp_path: Path) -> None:
    """Nothing is left behind."""
    matrix = spilled(drawn(torch.float32), folder=str(tmp_path))

    del matrix

    assert not list(tmp_path.iterdir())


def test_spilled_takes_a_view_of_a_larger_tensor() -> None:
    """Rows and columns need not be neighbours in memory."""
    matrix = drawn(torch.float32, rows=6, dim=3).T

    assert spilled(matrix).rows(np.arange(3)).tobytes() == to_bytes(matrix).tobytes()


def test_read_rows_casts_as_loading_does() -> None:
    """Rows read later are those that loading the whole matrix would give."""
    matrix = drawn(torch.float32)[1:]

    rows = read_rows(spilled(matrix), np.array([4, 0]), like=torch.empty(0, dtype=torch.bfloat16))

    assert torch.equal(rows, matrix[[4, 0]].bfloat16())


def test_converted_gives_the_same_matrix_for_the_same_dtype() -> None:
    """No file is written for nothing."""
    matrix = spilled(drawn(torch.float16))

    assert converted(matrix, torch.float16) is matrix


def test_converted_streams_a_matrix_of_several_parts() -> None:
    """More rows than are held at a time."""
    step = CHUNK_BYTES // (3 * 2)
    matrix = drawn(torch.float32, rows=step + 3)[1:]

    half = converted(spilled(matrix), torch.bfloat16)

    assert half.dtype == "BF16"
    parts = [(first, part) for first, part in tensor_chunks(half)]
    assert [first for first, _ in parts] == [0, step]
    assert torch.equal(torch.cat([part for _, part in parts]), matrix.bfloat16())
