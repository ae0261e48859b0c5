"""Run every benchmark, or those that are named: ``python -m benchmarks scan load``."""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.harness import Measured, save, show

BENCHMARKS = (
    *("start", "scan", "load", "merge", "train", "plan", "head"),
    *("adapters", "ranks", "ray"),
)


def main() -> None:
    """Measure, print one table, and keep a CSV file a benchmark."""
    names = sys.argv[1:] or BENCHMARKS
    measured: list[Measured] = []
    for name in names:
        print(f"Measuring {name} ...", file=sys.stderr)
        found = import_module(f"benchmarks.bench_{name}").run()
        save(name, found)
        measured += found
    show(measured)


if __name__ == "__main__":
    main()
