"""A pair of runs, one with E and one with E′, compared to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from paper import _jobs
from paper._metrics import metric_of
from paper._training import Setting, Trained, train


@dataclass(frozen=True)
class Run:
    """A pair of runs with one seed, and whether they agree.

    Attributes:
        model: The model's name.
        task: The task's name.
        split: Of the evaluation.
        metric: What the scores are.
        seed: Of both runs.
        whole: The score after training with E.
        pema: The score after training with E′.
        different: What is not equal to the last bit; empty where all is.
        steps: Steps of each run.
        final_loss: Of the last step, with E′.
        partial_vocab_size: |V′|, the rows of E′.
        train_rows: Rows trained on.
        task_rows: Training rows that the task has.
    """

    model: str
    task: str
    split: str
    metric: str
    seed: int
    whole: float
    pema: float
    different: tuple[str, ...]
    steps: int
    final_loss: float
    partial_vocab_size: int
    train_rows: int
    task_rows: int


def compare(
    model: _jobs.Model, task: str, data: Path | None, setting: Setting, train_rows: int | None
) -> list[Run]:
    """Fine-tune on a task with E and with E′, and compare.

    Args:
        model: The model.
        task: The task.
        data: The folder of data sets, or None for the Hub.
        setting: How to train, and the seed.
        train_rows: How many of the first training rows to take; None for all.

    Returns:
        A pair a validation split.

    Raises:
        CannotRunError: If the task is not at hand.
        DataError: If a file is not as GLUE ships it.
    """
    rows = _jobs.encode(model, task, data, setting, train_rows)
    counts = _jobs.count([rows.train, *rows.evaluation.values()], model)
    fine_tune = partial(train, model.folder, model.tokenizer, rows, setting, metric=metric_of(task))
    whole = fine_tune(vocabulary=None)
    pema = fine_tune(vocabulary=counts.partial_vocabulary())
    different = tuple(differences(whole, pema))
    return [
        Run(
            model=model.name,
            task=task,
            split=split,
            metric=metric_of(task).__name__,
            seed=setting.seed,
            whole=whole.scores[split],
            pema=pema.scores[split],
            different=different,
            steps=len(pema.losses),
            final_loss=pema.losses[-1],
            partial_vocab_size=pema.matrix_rows,
            train_rows=len(rows.train),
            task_rows=rows.task_rows,
        )
        for split in rows.evaluation
    ]


def differences(whole: Trained, pema: Trained) -> Iterator[str]:
    """Compare two runs to the last bit.

    Args:
        whole: Trained with E.
        pema: Trained with E′.

    Yields:
        What differs: losses, gradient norms, scores, and each weight by its name.
    """
    figures = {
        "losses": (whole.losses, pema.losses),
        "gradient norms": (whole.gradient_norms, pema.gradient_norms),
        "scores": (list(whole.scores.values()), list(pema.scores.values())),
    }
    for name, (theirs, ours) in figures.items():
        if not np.array_equal(theirs, ours, equal_nan=True):  # a score may not be defined
            yield name
    for name in sorted({*whole.weights, *pema.weights}):
        both = name in whole.weights and name in pema.weights
        if not both or not torch.equal(whole.weights[name], pema.weights[name]):
            yield name
