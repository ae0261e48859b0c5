"""Start real processes that train together, and read what became of each case they ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

ROOT = Path(__file__).parents[2]
LONGEST_WAIT = timedelta(seconds=120)
"""For a rank whose partner failed."""


def launch(
    worker: str, folder: Path, *arguments: str, ranks: int = 2
) -> subprocess.CompletedProcess[str]:
    """Run a module of this folder in several processes, as ``torchrun`` does.

    Args:
        worker: The module's name.
        folder: Where it leaves its results; its first argument.
        *arguments: More of them.
        ranks: How many processes.

    Returns:
        How it ended, and what it said.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(ranks), "-m", f"tests.workers.{worker}", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=280,
    )


def run_cases(cases: Mapping[str, Callable[[Path], Any]], folder: Path) -> None:
    """Run each case in this rank, and write down what became of it.

    Args:
        cases: By name; each gets a folder that all ranks share.
        folder: Where to write.
    """
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    rank = distributed.get_rank()
    results: dict[str, str | None] = {}
    for name, case in cases.items():
        shared = folder / name
        shared.mkdir(parents=True, exist_ok=True)
        try:
            case(shared)
            results[name] = None
        except Exception:  # noqa: BLE001 - the test shows it
            results[name] = traceback.format_exc()
        (folder / f"rank{rank}.json").write_text(json.dumps(results), encoding="utf-8")
        distributed.barrier()
    distributed.destroy_process_group()


def results_of(folder: Path, ranks: int = 2) -> dict[str, list[str | None]]:
    """Read what `run_cases` wrote in every rank.

    Args:
        folder: Where.
        ranks: How many there were.

    Returns:
        For each case and rank the error, or None.
    """
    written = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    return {name: [one.get(name, "never reached") for one in written] for name in written[0]}


def assert_ranks_agree(state: Mapping[str, torch.Tensor]) -> None:
    """Compare every bit of a state dict with that of rank 0."""
    for name, value in state.items():
        theirs = value.detach().clone()
        distributed.broadcast(theirs, src=0)
        assert torch.equal(theirs, value), f"{name} differs between ranks"
