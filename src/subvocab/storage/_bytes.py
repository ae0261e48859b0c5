"""Read and write rows of a file without mapping it.

A mapping would let the kernel map neighbouring pages too, until most of the file counts as
resident; `pread` into our own arrays keeps the process as small as what was asked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Int64, UInt8

from subvocab.errors import CheckpointError
from subvocab.storage.header import FileIdentity, StoredTensor

COPY_BYTES = 64 << 20
SPILL_PREFIX, SPILL_SUFFIX = "subvocab-", ".spill.safetensors"
"""What temporary files are called that go with the process that wrote them."""
UNSUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


@contextmanager
def opened(tensor: StoredTensor) -> Iterator[int]:
    """Open a tensor's file, if it is still the one whose header was read.

    Args:
        tensor: A tensor in it.

    Yields:
        A descriptor to read from, closed at the end.

    Raises:
        CheckpointError: If the file is gone, has been replaced or written to, or is
            written to while the block runs.
    """
    try:
        descriptor = os.open(tensor.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if tensor.path.name.endswith(SPILL_SUFFIX):
            raise CheckpointError(
                f"{tensor.path} is gone: it held the unused rows, and only as long as the process "
                "that shrank the model. What was learned is here still: take it by "
                "`subvocab.save_compact`, `subvocab.compact_state_dict` or `RowAdapter.of`; and "
                "next time save the model by `save_pretrained` before that process ends."
            ) from error
        raise CheckpointError(
            f"{tensor.path} is gone ({error.strerror}), but `{tensor.name}` is read from it as "
            "long as it is in use. Put it back, or open the matrix where it lies now."
        ) from error
    try:
        _check_unchanged(tensor, descriptor)
        yield descriptor
        _check_unchanged(tensor, descriptor)
    finally:
        os.close(descriptor)


def _check_unchanged(tensor: StoredTensor, descriptor: int) -> None:
    if FileIdentity.of(descriptor) != tensor.file_identity:
        raise CheckpointError(
            f"{tensor.path} has changed since `{tensor.name}` was opened, so its rows may no "
            "longer be those trained from. If a model was saved in its place, load that one, and "
            "save to another folder."
        )


def read_into(descriptor: int, target: UInt8[np.ndarray, "..."], offset: int) -> None:
    """Fill an array from a file, or as much of it as the file has.

    Args:
        descriptor: Of the open file; its position is neither used nor moved.
        target: Contiguous bytes to fill.
        offset: Where to begin in the file.
    """
    view = target.reshape(-1).data
    while view and (count := os.preadv(descriptor, [view], offset)):
        view, offset = view[count:], offset + count


def read_rows(
    descriptor: int,
    token_ids: Int64[np.ndarray, "n"],
    target: UInt8[np.ndarray, "n row_bytes"],
    offset: int,
) -> None:
    """Read some rows of a matrix, one call a run of neighbours.

    Reading across small gaps in one call was measured: it gains nothing at 5 % of the
    rows, a third at 50 %, and loses where the copying outweighs the calls saved.

    Args:
        descriptor: Of the open file.
        token_ids: Rows to read, strictly ascending.
        target: Where to put them.
        offset: Where the matrix begins in the file.
    """
    row_bytes = target.shape[1]
    for begin, end, token_id in runs(token_ids):
        read_into(descriptor, target[begin:end], offset + token_id * row_bytes)


def write_from(descriptor: int, source: UInt8[np.ndarray, "..."], offset: int) -> None:
    """Write an array into a file.

    Args:
        descriptor: Of the open file; its position is neither used nor moved.
        source: Contiguous bytes.
        offset: Where to begin in the file.
    """
    view = source.reshape(-1).data
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def runs(token_ids: Int64[np.ndarray, "n"]) -> Iterator[tuple[int, int, int]]:
    """Cut ascending ids into runs of neighbours.

    Args:
        token_ids: Strictly ascending.

    Yields:
        Where a run begins and ends in ``token_ids``, and its first id.

    Example:
        >>> list(runs(np.array([3, 4, 5, 9])))
        [(0, 3, 3), (3, 4, 9)]
    """
    breaks = np.flatnonzero(np.diff(token_ids) != 1) + 1
    begins = np.concatenate([np.zeros(min(1, token_ids.size), dtype=np.int64), breaks])
    ends = [*begins[1:].tolist(), token_ids.size]
    yield from zip(begins.tolist(), ends, token_ids[begins].tolist(), strict=False)


def copy_range(
    source: int, target: int, offset: int, nbytes: int, advance: Callable[[float], None]
) -> None:
    """Append a part of one file to another, inside the kernel.

    Args:
        source: Descriptor to read from.
        target: Descriptor to write to, at its position.
        offset: Where to begin in the source.
        nbytes: How much; less if the source ends before.
        advance: Called with the number of bytes just copied.
    """
    end, share_blocks = offset + nbytes, True
    while offset < end:
        step = min(end - offset, COPY_BYTES)
        count = 0
        if share_blocks:
            # Shares the blocks where the file system can; not all can, nor between two.
            with _unsupported_passes():
                count = os.copy_file_range(source, target, step, offset)
            share_blocks = count > 0
        if not count:
            count = os.sendfile(target, source, offset, step)
        if not count:
            return
        offset += count
        advance(count)


@contextmanager
def _unsupported_passes() -> Iterator[None]:
    """Let a system call fail where the file system does not offer it."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
