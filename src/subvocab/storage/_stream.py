"""Write one tensor into a safetensors file, a part at a time."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path

import numpy as np

from subvocab.errors import CheckpointError
from subvocab.storage._space import space_for
from subvocab.storage.header import DTYPE_BITS, encode_header


def write_tensor(
    path: Path, tensor_name: str, dtype: str, shape: tuple[int, int], chunks: Iterable[np.ndarray]
) -> None:
    """Write a file that holds one matrix, straight to its place.

    Args:
        path: The file to write; overwritten if it exists.
        tensor_name: The matrix's name.
        dtype: As safetensors names it.
        shape: |V| and d.
        chunks: Its bytes, in order, in arrays of any type and shape.

    Raises:
        CheckpointError: If the dtype is none of safetensors', the chunks do not fill the
            shape, or the disk is full.
    """
    if dtype not in DTYPE_BITS:
        raise CheckpointError(
            f"`{tensor_name}` has dtype {dtype!r}, expected one of {', '.join(DTYPE_BITS)}."
        )
    header = encode_header({tensor_name: (dtype, shape, 0)}, None)
    expected_bytes = prod(shape) * DTYPE_BITS[dtype] // 8
    written_bytes = 0
    with space_for(len(header) + expected_bytes, path.parent), path.open("wb") as file:
        file.write(header)
        for chunk in chunks:
            written_bytes += file.write(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)
    if written_bytes != expected_bytes:
        raise CheckpointError(
            f"The chunks of `{tensor_name}` have {written_bytes:,} bytes, expected "
            f"{expected_bytes:,} for the shape {shape} of {dtype}."
        )
