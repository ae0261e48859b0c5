"""Checkpoints of a Trainer whose process ended while it wrote them.

A Trainer writes file by file, and goes on from the folder with the highest number, whatever is in
it.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

STILL_SECONDS = 10.0
"""A checkpoint in which nothing was written for so long is not being written."""

logger = logging.getLogger("subvocab")


def set_unfinished_aside(output_dir: Path) -> None:
    """Rename checkpoints that were not finished, lest the Trainer take one for the last.

    A Trainer goes on from the folder with the highest number. Its last file is
    ``trainer_state.json``: without it the process ended while it was writing.

    Args:
        output_dir: The Trainer's. A folder in which something was written just now is left
            alone: another process may be training there.
    """
    for folder in sorted(output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        if folder.is_dir() and not is_finished(folder) and _is_still(folder):
            aside = folder.with_name(f"unfinished-{folder.name}-{time.time_ns()}")
            folder.rename(aside)
            logger.warning("%s was not finished, and is set aside as %s.", folder, aside.name)


def is_finished(folder: Path) -> bool:
    """Tell whether the last file of a checkpoint is there and whole.

    Args:
        folder: The checkpoint's.

    Returns:
        False if the process that wrote it ended before. A disk that fails says nothing about
        that, and is an `OSError`.
    """
    try:
        json.loads((folder / TRAINER_STATE_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


def _is_still(folder: Path) -> bool:
    """Tell whether nothing is written in a folder; wait and look again if something was."""

    def latest() -> float:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))

    found = latest()
    time.sleep(max(0.0, min(STILL_SECONDS, found + STILL_SECONDS - time.time())))
    return latest() == found
