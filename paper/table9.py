"""Table 9: the time that applying PEMA takes, as a share of fine-tuning on GLUE.

Counted as applying: the scan of all splits, loading the model with E′, and merging the compact
checkpoint into a whole one. Loading and writing are counted in full, though fine-tuning without
PEMA loads and writes too: the shares are upper bounds.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from transformers import PreTrainedModel

if not __package__:  # run as a script: python paper/table9.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

import subvocab as sv
from paper import _jobs
from paper._cells import CannotRunError, Found, Printed, fill, write_csv
from paper._command import (
    DataOption,
    JsonOption,
    OutOption,
    TasksOption,
    checked_folder,
    print_with_details,
)
from paper._glue import TASKS
from paper._metrics import accuracy
from paper._training import Rows, Setting, load, train
from subvocab.cli.console import check_writable, exits_cleanly, quiet_libraries

NAME = "table9"
TITLE = "Table 9: the time that applying PEMA takes, of fine-tuning on GLUE"
SECONDS, SHARE = "apply_seconds", "apply_share_percent"
EXTREMES = {"least of all tasks": min, "most of all tasks": max}
STEPS, WARM_UP = 20, 3
"""Steps that are timed, and those before them that are not."""


@dataclass(frozen=True)
class Runtime:
    """What one task took.

    Attributes:
        scan_seconds: Counting the tokens of all splits.
        load_seconds: Loading the model with E′.
        merge_seconds: Saving the compact checkpoint and merging it on disk.
        training_seconds: Fine-tuning, all steps.
        timed_steps: How many of them were timed; the others are taken to be alike.
        steps: All steps.
    """

    scan_seconds: float
    load_seconds: float
    merge_seconds: float
    training_seconds: float
    timed_steps: int
    steps: int

    @property
    def apply_seconds(self) -> float:
        """The time that PEMA takes."""
        return self.scan_seconds + self.load_seconds + self.merge_seconds

    @property
    def apply_share_percent(self) -> float:
        """The same, of the time that fine-tuning takes."""
        return 100 * self.apply_seconds / self.training_seconds

    @property
    def words(self) -> str:
        """Of what the figures are made."""
        timed = f"{self.timed_steps:,} of {self.steps:,} steps timed"
        extrapolated = "" if self.timed_steps == self.steps else ", the others taken to be alike"
        return (
            f"scan {self.scan_seconds:.2f} s, load {self.load_seconds:.2f} s, merge "
            f"{self.merge_seconds:.2f} s, fine-tuning {self.training_seconds:,.1f} s ({timed}"
            f"{extrapolated})"
        )


def measure_task(model: _jobs.Model, task: str, data: Path | None, setting: Setting) -> Runtime:
    """Apply PEMA to a task, and train a few steps or all.

    Args:
        model: The model.
        task: The task.
        data: The folder of data sets, or None for the Hub.
        setting: How to train; its ``steps`` are those to take, 0 for all.

    Returns:
        What it took.

    Raises:
        CannotRunError: If the task is not at hand.
        DataError: If a file is not as GLUE ships it.
    """
    rows = _jobs.encode(model, task, data, setting)
    parts = [rows.train, *rows.evaluation.values()]
    parts += _jobs.encode_unlabelled(model, task, data, setting)
    seconds: dict[str, float] = {}
    _jobs.count([rows.train.select(range(1))], model)  # what is compiled is compiled once a machine
    with _timed(seconds, "scan"):
        vocabulary = _jobs.count(parts, model).partial_vocabulary()
    with _timed(seconds, "load"):
        loaded = load(model.folder, model.tokenizer, rows.num_labels, setting, vocabulary)
    with _timed(seconds, "merge"):
        merge(loaded, model.folder)
    del loaded
    alone = Rows(rows.train, {}, rows.num_labels, rows.task_rows)
    trained = train(
        model.folder, model.tokenizer, alone, setting, vocabulary=vocabulary, metric=accuracy
    )
    steps = math.ceil(math.ceil(len(rows.train) / setting.batch_size) * setting.epochs)
    timed = trained.step_seconds
    if len(timed) < steps:
        timed = timed[WARM_UP:]
    training = sum(timed) if len(timed) == steps else statistics.fmean(timed) * steps
    return Runtime(seconds["scan"], seconds["load"], seconds["merge"], training, len(timed), steps)


def merge(model: PreTrainedModel, base: Path) -> None:
    """Save a compact checkpoint and make a whole one of it; both are dropped.

    Args:
        model: A shrunk model. That it has not been trained makes no difference to the time.
        base: The checkpoint it was loaded from.
    """
    with TemporaryDirectory(prefix="subvocab-paper-") as folder:
        sv.save_compact(model, Path(folder) / "compact")
        sv.merge(Path(folder) / "compact", base=base, out=Path(folder) / "whole", progress=False)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Note how long a phase takes."""
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start


@dataclass
class Runner:
    """Measures what a cell needs when it is asked for, and keeps it.

    Attributes:
        places: Folder or name on the Hub, by model.
        data: The folder of data sets, or None for the Hub.
        setting: How to train.
        found: What was measured so far, by model and task.
    """

    places: Mapping[str, str]
    data: Path | None
    setting: Setting
    found: dict[tuple[str, str], Runtime] = field(default_factory=dict)

    def measure(self, cell: Printed) -> Found:
        """Find our figure for a cell.

        Args:
            cell: The cell; those of all tasks come after those of each.

        Returns:
            Seconds or per cent, and what they are made of in words.

        Raises:
            CannotRunError: If the model or a task is not at hand.
        """
        if cell.task in EXTREMES:
            return self._extreme(cell)
        model = _jobs.find(cell.model, self.places[cell.model])
        key = (cell.model, cell.task)
        if key not in self.found:
            self.found[key] = measure_task(model, cell.task, self.data, self.setting)
        runtime = self.found[key]
        if cell.quantity == SECONDS:
            return runtime.apply_seconds, runtime.words
        return runtime.apply_share_percent

    def _extreme(self, cell: Printed) -> float:
        ran = {
            task: runtime for (model, task), runtime in self.found.items() if model == cell.model
        }
        if len(ran) < len(TASKS):
            raise CannotRunError(
                f"it is of all {len(TASKS)} tasks, of which {', '.join(ran) or 'none'} ran"
            )
        figures = [getattr(runtime, cell.quantity) for runtime in ran.values()]
        return float(EXTREMES[cell.task](figures))


def main(
    *,
    data: DataOption = None,
    models: _jobs.ModelsOption = None,
    tasks: TasksOption = None,
    steps: Annotated[
        int, typer.Option(min=1, help=f"Steps to time, after {WARM_UP} that are not.")
    ] = STEPS,
    full: Annotated[bool, typer.Option("--full", help="Time all steps of three epochs.")] = False,
    device: _jobs.DeviceOption = "auto",
    json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure the time that applying PEMA takes, as a share of fine-tuning."""
    check_writable(out)
    watched = quiet_libraries()
    places = _jobs.model_names(models, _jobs.expected_models(NAME))
    setting = Setting(
        steps=0 if full else steps + WARM_UP, device=_jobs.device_name(device), progress=watched
    )
    runner = Runner(places, checked_folder(data), setting)
    wanted = dict.fromkeys([*_jobs.task_names(tasks), *EXTREMES], (SECONDS, SHARE))
    cells = fill(_jobs.chosen(NAME, list(places), wanted), runner.measure)
    print_with_details(TITLE, cells, json=json)
    if out is not None:
        write_csv(out, {NAME: cells})


if __name__ == "__main__":
    typer.run(exits_cleanly(main))
