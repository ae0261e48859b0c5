"""This library and its peers, side by side: ``python -m benchmarks.peers [--reference PATH]``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import save_rows
from benchmarks.peers.compare import Learned, verdict
from benchmarks.peers.environments import python_of, run_in
from benchmarks.peers.task import Task
from benchmarks.peers.tasks import write_families, write_minilm, write_xlm_roberta

ADAPTERS = (
    "full",
    "subvocab_full",
    "smaller_vocab",
    "reference",
    "sparse_adam",
    "lora_modules",
    "subvocab_lora",
    "lora_tokens",
)
TIMES = ("scan", "prepare", "step", "save", "merge", "restore")
NOTHING = 1e-3
"""Seconds: a part that a peer does not have."""
Row = dict[str, str]


class Bench:
    """Runs peers in their environments, each once a task.

    Args:
        reference: A checkout of the paper's code, or None.
        folder: For what the peers write.
    """

    def __init__(self, reference: str | None, folder: Path) -> None:
        self.reference, self.folder = reference, folder
        self._ran: dict[tuple[str, str, Path], tuple[Any, Path]] = {}

    def run(self, adapter: str, task: Path) -> tuple[Any, Path]:
        """Run a peer in its own environment; give what it found, and where it wrote."""
        return self._run(adapter, task, self._python(adapter))

    def beside(self, adapter: str, name: str, task: Path) -> tuple[Any, Path]:
        """Run what a peer is compared with, in the version of transformers that it needs."""
        of = adapter if _peer(adapter).transformers else name
        return self._run(name, task, self._python(of))

    def _python(self, adapter: str) -> Path:
        peer = _peer(adapter)
        named = {"reference": self.reference, "checkout": Path(__file__).parents[2]}
        return python_of(tuple(one.format(**named) for one in peer.requirements), peer.transformers)

    def _run(self, adapter: str, task: Path, python: Path) -> tuple[Any, Path]:
        key = (adapter, str(task), python)
        if key not in self._ran:
            print(f"    {_peer(adapter).name} ...", file=sys.stderr)
            out = self.folder / f"run-{len(self._ran)}"
            self._ran[key] = json.loads(run_in(python, adapter, str(task), str(out))), out
        return self._ran[key]


def _peer(adapter: str) -> Any:
    return import_module(f"benchmarks.peers.{adapter}").Peer


def side_by_side(bench: Bench, adapters: Iterable[str], task: Path, what: str) -> list[Row]:
    """Train every peer on one task.

    Args:
        bench: The peers.
        adapters: Which of them.
        task: The folder of the task.
        what: The task, in words.

    Returns:
        A row for each: seconds, and memory beside that of full fine-tuning.
    """
    rows = []
    for adapter in adapters:
        peer = _peer(adapter)
        found, out = bench.run(adapter, task)
        full, _ = bench.beside(adapter, "full", task)
        like, expected = bench.beside(adapter, peer.like, task)
        row = {"task": what, "peer": peer.name}
        row |= {f"{one} s": _number(found["seconds"].get(one)) for one in TIMES}
        row["step × full"] = _number(found["seconds"]["step"] / full["seconds"]["step"])
        row["peak MB"] = f"{found['memory'] / 1e6:.0f}"
        row["peak × full"] = _number(found["memory"] / full["memory"])
        row["checkpoint MB"] = f"{found['checkpoint'] / 1e6:.1f}"
        row["compared with"] = _peer(peer.like).name
        row["result"] = _verdict(task, like, expected, found, out)
        row["note"] = peer.note
        rows.append(row)
    return rows


def _verdict(task: Path, like: Any, expected: Path, found: Any, out: Path) -> str:
    one, two = (
        Learned(what["losses"], folder, what["rows"])
        for what, folder in ((like, expected), (found, out))
    )
    return verdict(one, two, Task.load(task).token_ids(task))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if value > NOTHING else "0"


def families(bench: Bench, adapters: Iterable[str], tasks: Path) -> list[Row]:
    """Try every peer on a tiny model of every family.

    Args:
        bench: The peers.
        adapters: Which of them.
        tasks: A folder of tasks.

    Returns:
        A row for each task, with what each peer makes of it.
    """
    rows = {task.name: {"model, head": task.name} for task in sorted(tasks.iterdir())}
    for adapter in adapters:
        peer = _peer(adapter)
        found, out = bench.run(adapter, tasks)
        like, expected = bench.beside(adapter, peer.like, tasks)
        for name, row in rows.items():
            if error := found[name].get("error") or like[name].get("error"):
                row[peer.name] = f"error: {error}"
            else:
                both = like[name], expected / name, found[name], out / name
                row[peer.name] = _verdict(tasks / name, *both)
    return list(rows.values())


def show(rows: list[Row]) -> None:
    """Print rows as a table."""
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("error" if cell.startswith("error") else cell for cell in row.values()))
    Console(width=None if sys.stdout.isatty() else 250).print(table)


def main() -> None:
    """Measure, print tables, and keep ``peers.csv`` and ``peers_families.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", help="a checkout of the paper's code; without it, left out")
    parser.add_argument("--only", nargs="+", choices=ADAPTERS, help="some of the peers")
    chosen = parser.parse_args()
    reference = chosen.reference and str(Path(chosen.reference).resolve())
    adapters = [
        one for one in chosen.only or ADAPTERS if one != "reference" or reference is not None
    ]
    rows: list[Row] = []
    for write in (write_minilm, write_xlm_roberta):
        with tempfile.TemporaryDirectory(prefix="subvocab-peers-") as folder:
            task = Path(folder, "task")
            task.mkdir()
            what = write(task)
            if what is None:
                print("SUBVOCAB_DATA is not set: XLM-R's table is left out.", file=sys.stderr)
                continue
            print(f"Measuring on {what} ...", file=sys.stderr)
            rows += side_by_side(Bench(reference, Path(folder)), adapters, task, what)
    with tempfile.TemporaryDirectory(prefix="subvocab-peers-") as folder:
        tasks = Path(folder, "tasks")
        write_families(tasks)
        print("Trying every family ...", file=sys.stderr)
        tried = families(Bench(reference, Path(folder)), adapters, tasks)
    for found in (rows, tried):
        show(found)
    if not chosen.only:
        save_rows("peers", rows)
        save_rows("peers_families", tried)


if __name__ == "__main__":
    main()
