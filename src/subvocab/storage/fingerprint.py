"""The name of a matrix by its content, wherever it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

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
    count = min(shape[0], FINGERPRINT_ROWS)
    token_ids = np.arange(count) * (shape[0] - 1) // max(1, count - 1)
    return content_hash(dtype, shape, [read(token_ids)])


def content_hash(
    dtype: str, shape: tuple[int, int], chunks: Iterable[UInt8[np.ndarray, "n row_bytes"]]
) -> str:
    """Name rows by all of their content.

    Args:
        dtype: Of the numbers, as safetensors names it.
        shape: |V| and d of the matrix they are of.
        chunks: The rows as bytes, some at a time.

    Returns:
        The sha256.

    Example:
        >>> content_hash("F32", (3, 1), [np.zeros((3, 4), np.uint8)])[:12]
        '742908afbe42'
    """
    digest = hashlib.sha256(f"{dtype} {shape[0]} {shape[1]}\n".encode())
    for chunk in chunks:
        digest.update(np.ascontiguousarray(chunk).data)
    return digest.hexdigest()
