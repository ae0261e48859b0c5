"""A process that is killed again and again while it writes checkpoints, and goes on each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "compact"])
def test_a_run_that_is_killed_while_saving_ends_as_if_it_had_not_been(
    tmp_path: Path, kind: str
) -> None:
    """By whatever signal, at whatever moment: what it was writing is set aside."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.workers.killed", str(tmp_path), kind]

    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=280
    )

    assert ended.returncode == 0, ended.stderr
