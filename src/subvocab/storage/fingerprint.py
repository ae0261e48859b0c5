"""The name of a matrix by its content, wherever it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64, UInt8

FINGERPRINT_ROWS = 1024


def matrix_fingerprint(
    dtype: str,
    shape: tuple[int, int],
    read: Callable[[Int64[np.ndarray, "n"]], UInt8[np.ndarray, "n row_bytes"]],
) -> str:
    """Name a matrix by its content: on disk or in memory, in one file or another.

    Args:
        dtype: Of its numbers, as safetensors names it.
        shape: |V| and d.
        read: Gives rows as bytes, by ascending token ids.

    Returns:
        The sha256 of dtype, shape and up to 1,024 evenly spaced rows, the first and the
        last among them. It tells checkpoints apart, which differ in every row; a change
        of a few rows may escape it.

    Example:
        >>> matrix = np.zeros((3, 4), np.uint8)
        >>> matrix_fingerprint("F32", (3, 1), lambda token_ids: matrix[token_ids])[:12]
        '742908afbe42'
    """
    size, dim = shape
    count = min(size, FINGERPRINT_ROWS)
    token_ids = np.arange(count) * (size - 1) // max(1, count - 1)
    digest = hashlib.sha256(f"{dtype} {size} {dim}\n".encode())
    digest.update(np.ascontiguousarray(read(token_ids)).data)
    return digest.hexdigest()
