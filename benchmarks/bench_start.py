"""How long until the library is there, and its command line? Python's own start is not counted."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.harness import Measured

REPEATS = 9
STARTS = (
    ("import subvocab", ("-c", "import subvocab"), 0.3),
    ("subvocab --help", ("-m", "subvocab", "--help"), 0.5),
)


def _seconds(arguments: tuple[str, ...]) -> float:
    """Take the median time of a new process, after one that filled the caches."""
    taken = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def run() -> list[Measured]:
    """Start processes; some seconds.

    Returns:
        Seconds of the import, and of the help.
    """
    bare = _seconds(("-c", "pass"))
    return [
        Measured(
            f"start: {name}",
            _seconds(arguments) - bare,
            "s",
            must,
            "",
            f"median of {REPEATS} processes, beyond the {bare * 1e3:.0f} ms of an empty one",
        )
        for name, arguments, must in STARTS
    ]
