"""Train one peer on one task, in the peer's own environment, and measure.

``python -m benchmarks.peers.trial ADAPTER TASK OUT`` prints one line of JSON, and writes the whole
model's weights into OUT. TASK may be a folder of tasks: each is tried, and may fail.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.peers.task import FILE, Task
from subvocab.model.peak_memory import PeakMemory

WARM_UP = 2
WEIGHTS = "weights.safetensors"
LONGEST = 300
"""Of an error that is kept."""


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start


def run(adapter: str, folder: Path, out: Path) -> dict[str, Any]:
    """Do all that a user of a peer does, and time each part.

    Args:
        adapter: The module of the peer.
        folder: The task.
        out: Where its whole weights are written.

    Returns:
        Seconds of each part, losses, rows of the whole matrix, the peak of memory and the size of
        a checkpoint, in bytes.
    """
    out.mkdir()
    peer = import_module(f"benchmarks.peers.{adapter}").Peer(Task.load(folder), folder)
    peer.import_libraries()
    seconds: dict[str, float] = {}
    steps, losses = [], []
    with PeakMemory() as memory:
        with _timed(seconds, "scan"):
            peer.scan()
        with _timed(seconds, "prepare"):
            model = peer.make()
        batches = peer.batches()
        optimizers = peer.optimizers(model)
        model.train()
        torch.manual_seed(2)  # dropout
        for batch in batches:
            start = time.perf_counter()
            loss = model(**batch).loss
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
            steps.append(time.perf_counter() - start)
    del optimizers
    with _timed(seconds, "save"):
        peer.save(model, out / "checkpoint")
    size = sum(file.stat().st_size for file in (out / "checkpoint").rglob("*") if file.is_file())
    with _timed(seconds, "merge"):
        merges = peer.merge(out / "checkpoint", out / "merged")
    if not merges:
        del seconds["merge"]
    with _timed(seconds, "restore"):
        model = peer.restore(model)
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(state, out / WEIGHTS)
    seconds["step"] = statistics.median(steps[WARM_UP:] or steps)
    return {
        "seconds": seconds,
        "losses": losses,
        "rows": model.get_input_embeddings().num_embeddings,
        "memory": memory.peak_bytes,
        "checkpoint": size,
    }


def try_all(adapter: str, folder: Path, out: Path) -> dict[str, Any]:
    """Try a peer on each task in a folder.

    Args:
        adapter: The module of the peer.
        folder: It holds folders of tasks.
        out: It gets a folder for each.

    Returns:
        As from `run`, by the name of the task, or what was raised.
    """
    out.mkdir()
    found: dict[str, Any] = {}
    for task in sorted(folder.iterdir()):
        try:
            found[task.name] = run(adapter, task, out / task.name)
        except Exception as error:  # noqa: BLE001  whatever a peer raises is what is asked
            said = " ".join(f"{type(error).__name__}: {error}".split())
            found[task.name] = {"error": said[:LONGEST]}
    return found


def main() -> None:
    """Run what the arguments say."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    adapter, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    found = (run if (folder / FILE).exists() else try_all)(adapter, folder, out)
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
