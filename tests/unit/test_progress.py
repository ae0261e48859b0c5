"""Progress is shown where a person looks, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from subvocab._progress import progress_bar

PROGRAM = """
import sys
from subvocab._progress import progress_bar

with progress_bar("Scanning", total=2, enabled={enabled}) as advance:
    advance(1)
    advance(1)
print("rich" in sys.modules)
"""


def _on_a_terminal(*, enabled: bool) -> tuple[str, str]:
    """Run with a terminal as the standard error; give the standard output and what it showed."""
    controller, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(enabled=enabled)],
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        check=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    try:
        shown = os.read(controller, 1 << 16).decode()
    except OSError:  # nothing was written before the other end closed
        shown = ""
    os.close(controller)
    return done.stdout.strip(), shown


def test_progress_bar_is_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """Logs are not filled with bars."""
    with progress_bar("Scanning", total=2) as advance:
        advance(1)

    assert capfd.readouterr() == ("", "")


def test_progress_bar_shows_on_a_terminal() -> None:
    """A person sees what is being done; the standard output stays clean."""
    printed, shown = _on_a_terminal(enabled=True)

    assert printed == "True"
    assert "Scanning" in shown


def test_progress_bar_can_be_turned_off() -> None:
    """Callers decide, also on a terminal; then rich is not even imported."""
    assert _on_a_terminal(enabled=False) == ("False", "")


def test_progress_bar_passes_errors_on() -> None:
    """Work that fails fails."""
    with pytest.raises(ZeroDivisionError), progress_bar("Scanning", total=None):
        raise ZeroDivisionError
