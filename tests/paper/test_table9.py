"""Table 9: what applying PEMA takes is measured, and told apart from what is extrapolated."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from paper import _jobs, table9
from paper._cells import CannotRunError, Printed, read_expected
from paper._glue import TASKS
from paper._training import Setting
from paper.table9 import SECONDS, SHARE, Runner, Runtime, measure_task
from tests.paper.glue_files import TRAIN_ROWS, write_model, write_tasks

ROOT = Path(__file__).parents[2]
STEPS = 3 * math.ceil(TRAIN_ROWS / 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a tiny model and tiny tasks."""
    write_model(tmp_path / "tiny")
    write_tasks(tmp_path)
    return tmp_path


def test_script_prints_cells(folder: Path) -> None:
    """Seconds and shares of the tasks at hand, and why there is no figure of all tasks."""
    command = [sys.executable, str(ROOT / "paper" / "table9.py"), "--data", ".", "--json"]
    command += ["--models", "mine=tiny", "--tasks", "WNLI", "--steps", "2", "--device", "cpu"]

    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    seconds, share, *of_all = json.loads(done.stdout)
    assert (seconds["task"], seconds["quantity"]) == ("WNLI", SECONDS)
    assert f"2 of {STEPS} steps timed, the others taken to be alike" in seconds["detail"]
    assert share["quantity"] == SHARE
    assert seconds["ours"] > 0
    assert share["ours"] > 0
    assert len(of_all) == 4
    assert all("it is of all 9 tasks, of which WNLI ran" in cell["reason"] for cell in of_all)


def test_measure_task_times_all_steps_if_asked(folder: Path) -> None:
    """Then nothing is extrapolated."""
    model = _jobs.find("tiny", str(folder / "tiny"))

    runtime = measure_task(model, "MNLI", folder, Setting())

    assert runtime.timed_steps == runtime.steps == STEPS
    assert "taken to be alike" not in runtime.words
    parts = (runtime.scan_seconds, runtime.load_seconds, runtime.merge_seconds)
    assert min(parts) > 0
    assert runtime.apply_seconds == sum(parts)


def test_runtime_is_a_share_of_fine_tuning() -> None:
    """By hand: 1.5 s of 300 s."""
    runtime = Runtime(0.25, 0.5, 0.75, 300.0, timed_steps=20, steps=600)

    assert runtime.apply_seconds == 1.5
    assert runtime.apply_share_percent == pytest.approx(0.5)
    assert runtime.words == (
        "scan 0.25 s, load 0.50 s, merge 0.75 s, fine-tuning 300.0 s (20 of 600 steps timed, the "
        "others taken to be alike)"
    )


def test_runner_gives_the_range_once_all_tasks_ran() -> None:
    """The least and the most of nine."""
    found = {
        ("tiny", task): Runtime(number, 0.0, 0.0, 100.0, timed_steps=1, steps=1)
        for number, task in enumerate(TASKS, start=1)
    }
    runner = Runner({"tiny": "nowhere"}, None, Setting(), found)

    ranges = [
        runner.measure(Printed("tiny", task, quantity))
        for task in table9.EXTREMES
        for quantity in (SECONDS, SHARE)
    ]

    assert ranges == [1, 1, 9, 9]
    del found["tiny", "RTE"]
    with pytest.raises(CannotRunError, match=r"^it is of all 9 tasks, of which CoLA, MNLI, "):
        runner.measure(Printed("tiny", "most of all tasks", SECONDS))


def test_expected_cells_hold_the_known_range_alone() -> None:
    """No figure is there that nobody read in the paper."""
    printed = read_expected("table9")

    known = {(cell.task, cell.quantity): cell.paper for cell in printed if cell.paper is not None}

    assert known == {
        ("least of all tasks", SECONDS): 0.3,
        ("most of all tasks", SECONDS): 13.3,
        ("least of all tasks", SHARE): 0.1,
        ("most of all tasks", SHARE): 1.4,
    }
    assert {cell.task for cell in printed} == {*TASKS, *table9.EXTREMES}
