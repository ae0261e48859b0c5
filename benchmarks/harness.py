"""What all benchmarks share: a measurement, child processes, a table and a CSV file."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Ways = Mapping[str, Callable[[], object]]
"""Several ways of doing a thing, by name."""
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "safetensors", "numpy", "numba")


@dataclass(frozen=True)
class Measured:
    """One figure.

    Attributes:
        question: What was asked.
        value: The answer.
        unit: Of the answer, such as ``×``.
        must: The bound to keep, or None where there is none.
        aim: What would be better still, in words or as a number.
        conditions: Under which it was measured.
        more_is_better: Whether the bound is a lower one.
    """

    question: str
    value: float
    unit: str
    must: float | None
    aim: str
    conditions: str
    more_is_better: bool = False

    @property
    def verdict(self) -> str:
        """Whether the bound is kept."""
        if self.must is None:
            return ""
        kept = self.value >= self.must if self.more_is_better else self.value <= self.must
        return "pass" if kept else "FALLS SHORT"


def best_seconds(ways: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Time several ways of doing a thing, in turn, so that a slow minute slows them all.

    Args:
        ways: What to call, by name.
        repeats: How often each is called.

    Returns:
        The best time of each, which is the one that least else disturbed.
    """
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for way, work in ways.items():
            start = time.perf_counter()
            work()
            best[way] = min(best[way], time.perf_counter() - start)
    return best


def in_child(module: str, function: str, *arguments: Any) -> Any:
    """Call a function in a process of its own, so that its memory is its own.

    Args:
        module: Where it is, such as ``benchmarks.bench_load``.
        function: Its name.
        *arguments: What JSON can carry.

    Returns:
        What it returned.
    """
    code = (
        "import json, sys; from importlib import import_module; "
        "module, function, arguments = json.loads(sys.argv[1]); "
        "print(json.dumps(getattr(import_module(module), function)(*arguments)))"
    )
    call = json.dumps([module, function, arguments])
    command = [sys.executable, "-W", "ignore", "-c", code, call]
    quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=quiet)
    return json.loads(done.stdout.splitlines()[-1])


def show(measured: Iterable[Measured]) -> None:
    """Print measurements as a table.

    Args:
        measured: The measurements.
    """
    table = Table("question", "measured", "must", "aim", "", "conditions")
    for one in measured:
        sign = "≥" if one.more_is_better else "≤"
        must = "" if one.must is None else f"{sign} {one.must:g} {one.unit}"
        table.add_row(
            one.question, f"{one.value:.3g} {one.unit}", must, one.aim, one.verdict, one.conditions
        )
    Console().print(table)


def save(name: str, measured: Iterable[Measured]) -> None:
    """Write measurements to a CSV file, with the machine and the versions they hold for.

    Args:
        name: Of the benchmark; names the file.
        measured: The measurements.
    """
    save_rows(name, [{**asdict(one), "verdict": one.verdict} for one in measured])


def save_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to a CSV file, with the machine and the versions they hold for.

    Args:
        name: Of the file, without its ending.
        rows: With the same columns; at least one.
    """
    RESULTS.mkdir(exist_ok=True)
    complete = [{**row, **circumstances()} for row in rows]
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(complete[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(complete)


def circumstances() -> dict[str, str]:
    """Tell where and with what the figures were taken."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "versions": " ".join(f"{name} {version(name)}" for name in PACKAGES),
        "date": datetime.now(tz=UTC).date().isoformat(),
    }
