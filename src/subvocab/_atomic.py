"""Write a file all at once or not at all."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from subvocab._typing import StrPath
from subvocab.errors import CheckpointError

RENAME_EXCHANGE, AT_WORKING_FOLDER = 2, -100
"""Of Linux's ``renameat2``."""
NEW_FILE_MODE = 0o666
LEFTOVER_SECONDS = 60
"""What is younger may be about to be locked by the process that made it."""


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
    flushed to disk. A process killed outright leaves a hidden file, which the next
    one that writes ``path`` removes.

    Args:
        path: The file to write. It may exist.
        mode: Permission bits of the result. By default those of ``path`` if it
            exists, else those that ``open`` would give (``tempfile`` gives 0600).

    Yields:
        The staged file, empty. If the block raises, it is removed and ``path`` is
        as it was.

    Raises:
        CheckpointError: If ``path`` is a device or a pipe, which a file would displace.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CheckpointError(
            f"{path} is a device or a pipe, expected the name of a file to write."
        )
    if mode is None:
        mode = path.stat().st_mode & 0o7777 if path.exists() else NEW_FILE_MODE & ~_umask()
    staged = _staged_beside(path)
    try:
        with naming(path, staged):
            staged.touch(mode=0o600, exist_ok=False)
            with locked(staged):
                yield staged
                staged.chmod(mode)
                flush_to_disk(staged)
                staged.replace(path)
                flush_to_disk(path.parent)
    finally:
        with suppress(OSError):  # it has become the target, or what went wrong is told already
            staged.unlink()


def _staged_beside(target: Path) -> Path:
    """Name what will become a target, and remove what killed processes had staged for it."""
    remove_leftovers(target.parent, f".{escape(target.name)}.{'[0-9a-f]' * 16}.staged")
    return target.parent / f".{target.name}.{secrets.token_hex(8)}.staged"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Tell other processes that a file or folder is in use: `remove_leftovers` spares it.

    Args:
        path: What exists.

    Yields:
        Nothing. The lock ends with the block, or with the process.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> None:
    """Lock an open file until its last descriptor is closed.

    Args:
        descriptor: Of a file or folder that no other process uses yet. Where the file
            system has no locks, nothing is locked, and nothing is ever left over.
    """
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove what is locked by nobody: those that wrote it were killed.

    Args:
        folder: Where to look.
        pattern: Which names, such that only this library gives them.
    """
    for path in folder.glob(pattern):
        with suppress(OSError):  # it is in use, or gone, or another user's
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_mtime < time.time() - LEFTOVER_SECONDS:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


@contextmanager
def naming(path: Path, staged: Path | None = None) -> Iterator[None]:
    """Let the system's errors name the file that was asked for.

    Args:
        path: The file. It is named where the system knew a descriptor only.
        staged: What is written in its place; errors that name it, or what lies in it, name
            ``path`` instead.

    Yields:
        Nothing.
    """
    try:
        yield
    except OSError as error:
        named = str(error.filename or path)
        error.filename = named.replace(str(staged), str(path), 1) if staged else named
        raise


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
    outright leaves a hidden folder, which the next one that makes ``out`` removes, and
    never half a target.

    Args:
        out: The folder to make. It may exist if it is empty.

    Yields:
        The staged folder, empty. If the block raises, it is removed.

    Raises:
        CheckpointError: If ``out`` holds something, or has no folder to lie in.
    """
    check_new_folder(out)
    staged = _staged_beside(out)
    try:
        with naming(out, staged):
            staged.mkdir()
            with locked(staged):
                yield staged
                _flush_all(staged)
                _rename_to_new(staged, out)
            flush_to_disk(out.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def replacing_folder(folder: Path, superseded: re.Pattern[str]) -> Iterator[Path]:
    """Yield a folder to fill; on a clean exit it takes the place of another, all at once.

    Args:
        folder: The folder to replace. It need not exist.
        superseded: Names of files in it that go even if no new one has that name. All other
            files and folders stay.

    Yields:
        The staged folder, empty. If the block raises, it is removed and ``folder`` is as it
        was.

    Raises:
        CheckpointError: If ``folder`` is a file.
    """
    folder = folder.resolve()  # a link to a folder stays one
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, expected a folder. Name another.")
    staged = _staged_beside(folder)
    try:
        with naming(folder, staged):
            staged.mkdir(parents=True)
            with locked(staged):
                yield staged
                if folder.is_dir():
                    _take_over(folder, staged, superseded)
                _flush_all(staged)
                if folder.is_dir():
                    _exchange(staged, folder)
                else:
                    staged.rename(folder)
            flush_to_disk(folder.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _take_over(old: Path, new: Path, superseded: re.Pattern[str]) -> None:
    """Let a new folder have what it lacks of an old one."""
    shutil.copymode(old, new)
    for entry in old.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=_link)
        elif not (superseded.fullmatch(entry.name) or os.path.lexists(new / entry.name)):
            _link(entry, new / entry.name)


def _link(file: StrPath, name: StrPath) -> StrPath:
    """Give a file a second name; copy it where the file system cannot."""
    try:
        os.link(file, name, follow_symlinks=False)
    except OSError:
        shutil.copy2(file, name, follow_symlinks=False)
    return name


def _exchange(staged: Path, folder: Path) -> None:
    """Let two folders change places; where the system cannot, by way of a third name."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        failed = libc.renameat2(
            AT_WORKING_FOLDER, bytes(staged), AT_WORKING_FOLDER, bytes(folder), RENAME_EXCHANGE
        )
    except AttributeError:  # not Linux
        failed = True
    if failed:
        # A visible name: if the process ends right here, nothing removes it.
        aside = folder.with_name(f"{folder.name}.before-{secrets.token_hex(4)}")
        folder.rename(aside)
        try:
            staged.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        aside.rename(staged)


def _rename_to_new(staged: Path, out: Path) -> None:
    """Put a folder in its place, if nothing came there meanwhile."""
    try:
        staged.rename(out)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            check_new_folder(out)
        raise


def _flush_all(folder: Path) -> None:
    """Make a folder and all that is in it survive a power cut."""
    for below, _, files in os.walk(folder):
        for file in files:
            flush_to_disk(Path(below, file))
        flush_to_disk(Path(below))


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
