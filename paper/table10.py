"""Table 10: scores of GLUE's tasks after fine-tuning with E and with E′, in the setting of Table 8.

Each pair of runs is compared to the last bit: every loss, gradient norm, score and weight. On a GPU
the coefficient that clips gradients may round otherwise for E′ than for E; ``--clip 0`` leaves it
out.
"""

from __future__ import annotations

import csv
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer

if not __package__:  # run as a script: python paper/table10.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paper import _jobs
from paper._cells import Found, Printed, fill
from paper._command import DataOption, JsonOption, TasksOption, checked_folder, print_with_details
from paper._glue import TASKS
from paper._metrics import metric_of
from paper._pairs import Run, compare
from paper._training import Setting
from subvocab.cli.console import check_writable, exits_cleanly, quiet_libraries
from subvocab.errors import listed

NAME = "table10"
TITLE = "Table 10: scores on GLUE, fine-tuned with PEMA"
SEEDS = 5
UNTOLD = ("seed", "steps", "device", "progress")
"""Of the setting, what a row of the CSV file tells elsewhere, or what does not matter."""
PACKAGES = ("torch", "transformers", "tokenizers")


def quantities(task: str) -> list[str]:
    """Name what is given for a task.

    Args:
        task: The task.

    Returns:
        Its metric, once a validation split.
    """
    splits = [split for split in TASKS[task].splits if split.startswith("validation")]
    return [_quantity(task, split) for split in splits]


def _quantity(task: str, split: str) -> str:
    """Name a metric, and the validation split where there are two."""
    return metric_of(task).__name__ + split.removeprefix("validation")


def summary(runs: Sequence[Run], setting: Setting) -> Found:
    """Average runs over seeds.

    Args:
        runs: Those of one split, one a seed.
        setting: How they were trained.

    Returns:
        The mean score with E′; and in words its spread, the score with E, whether the runs
        are equal, and what was trained on.
    """
    first = runs[0]
    different = list(dict.fromkeys(name for run in runs for name in run.different))
    verdict = (
        f"NOT EQUAL: {listed(different)}"
        if different
        else "every loss, gradient norm, score and weight equal to the last bit"
    )
    detail = (
        f"{_spread([run.pema for run in runs])} with E′, {_spread([run.whole for run in runs])} "
        f"with E ({len(runs)} of {SEEDS} seeds); {verdict}; {first.train_rows:,} of "
        f"{first.task_rows:,} training rows, {setting.epochs:g} of {Setting.epochs:g} epochs, "
        f"{first.steps:,} steps a run, {first.partial_vocab_size:,} rows of the matrix kept"
    )
    return statistics.fmean(run.pema for run in runs), detail


def _spread(scores: Sequence[float]) -> str:
    """Write mean and standard deviation."""
    deviation = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.2f}{deviation}"


def write_runs(path: Path, runs: Sequence[Run], setting: Setting) -> None:
    """Write all runs so far to a CSV file, with their setting, machine and versions.

    Args:
        path: The file.
        runs: The runs.
        setting: How they were trained; the seed is each run's own.
    """
    circumstances = {
        **{name: value for name, value in asdict(setting).items() if name not in UNTOLD},
        "machine": f"{platform.machine()}, {setting.device}, {torch.get_num_threads()} threads",
        "versions": " ".join(f"{name} {version(name)}" for name in PACKAGES),
    }
    rows = [
        {**asdict(run), "different": listed(run.different) or "nothing", **circumstances}
        for run in runs
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@dataclass
class Runner:
    """Trains what a cell needs when it is asked for, and keeps it.

    Attributes:
        places: Folder or name on the Hub, by model.
        data: The folder of data sets, or None for the Hub.
        setting: How to train.
        seeds: How many; they are 0, 1, …
        train_rows: How many of the first training rows to take; None for all.
        out: The CSV file to keep up to date, or None.
        runs: All runs so far.
    """

    places: Mapping[str, str]
    data: Path | None
    setting: Setting
    seeds: int = SEEDS
    train_rows: int | None = None
    out: Path | None = None
    runs: list[Run] = field(default_factory=list)

    def measure(self, cell: Printed) -> Found:
        """Find our figure for a cell.

        Args:
            cell: The cell.

        Returns:
            The score with E′, and what belongs to it in words.

        Raises:
            CannotRunError: If the model or the task is not at hand.
        """
        model = _jobs.find(cell.model, self.places[cell.model])
        ours = self._runs_of(cell)
        if not ours:
            for seed in range(self.seeds):
                setting = replace(self.setting, seed=seed)
                self._add(compare(model, cell.task, self.data, setting, self.train_rows))
            ours = self._runs_of(cell)
        return summary(ours, self.setting)

    def _runs_of(self, cell: Printed) -> list[Run]:
        wanted = (cell.model, cell.task, cell.quantity)
        return [r for r in self.runs if (r.model, r.task, _quantity(r.task, r.split)) == wanted]

    def _add(self, runs: Sequence[Run]) -> None:
        """Keep runs; on a machine that fails on the tenth day, nine are not lost."""
        self.runs += runs
        for run in runs:
            scores = f"{run.whole:.2f} with E, {run.pema:.2f} with E′"
            verdict = f"NOT EQUAL: {listed(run.different)}" if run.different else "equal"
            told = f"{run.model} × {run.task} {run.split}, seed {run.seed}: {scores}, {verdict}"
            print(told, file=sys.stderr, flush=True)
        if self.out is not None:
            write_runs(self.out, self.runs, self.setting)


def main(
    *,
    data: DataOption = None,
    models: _jobs.ModelsOption = None,
    tasks: TasksOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many; they are 0, 1, …")] = SEEDS,
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the data.")] = Setting.epochs,
    train_rows: Annotated[
        int | None, typer.Option(min=1, help="Train on so many of the first rows.")
    ] = None,
    clip: Annotated[
        float, typer.Option(min=0, help="Norm to clip gradients to; 0 for none.")
    ] = Setting.clip,
    device: _jobs.DeviceOption = "auto",
    json: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file of all runs, as they end.")
    ] = None,
) -> None:
    """Fine-tune on GLUE with and without PEMA, and compare; exit with 1 unless all is equal."""
    check_writable(out)
    watched = quiet_libraries()
    places = _jobs.model_names(models, _jobs.expected_models(NAME))
    device = _jobs.device_name(device)
    setting = Setting(epochs=epochs, clip=clip, device=device, progress=watched)
    runner = Runner(places, checked_folder(data), setting, seeds, train_rows, out)
    wanted = {task: quantities(task) for task in _jobs.task_names(tasks)}
    cells = fill(_jobs.chosen(NAME, list(places), wanted), runner.measure)
    print_with_details(TITLE, cells, json=json, with_quantity=True)
    if any(run.different for run in runner.runs):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(exits_cleanly(main))
