"""Say clearly that a disk is full, before writing if possible."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from subvocab.errors import CheckpointError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def space_for(needed_bytes: int, folder: Path) -> Iterator[None]:
    """Guard work that writes much: look beforehand, and explain if the disk fills anyway.

    Args:
        needed_bytes: How much will be written.
        folder: An existing folder on the file system to be written to.

    Yields:
        Nothing.

    Raises:
        CheckpointError: If less is free, or the disk was full while writing.
    """
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise _full(needed_bytes, free_bytes, folder)
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            free_bytes = shutil.disk_usage(folder).free
            when = "The disk was full while writing. "
            raise _full(needed_bytes, free_bytes, folder, when) from error
        raise


def _full(needed_bytes: int, free_bytes: int, folder: Path, when: str = "") -> CheckpointError:
    return CheckpointError(
        f"{when}Writing to {folder} needs {needed_bytes:,} bytes, but {free_bytes:,} are free. "
        "Free some, or write to another disk."
    )
