"""Tests of where merging writes: over nothing that is there, and all of it or nothing."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from subvocab.errors import CheckpointError
from subvocab.storage import merge_rows
from tests.unit.storage.checkpoints import ROWS, merged, names, refused

# The target


def test_merge_rows_writes_into_an_empty_folder(base: Path, tmp_path: Path) -> None:
    """A folder made beforehand is taken."""
    (tmp_path / "out").mkdir()

    merge_rows(base, tmp_path / "out", ROWS)

    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["full", "file", "link", "base"])
def test_merge_rows_overwrites_nothing(base: Path, tmp_path: Path, kind: str) -> None:
    """Whatever is there stays."""
    out = tmp_path / "out"
    if kind == "full":
        out.mkdir()
        (out / "mine").write_text("mine")
    elif kind == "file":
        out.write_text("mine")
    elif kind == "link":
        (tmp_path / "empty").mkdir()
        out.symlink_to(tmp_path / "empty")
    else:
        out = base

    with refused(
        CheckpointError,
        f"{out} exists already, and nothing is ever overwritten. Name a new folder, or an empty "
        "one.",
    ):
        merge_rows(base, out, ROWS)


def test_merge_rows_refuses_a_target_inside_the_base(base: Path) -> None:
    """The new checkpoint would be part of the old one."""
    with refused(
        CheckpointError,
        f"{base}/1_Pooling/out lies inside {base}, which is copied. Name a folder outside it.",
    ):
        merge_rows(base, base / "1_Pooling" / "out", ROWS)


def test_merge_rows_refuses_a_target_without_a_parent(base: Path, tmp_path: Path) -> None:
    """A misspelt path makes no folders."""
    with refused(
        CheckpointError, f"There is no folder {tmp_path}/typo to write `out` in. Make it."
    ):
        merge_rows(base, tmp_path / "typo" / "out", ROWS)


def test_merge_rows_gives_way_to_a_folder_that_appears(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have taken the name in the meantime."""
    out = tmp_path / "out"
    rename = Path.rename

    def occupy(self: Path, target: Path) -> Path:
        out.mkdir()
        (out / "theirs").write_text("theirs")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", occupy)

    with pytest.raises(CheckpointError, match="out exists already, and nothing is"):
        merge_rows(base, out, ROWS)
    assert names(tmp_path) == {*(f"base/{name}" for name in names(base)), "out/theirs"}


# Failures on the way


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
@pytest.mark.parametrize("call", ["fsync", "copy_file_range", "pwrite", "fchmod"])
def test_merge_rows_leaves_nothing_when_it_fails(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    failure: BaseException,
) -> None:
    """Whatever step fails: no target, no staged files, and the base as it was."""

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, fail)

    with pytest.raises(type(failure)):
        merge_rows(base, tmp_path / "out", ROWS)
    assert os.listdir(tmp_path) == ["base"]  # noqa: PTH208  hidden ones too


def test_merge_rows_shows_other_failures_to_rename(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is not ours to explain is passed on."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", fail)

    with pytest.raises(OSError, match="Input/output error"):
        merge_rows(base, tmp_path / "out", ROWS)
    assert os.listdir(tmp_path) == ["base"]  # noqa: PTH208


def test_merge_rows_notices_a_base_that_changes(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of half the old and half the new file is no copy."""
    copy_file_range = os.copy_file_range

    def change(source: int, target: int, count: int, offset: int) -> int:
        os.truncate(base / "config.json", 1)
        return copy_file_range(source, target, count, offset)

    monkeypatch.setattr(os, "copy_file_range", change)

    with pytest.raises(CheckpointError, match=r"has changed since `config.json` was opened"):
        merge_rows(base, tmp_path / "out", ROWS)


def test_merge_rows_notices_a_base_that_ends_early(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file cut short while it is copied must not be waited for."""

    def cut(*_: object) -> int:
        os.truncate(base / "config.json", 0)
        return 0

    monkeypatch.setattr(os, "copy_file_range", cut)
    monkeypatch.setattr(os, "sendfile", cut)

    with pytest.raises(CheckpointError, match=r"has changed since `config.json` was opened"):
        merge_rows(base, tmp_path / "out", ROWS)


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.ENOSYS, None])
def test_merge_rows_copies_where_blocks_cannot_be_shared(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int | None
) -> None:
    """Between file systems, and where the system call fails or copies nothing."""

    def unsupported(*_: object) -> int:
        if reason is None:
            return 0
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "copy_file_range", unsupported)

    merge_rows(base, tmp_path / "out", ROWS)

    assert np.array_equal(load_file(tmp_path / "out" / "model.safetensors")["e"], merged())


def test_merge_rows_looks_for_space_first(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of copying must not end in a full disk that could be foreseen."""
    needed = sum((base / name).stat().st_size for name in names(base))
    usage = shutil.disk_usage(tmp_path)._replace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(CheckpointError) as caught:
        merge_rows(base, tmp_path / "out", ROWS)

    assert str(caught.value) == (
        f"Writing to {tmp_path} needs {needed:,} bytes, but {needed - 1:,} are free. Free some, or "
        "write to another disk."
    )
    assert os.listdir(tmp_path) == ["base"]  # noqa: PTH208


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_merge_rows_explains_a_disk_that_fills(
    base: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Space may go to others while we write; then all is as it was."""
    os.truncate(base / "config.json", 2 << 20)
    usage = shutil.disk_usage

    def optimistic(folder: Path) -> object:
        monkeypatch.setattr(shutil, "disk_usage", usage)
        return usage(folder)._replace(free=1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", optimistic)

    with pytest.raises(
        CheckpointError,
        match=r"^The disk was full while writing\. Writing to .* needs 2,\d+,\d+ bytes, but [\d,]+ "
        r"are free\. Free some, or write to another disk\.$",
    ):
        merge_rows(base, small_disk / "out", ROWS)
    assert not os.listdir(small_disk)  # noqa: PTH208


def test_merge_rows_explains_a_disk_that_tells_late(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where space is given on flushing, a full disk shows there."""

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(CheckpointError, match=r"^The disk was full while writing\."):
        merge_rows(base, tmp_path / "out", ROWS)
