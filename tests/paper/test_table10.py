"""Table 10: runs with E and with E′ are compared, and the comparison sees what differs."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
import typer

from paper import _jobs, _metrics, _pairs, table10
from paper._cells import CannotRunError, Printed, read_expected
from paper._pairs import compare, differences
from paper._training import Setting, Trained, load, train, training_arguments
from subvocab.errors import DataError
from tests.models import FULL_VOCAB_SIZE
from tests.paper.glue_files import DEV_ROWS, TRAIN_ROWS, write_model, write_tasks

ROOT = Path(__file__).parents[2]
QUICK = Setting(epochs=1, batch_size=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a tiny model and tiny tasks."""
    write_model(tmp_path / "tiny")
    write_tasks(tmp_path)
    return tmp_path


@pytest.fixture
def model(folder: Path) -> _jobs.Model:
    """Find the tiny model."""
    return _jobs.find("tiny", str(folder / "tiny"))


def trained(model: _jobs.Model, folder: Path, *, whole: bool, **changes: Any) -> Trained:
    """Fine-tune on CoLA."""
    rows = _jobs.encode(model, "CoLA", folder, QUICK)
    counts = _jobs.count([rows.train, *rows.evaluation.values()], model)
    return train(
        model.folder,
        model.tokenizer,
        rows,
        replace(QUICK, **changes),
        vocabulary=None if whole else counts.partial_vocabulary(),
        metric=_metrics.matthews,
    )


def test_script_compares_every_seed(folder: Path) -> None:
    """A row a run, a cell a metric, and a reason for a task that is not there."""
    command = [sys.executable, str(ROOT / "paper" / "table10.py"), "--data", ".", "--json"]
    command += ["--models", "mine=tiny", "--tasks", "cola,RTE", "--seeds", "2"]
    command += ["--epochs", "1", "--train-rows", "33", "--device", "cpu", "--out", "runs.csv"]

    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    cell, missing = json.loads(done.stdout)
    assert (missing["task"], missing["ours"]) == ("RTE", None)
    assert "RTE is not at hand: there is no folder" in missing["reason"]
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 2 == done.stderr.count("equal\n")
    assert (cell["model"], cell["task"], cell["quantity"]) == ("mine", "CoLA", "matthews")
    assert "every loss, gradient norm, score and weight equal to the last bit" in cell["detail"]
    assert "(2 of 5 seeds)" in cell["detail"]
    assert f"33 of {TRAIN_ROWS} training rows, 1 of 3 epochs, 2 steps a run" in cell["detail"]
    assert "has not been transcribed" in cell["reason"]
    assert [(run["seed"], run["different"]) for run in runs] == [("0", "nothing"), ("1", "nothing")]
    assert all(run["whole"] == run["pema"] for run in runs)
    assert cell["ours"] == pytest.approx(np.mean([float(run["pema"]) for run in runs]))
    assert {(run["learning_rate"], run["epochs"]) for run in runs} == {("2e-05", "1.0")}


def test_main_exits_with_one_where_anything_differs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A claim of equality that could not fail would be none."""

    def perturbed(
        folder: Path, tokenizer: Any, rows: Any, setting: Setting, **options: Any
    ) -> Trained:
        """Train with E′ from another head."""
        changed = setting if options["vocabulary"] is None else replace(setting, seed=7)
        return train(folder, tokenizer, rows, changed, **options)

    monkeypatch.setattr(_pairs, "train", perturbed)
    options = {"models": [str(folder / "tiny")], "tasks": ["CoLA"], "seeds": 1, "epochs": 1}

    with pytest.raises(typer.Exit) as end:
        table10.main(data=folder, device="cpu", **options)  # type: ignore[arg-type]

    assert end.value.exit_code == 1
    captured = capsys.readouterr()
    assert "NOT EQUAL: losses, gradient norms" in captured.out
    assert "NOT EQUAL: losses, gradient norms" in captured.err


def test_compare_sees_a_row_that_is_wrong(
    model: _jobs.Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row of E′ that is off by little, through the whole of training."""

    def nudged(*arguments: Any) -> Any:
        loaded: Any = load(*arguments)
        if arguments[-1] is not None:
            with torch.no_grad():
                loaded.get_input_embeddings().weight[-1, 0] += 0.1
        return loaded

    (equal,) = compare(model, "CoLA", folder, QUICK, None)
    monkeypatch.setattr("paper._training.load", nudged)
    (different,) = compare(model, "CoLA", folder, QUICK, None)

    assert equal.different == ()
    assert "losses" in different.different
    assert "bert.embeddings.word_embeddings.weight" in different.different


def test_train_holds_the_rows_that_are_used(model: _jobs.Model, folder: Path) -> None:
    """Else both ways would be one, and equal for that reason."""
    whole, pema = (trained(model, folder, whole=way) for way in (True, False))

    assert whole.matrix_rows == FULL_VOCAB_SIZE
    assert 5 < pema.matrix_rows < 100
    (matrix,) = (w for name, w in pema.weights.items() if "word_embeddings" in name)
    assert len(matrix) == FULL_VOCAB_SIZE


def test_differences_name_what_differs(model: _jobs.Model, folder: Path) -> None:
    """One bit of one figure, of one weight; and a weight that one of them lacks."""
    whole, pema = (trained(model, folder, whole=way) for way in (True, False))
    name = "bert.embeddings.word_embeddings.weight"
    weight = pema.weights[name].clone()
    weight[-1, -1] = torch.nextafter(weight[-1, -1], torch.tensor(math.inf))
    losses = [*pema.losses[:-1], math.nextafter(pema.losses[-1], math.inf)]
    scores = {split: value + 1 for split, value in pema.scores.items()}
    norms = [0.0, *pema.gradient_norms[1:]]
    rest = {other: kept for other, kept in pema.weights.items() if other != name}

    found = partial(differences, whole)

    assert list(found(pema)) == []
    assert list(found(replace(pema, weights={**rest, name: weight}))) == [name]
    assert list(found(replace(pema, weights=rest))) == [name]
    assert list(found(replace(pema, losses=losses))) == ["losses"]
    assert list(found(replace(pema, gradient_norms=norms))) == ["gradient norms"]
    assert list(found(replace(pema, scores=scores))) == ["scores"]


def test_train_depends_on_the_seed(model: _jobs.Model, folder: Path) -> None:
    """Head, order and dropout: else five seeds would be one."""
    one, other = (trained(model, folder, whole=False, seed=seed) for seed in (0, 1))

    assert one.losses != other.losses
    assert len(one.losses) == math.ceil(TRAIN_ROWS / QUICK.batch_size)


def test_train_stops_early_with_the_whole_schedule(model: _jobs.Model, folder: Path) -> None:
    """The first steps are those of the whole run, to the last bit."""
    some, whole = (trained(model, folder, whole=False, steps=steps) for steps in (3, 0))

    assert len(some.losses) == len(some.step_seconds) == 3
    assert some.losses == whole.losses[:3]


def test_training_arguments_are_those_of_the_paper(tmp_path: Path) -> None:
    """Table 8, in the Trainer's words."""
    found = training_arguments(Setting(), str(tmp_path))

    assert found.num_train_epochs == 3
    assert found.per_device_train_batch_size == 32
    assert (found.learning_rate, found.lr_scheduler_type, found.warmup_steps) == (2e-5, "linear", 0)
    assert (found.adam_beta1, found.adam_beta2, found.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert (found.optim, found.weight_decay) == ("adamw_torch", 0)
    assert not found.bf16


def test_load_sets_dropout(model: _jobs.Model) -> None:
    """Whatever the checkpoint says."""
    loaded = load(model.folder, model.tokenizer, 3, Setting(dropout=0.25), None)

    assert loaded.config.hidden_dropout_prob == 0.25
    assert loaded.config.attention_probs_dropout_prob == 0.25
    assert loaded.num_labels == 3


def test_encode_takes_rows_and_labels(model: _jobs.Model, folder: Path) -> None:
    """The first rows of training alone; a score stays a number, a class a whole one."""
    scores = _jobs.encode(model, "STS-B", folder, QUICK, 10)
    classes = _jobs.encode(model, "MNLI", folder, QUICK)

    assert (len(scores.train), scores.task_rows, scores.num_labels) == (10, TRAIN_ROWS, 1)
    assert scores.train["labels"][:3] == [0.0, 0.9, 1.8]
    assert {name: len(part) for name, part in classes.evaluation.items()} == {
        "validation_matched": DEV_ROWS,
        "validation_mismatched": DEV_ROWS,
    }
    assert classes.train["labels"][:4] == [0, 1, 2, 0]
    short = _jobs.encode(model, "STS-B", folder, replace(QUICK, max_length=7))
    assert {len(ids) for ids in short.train["input_ids"]} == {7}


def test_compare_trains_on_scores(model: _jobs.Model, folder: Path) -> None:
    """STS-B is no classification."""
    (run,) = compare(model, "STS-B", folder, QUICK, None)

    assert (run.metric, run.different) == ("spearman", ())
    assert run.final_loss > 1  # of squares, where a class would cost 0


def test_runner_runs_a_task_once(folder: Path) -> None:
    """Its cells share their runs."""
    runner = table10.Runner({"tiny": str(folder / "tiny")}, folder, QUICK, seeds=1)

    for quantity in table10.quantities("MNLI"):
        runner.measure(Printed("tiny", "MNLI", quantity))

    assert [run.split for run in runner.runs] == ["validation_matched", "validation_mismatched"]


def test_expected_cells_are_those_of_all_tasks() -> None:
    """Each task with its metric; no figure is there that nobody read in the paper."""
    printed = read_expected("table10")
    by_task = {task: table10.quantities(task) for task in _jobs.task_names(None)}

    for model in _jobs.expected_models("table10"):
        of_model = [cell for cell in printed if cell.model == model]
        assert [(cell.task, cell.quantity) for cell in of_model] == [
            (task, quantity) for task, of_task in by_task.items() for quantity in of_task
        ]
    assert by_task["CoLA"] == ["matthews"]
    assert by_task["QQP"] == ["f1"]
    assert by_task["STS-B"] == ["spearman"]
    assert by_task["MNLI"] == ["accuracy_matched", "accuracy_mismatched"]
    assert all(cell.paper is None for cell in printed)


def test_find_gives_the_reason_where_there_is_no_model() -> None:
    """In words for the middle of a sentence, alike for all."""
    message = "its weights lie in no folder here, and could not be had from the Hub"

    with pytest.raises(CannotRunError, match=f"^{message}$"):
        _jobs.find("roberta-base", "FacebookAI/no-such-model")


def test_model_names_may_be_given(folder: Path) -> None:
    """A folder under a name of one's own, an alias of the paper's, and what nobody knows."""
    tiny = str(folder / "tiny")

    assert _jobs.model_names([f"mine={tiny},{tiny}", "RoBERTa", "some/model"], ()) == {
        "mine": tiny,
        "tiny": tiny,
        "roberta-base": "FacebookAI/roberta-base",
        "some/model": "some/model",
    }
    assert list(_jobs.model_names(None, ["bert-base-uncased"])) == ["bert-base-uncased"]


def test_device_name_refuses_what_is_not_there() -> None:
    """The message says what there is."""
    assert _jobs.device_name("cpu") == "cpu"
    with pytest.raises(DataError, match=r"^The device is `tpu`, expected cpu, cuda or auto\.$"):
        _jobs.device_name("tpu")


LABELS = np.array([1, 1, 1, 0, 0, 1, 0, 1])
LOGITS = np.array([[0, 1], [2, 3], [1, 0], [0, 2], [5, 1], [0, 1], [3, 2], [4, 9]], float)
"""Guesses 1 1 0 1 0 1 0 1: four of five ones right, two of three zeros."""


def test_metrics_by_hand() -> None:
    """True positives 4, false positives 1, false negatives 1, true negatives 2."""
    of_f1 = 2 * 4 / (2 * 4 + 1 + 1)
    of_matthews = (4 * 2 - 1 * 1) / math.sqrt((4 + 1) * (4 + 1) * (2 + 1) * (2 + 1))

    assert _metrics.accuracy(LABELS, LOGITS) == pytest.approx(100 * 6 / 8)
    assert _metrics.f1(LABELS, LOGITS) == pytest.approx(100 * of_f1)
    assert _metrics.matthews(LABELS, LOGITS) == pytest.approx(100 * of_matthews)


def test_spearman_by_hand() -> None:
    """Ranks 1 2 3 4 against 1 2 4 3: 1 − 6·Σd²/(n(n²−1))."""
    labels, outputs = np.array([0.5, 1.0, 2.0, 4.5]), np.array([[-3.0], [0.1], [9.0], [8.0]])

    assert _metrics.spearman(labels, outputs) == pytest.approx(100 * (1 - 6 * 2 / (4 * 15)))
    assert math.isnan(_metrics.spearman(labels, np.ones((4, 1))))


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_the_libraries(seed: int) -> None:
    """Of scikit-learn and SciPy, in per cent."""
    random = np.random.default_rng(seed)
    labels, logits = random.integers(2, size=50), random.normal(size=(50, 2))
    numbers, guesses = random.normal(size=50).round(1), logits.argmax(axis=1)

    assert _metrics.matthews(labels, logits) == pytest.approx(
        100 * sklearn.metrics.matthews_corrcoef(labels, guesses)
    )
    assert _metrics.f1(labels, logits) == pytest.approx(
        100 * sklearn.metrics.f1_score(labels, guesses)
    )
    assert _metrics.spearman(numbers, logits[:, :1]) == pytest.approx(
        100 * scipy.stats.spearmanr(numbers, logits[:, 0]).statistic
    )
