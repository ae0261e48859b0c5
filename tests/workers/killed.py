"""A run that is killed again and again while it writes checkpoints, in a process without threads.

``python -m tests.workers.killed FOLDER compact|whole``: a process is forked for each run, which a
process with the threads of other libraries cannot do safely.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers.trainer_utils import get_last_checkpoint

from subvocab.integrations import unfinished
from tests.reference import assert_equal_states
from tests.trainer_runs import shrunk, trainer_of

KILLS = 12
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
MODEL = "model.safetensors"


def train(folder: Path, *, compact: bool) -> None:
    """Do what a script does that is started again after each interruption."""
    trainer = trainer_of(
        shrunk("gpt2 lm"),
        folder,
        watch={"compact": compact},
        num_train_epochs=10,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
        logging_strategy="no",
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) is not None)
    trainer.save_model(folder / "final")


def forked(work: Callable[[], None]) -> int:
    """Run something in a process of its own, which has all modules already."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as sys.stdout:
            work()
        status = 0
    except KeyboardInterrupt:
        status = 2
    finally:
        os._exit(status)


def wait_for_progress(folder: Path, child: int) -> bool:
    """Wait until a process writes; tell whether it still runs. One that does neither is ended."""
    began = time.monotonic()
    seen = {path.name for path in folder.glob("checkpoint-*")}
    while time.monotonic() - began < 60:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        if {path.name for path in folder.glob("checkpoint-*")} - seen:
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)  # it holds this process's output open
    raise TimeoutError(f"No checkpoint in {folder} for a minute.")


def main() -> None:
    """Kill a run by every signal, at many moments, and see that it ends as if it had not been."""
    base, compact = Path(sys.argv[1]), sys.argv[2] == "compact"
    unfinished.STILL_SECONDS = 0.1
    torch.set_num_threads(1)
    # All bars of forked processes share a lock, which a killed one would never give back.
    transformers.logging.disable_progress_bar()
    chance = random.Random(0)  # noqa: S311
    train(base / "whole", compact=compact)
    folder = base / "killed"
    folder.mkdir()
    for number in range(KILLS):
        child = forked(lambda: train(folder, compact=compact))
        if wait_for_progress(folder, child):
            # Every other time at once, while the checkpoint is being written.
            time.sleep(chance.uniform(0, 0.15) if number % 2 else 0)
            os.kill(child, SIGNALS[number % len(SIGNALS)])
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, 2, *(-s for s in SIGNALS)), number

    train(folder, compact=compact)

    expected, found = (load_file(base / name / "final" / MODEL) for name in ("whole", "killed"))
    assert_equal_states(found, expected)
    assert list(folder.glob("unfinished-checkpoint-*")), "no kill came while it was writing"


if __name__ == "__main__":
    main()
