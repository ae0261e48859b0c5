"""Stop the jobs, look at what is left, and let them run again."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from subvocab import _atomic
from subvocab.integrations import unfinished
from tests.faults.jobs import JOBS, Job
from tests.faults.tracer import REMOVING, Fate, Outcome, stopped_at

NEVER = 1 << 62
HIDDEN = ".*.staged"


@dataclass
class Tally:
    """What came of stopping one job in one way.

    Attributes:
        operations: At how many places it can be stopped so.
        found: How often the old or the new state was found, by word.
        faults: What must not be, in words.
    """

    operations: int
    found: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Trial:
    """One job, ready to be stopped again and again.

    Args:
        job: The job.
        folder: An empty folder to work in.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        # Leftovers of a process that died this very second are to be removed too.
        _atomic.LEFTOVER_SECONDS = unfinished.STILL_SECONDS = -1
        self.job = job
        self.folder = folder / "work"
        self.prepared = folder / "prepared"
        self.log = folder / "log"
        self.prepared.mkdir()
        job.prepare(self.prepared)
        self._renew()
        self.old = self._look()
        ended = self._run(NEVER, "killed")
        self.new = self._look()
        if ended.status or self.old == self.new:
            raise AssertionError(f"The job fails by itself: {self.log.read_text()}")

    def stop(self, fate: Fate, places: int | None) -> Tally:
        """Stop the job at its operations.

        Args:
            fate: In which way.
            places: At how many of them, evenly spread; None for all.

        Returns:
            What came of it.
        """
        self._renew()
        tally = Tally(self._run(NEVER, fate).seen)
        for number in _spread(tally.operations, places):
            self._renew()
            outcome = self._run(number, fate)
            for fault in self._faults(outcome, fate, tally):
                tally.faults.append(f"{fate} at {outcome.reached}, no. {number}: {fault}")
        return tally

    def _faults(self, outcome: Outcome, fate: Fate, tally: Tally) -> Iterator[str]:
        """Look at what is left, and tell what must not be."""
        try:
            found = self._look()
        except Exception as error:  # noqa: BLE001  whatever it is, it is told
            yield f"what is left cannot be read: {error!r}"
            return
        state = {True: "old", False: "torn"}[found == self.old]
        state = "new" if found == self.new else state
        tally.found[state] += 1
        if state == "torn":
            yield "what is left is neither the old nor the new"
        if fate in ("EIO", "ENOSPC") and self.job.speaks:
            yield from self._faults_of_a_message(outcome)
        # It was there already, and nothing is ever overwritten.
        if state == "new" and self.old is None:
            return
        again = self._run(NEVER, "killed")
        if again.status or self._look() != self.new:
            yield f"it cannot be done again: {self.log.read_text().strip()[-300:]}"
        elif left := self._left():
            yield f"there is left: {', '.join(left)}"

    def _faults_of_a_message(self, outcome: Outcome) -> Iterator[str]:
        """A failure is told once, with the name of the file, and nothing hidden stays."""
        lines = self.log.read_text().strip().splitlines()
        if outcome.status == 0:
            if outcome.reached in ("read", "pread", "preadv"):
                yield "it went on without what could not be read"
            return
        message = lines[-1] if lines else ""
        if str(self.folder) not in message:
            yield f"the message names no file: {message!r}"
        if self.job.command and (outcome.status != 2 or len(lines) != 1):
            yield f"a command ends with status {outcome.status} and says {lines}"
        if not re.match(r"(subvocab: |OSError|FileNotFoundError|subvocab\.errors\.)", message):
            yield f"it is no error of the system or of ours: {message!r}"
        if outcome.reached not in REMOVING and (left := self._left()):
            yield f"there is left: {', '.join(left)}"

    def _left(self) -> list[str]:
        """Name what is hidden, but for what lies in a checkpoint that was set aside as it was."""
        found = (str(path.relative_to(self.folder)) for path in self.folder.rglob(HIDDEN))
        return sorted(name for name in found if "unfinished-" not in name)

    def _run(self, number: int, fate: Fate) -> Outcome:
        return stopped_at(
            lambda: self.job.act(self.folder),
            number,
            fate,
            self.folder,
            log=self.log,
        )

    def _look(self) -> object:
        merged = self.folder.parent / "merged"
        shutil.rmtree(merged, ignore_errors=True)
        return self.job.look(self.folder)

    def _renew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.prepared, self.folder)


def _spread(count: int, places: int | None) -> list[int]:
    """Choose some of the numbers from 1 on, the first and the last among them."""
    if places is None or places >= count:
        return list(range(1, count + 1))
    return sorted({1 + at * (count - 1) // max(1, places - 1) for at in range(places)})


def all_trials(places: int | None, *, only: str = "") -> Iterator[tuple[str, Fate, Tally]]:
    """Stop every job in every way.

    Args:
        places: At how many operations of each job and way; None for all.
        only: A part of the names of the jobs wanted.

    Yields:
        The job's name, the way, and what came of it.
    """
    quick = Path("/dev/shm")  # noqa: S108  no data is kept, and a disk's pace is not the matter
    where = quick if os.access(quick, os.W_OK) else None
    for name, job in JOBS.items():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory(prefix="subvocab-faults-", dir=where) as folder:
            trial = Trial(job, Path(folder))
            for fate in get_args(Fate):
                yield name, fate, trial.stop(fate, places)
