"""Between bytes on disk and tensors in memory: the one place that knows both torch and storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from subvocab.errors import CheckpointError
from subvocab.storage import FullMatrix

SPILL_NAME = "weight"
CHUNK_BYTES = 1 << 18
"""What is held at a time while a matrix streams through memory."""

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
STORED_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def torch_dtype(stored: str) -> torch.dtype:
    """Translate the name of a stored dtype.

    Args:
        stored: As safetensors writes it.

    Returns:
        The dtype in torch.

    Raises:
        CheckpointError: If an embedding matrix cannot have this dtype.

    Example:
        >>> torch_dtype("BF16")
        torch.bfloat16
    """
    if stored not in TORCH_DTYPES:
        raise CheckpointError(
            f"The embedding matrix is stored as {stored}, expected one of {', '.join(TORCH_DTYPES)}"
            ". Load the model in floating point and save it anew."
        )
    return TORCH_DTYPES[stored]


def to_tensor(rows: np.ndarray, stored: str) -> torch.Tensor:
    """See rows of bytes as numbers.

    Args:
        rows: Writable bytes, ``(rows, row_bytes)``.
        stored: Their dtype as safetensors names it.

    Returns:
        A tensor ``(rows, dim)`` over the same memory.
    """
    dtype = torch_dtype(stored)
    if rows.ctypes.data % dtype.itemsize:  # a file may place a tensor at any byte
        rows = rows.copy()
    return torch.from_numpy(rows).view(dtype)


def to_bytes(tensor: torch.Tensor) -> np.ndarray:
    """See a matrix as rows of bytes.

    Args:
        tensor: ``(rows, dim)`` on any device.

    Returns:
        Bytes ``(rows, row_bytes)``; the same memory where the tensor is contiguous on the CPU.
    """
    array: np.ndarray = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return array


def read_rows(matrix: FullMatrix, token_ids: np.ndarray, *, like: torch.Tensor) -> torch.Tensor:
    """Read rows of E from disk.

    Args:
        matrix: E.
        token_ids: The rows wanted.
        like: A tensor of the dtype and device wanted.

    Returns:
        The rows in the order asked for, cast as loading the whole matrix would cast them.
    """
    return to_tensor(matrix.rows(token_ids), matrix.dtype).to(like.device, like.dtype)


def spilled(tensor: torch.Tensor, *, folder: str | None = None) -> FullMatrix:
    """Put a matrix that is in memory on disk, in a file that lives as long as it is used.

    Args:
        tensor: ``(full, dim)`` on any device.
        folder: Where; by default the system's folder for temporary files.

    Returns:
        The matrix on disk.
    """
    chunks = (to_bytes(part) for part in tensor.detach().split(rows_per_chunk(tensor)))
    shape = (tensor.shape[0], tensor.shape[1])
    return FullMatrix.spill(SPILL_NAME, STORED_DTYPES[tensor.dtype], shape, chunks, folder=folder)


def converted(matrix: FullMatrix, dtype: torch.dtype) -> FullMatrix:
    """Give a matrix another dtype, by streaming it through memory.

    Args:
        matrix: E.
        dtype: The dtype wanted.

    Returns:
        The same matrix if it has that dtype, else a temporary one on disk.
    """
    if torch_dtype(matrix.dtype) == dtype:
        return matrix
    shape = (matrix.full_vocab_size, matrix.embedding_dim)
    chunks = (to_bytes(part.to(dtype)) for _, part in tensor_chunks(matrix))
    return FullMatrix.spill(SPILL_NAME, STORED_DTYPES[dtype], shape, chunks)


def shifted(matrix: FullMatrix, shift: torch.Tensor) -> FullMatrix:
    """Add a vector to every row of a matrix, by streaming it through memory.

    Args:
        matrix: E.
        shift: ``(dim,)``.

    Returns:
        A temporary matrix on disk.
    """
    added = shift.detach().to("cpu", torch_dtype(matrix.dtype))
    shape = (matrix.full_vocab_size, matrix.embedding_dim)
    chunks = (to_bytes(part + added) for _, part in tensor_chunks(matrix))
    return FullMatrix.spill(SPILL_NAME, matrix.dtype, shape, chunks)


def decayed(matrix: FullMatrix, decays: Sequence[float]) -> FullMatrix:
    """Shrink every number of a matrix as AdamW's weight decay does, step by step.

    One product of all factors would round otherwise: each step rounds by itself.

    Args:
        matrix: E.
        decays: Learning rate times weight decay, of each step.

    Returns:
        A temporary matrix on disk.
    """
    shape = (matrix.full_vocab_size, matrix.embedding_dim)

    def chunks() -> Iterator[np.ndarray]:
        for _, part in tensor_chunks(matrix):
            rows = part.clone()
            for decay in decays:
                rows.mul_(1 - decay)
            yield to_bytes(rows)

    return FullMatrix.spill(SPILL_NAME, matrix.dtype, shape, chunks())


def tensor_chunks(
    matrix: FullMatrix, rows_per_chunk: int | None = None
) -> Iterator[tuple[int, torch.Tensor]]:
    """Read a whole matrix, a part at a time.

    Args:
        matrix: E.
        rows_per_chunk: How large a part is; by default `CHUNK_BYTES`.

    Yields:
        The first token id of a part, and its rows ``(part, dim)``.
    """
    step = rows_per_chunk or max(1, CHUNK_BYTES // matrix.row_bytes)
    for first, rows in matrix.chunks(rows_per_chunk=step):
        yield first, to_tensor(rows, matrix.dtype)


def rows_per_chunk(matrix: torch.Tensor) -> int:
    """Tell how many rows of a matrix to take at a time.

    Args:
        matrix: ``(rows, dim)``.

    Returns:
        As many as `CHUNK_BYTES` hold.

    Example:
        >>> rows_per_chunk(torch.empty(10, 256))
        256
    """
    return max(1, CHUNK_BYTES // (matrix.shape[1] * matrix.element_size()))
