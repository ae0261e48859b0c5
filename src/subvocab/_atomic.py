"""Write a file all at once or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEW_FILE_MODE = 0o666


def _umask() -> int:
    """Return the process's umask, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def replacing(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Yield a staged file to write; on a clean exit it becomes ``path``.

    The staged file lies in the same folder, so the last step is one rename: a
    crash leaves the old file or the new one, never a mixture. File and folder are
    flushed to disk.

    Args:
        path: The file to write. It may exist.
        mode: Permission bits of the result. By default those of ``path`` if it
            exists, else those that ``open`` would give (``tempfile`` gives 0600).

    Yields:
        The staged file, empty. If the block raises, it is removed and ``path`` is
        as it was.
    """
    if mode is None:
        mode = path.stat().st_mode & 0o7777 if path.exists() else NEW_FILE_MODE & ~_umask()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    staged = Path(name)
    try:
        yield staged
        staged.chmod(mode)
        flush_to_disk(staged)
        staged.replace(path)
        flush_to_disk(path.parent)
    finally:
        staged.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut.

    Args:
        path: An existing file or folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
