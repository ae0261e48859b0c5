"""Write a file all at once or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from subvocab.errors import CheckpointError

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


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; on a clean exit it becomes ``out``.

    The staged folder lies beside it, so the last step is one rename. A process killed
    outright leaves a hidden folder, never half a target.

    Args:
        out: The folder to make. It may exist if it is empty.

    Yields:
        The staged folder, empty. If the block raises, it is removed.

    Raises:
        CheckpointError: If ``out`` holds something, or has no folder to lie in.
    """
    check_new_folder(out)
    staged = out.parent / f".{out.name}.{secrets.token_hex(8)}"
    try:
        staged.mkdir()
        yield staged
        for below, _, files in os.walk(staged):
            for file in files:
                flush_to_disk(Path(below, file))
            flush_to_disk(Path(below))
        try:
            staged.rename(out)
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                check_new_folder(out)
            raise
        flush_to_disk(out.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_new_folder(out: Path) -> None:
    """Refuse a target that holds something: nothing is ever overwritten.

    Args:
        out: The folder to make.

    Raises:
        CheckpointError: If ``out`` exists and is no empty folder, or has no folder to
            lie in.
    """
    empty = out.is_dir() and not out.is_symlink() and not any(out.iterdir())
    if not empty and os.path.lexists(out):
        raise CheckpointError(
            f"{out} exists already, and nothing is ever overwritten. Name a new folder, or an "
            "empty one."
        )
    parent = out.absolute().parent
    if not parent.is_dir():
        raise CheckpointError(f"There is no folder {parent} to write `{out.name}` in. Make it.")
