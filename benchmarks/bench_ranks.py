"""Does training a shrunk model on two ranks cost what a natively small one costs?"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from benchmarks import encoder
from benchmarks.bench_train import batches_for, model_for
from benchmarks.harness import Measured, in_child

MUST = 1.03
RANKS = 2
STEPS, WARM_UP = 60, 5
WAYS = ("partial", "native")


def run() -> list[Measured]:
    """Measure both ways by turns, in the same processes.

    Returns:
        The ratio of their step times.
    """
    with TemporaryDirectory(prefix="subvocab-bench-") as folder:
        in_child("benchmarks.encoder", "write_checkpoint", folder, "float32")
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
        command = [sys.executable, "-m", *launcher, "-m", __name__, folder, str(STEPS)]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=one_thread)
        times = json.loads((Path(folder) / "times.json").read_text())
    milliseconds = ", ".join(f"{way} {times[way] * 1e3:,.0f} ms" for way in WAYS)
    return [
        Measured(
            f"DDP, {RANKS} ranks: step time beside a natively small model",
            times["partial"] / times["native"],
            "×",
            MUST,
            "1 ×",
            f"gloo, one thread a rank, AdamW, batch {encoder.BATCH[0]}×{encoder.BATCH[1]} a rank, "
            f"{encoder.PARTIAL_VOCAB_SIZE:,} rows of {encoder.DIM}; {milliseconds}",
        )
    ]


def measure(folder: str, steps: int) -> None:
    """Train both ways by turns on this rank; the first writes what it measured.

    Args:
        folder: The checkpoint, and where the times go.
        steps: How many to time.
    """
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    models = {way: DistributedDataParallel(model_for(folder, way)) for way in WAYS}
    step = {way: encoder.training_step(model) for way, model in models.items()}
    batches = {way: batches_for(way, steps + WARM_UP) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(steps + WARM_UP):
        for way in WAYS if number % 2 else reversed(WAYS):
            distributed.barrier()
            start = time.perf_counter()
            step[way](batches[way][number])
            seconds[way].append(time.perf_counter() - start)
    if distributed.get_rank() == 0:
        medians = {way: statistics.median(taken[WARM_UP:]) for way, taken in seconds.items()}
        (Path(folder) / "times.json").write_text(json.dumps(medians))
    distributed.destroy_process_group()


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]))
