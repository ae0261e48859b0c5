"""What writes is stopped at a few of its file operations; ``make faults`` stops it at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.tracer import Fate, stopped_at, why_not

FATES: tuple[Fate, ...] = ("killed", "half done", "EIO")
pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"{why_not()}")


def write_two(folder: Path) -> None:
    """Write two files, and read one."""
    for name in ("first", "second"):
        (folder / name).write_bytes(b"12345678")
    (folder / "first").read_bytes()


@pytest.mark.parametrize(
    ("number", "fate", "reached", "status", "left"),
    [
        (1, "killed", "openat", -signal.SIGKILL, {}),
        (2, "killed", "write", -signal.SIGKILL, {"first": b""}),
        (3, "killed", "openat", -signal.SIGKILL, {"first": b"12345678"}),
        (1, "half done", "write", -signal.SIGKILL, {"first": b"1234"}),
        (2, "EIO", "write", 1, {"first": b""}),
        (3, "ENOSPC", "openat", 1, {"first": b"12345678"}),
        (99, "killed", None, 0, {"first": b"12345678", "second": b"12345678"}),
    ],
)
def test_a_process_is_stopped_where_it_was_told(  # noqa: PLR0917
    number: int,
    fate: Fate,
    reached: str | None,
    status: int,
    left: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """The trials are worth something only if what stops processes does so."""
    folder = tmp_path / "work"
    folder.mkdir()

    outcome = stopped_at(
        lambda: write_two(folder),
        number,
        fate,
        folder,
        log=tmp_path / "log",
    )

    assert (outcome.reached, outcome.status) == (reached, status)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == left
    named = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}.get(fate, "")
    assert named in (tmp_path / "log").read_text()


def test_a_read_that_fails_is_counted_where_reads_may_fail(tmp_path: Path) -> None:
    """Killing at a read shows nothing; failing there does."""
    folder = tmp_path / "work"
    folder.mkdir()
    seen = [
        stopped_at(lambda: write_two(folder), 99, fate, folder, log=tmp_path / "log").seen
        for fate in FATES
    ]

    assert seen[:2] == [4, 2]
    assert seen[2] > seen[0]


@pytest.mark.slow
def test_always_the_old_or_the_new(tmp_path: Path) -> None:
    """Killed or failing anywhere: one of the two, whole; told once; and done by the next run."""
    places = os.environ.get("FAULT_PLACES", "2")
    command = [sys.executable, "-m", "tests.faults", "--places", places]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}

    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=280
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 faults" in ended.stdout
