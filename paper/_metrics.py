"""The scores of GLUE's tasks, in per cent, as the paper's Table 10 gives them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


def matthews(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Score classes by Matthews' correlation, as CoLA is.

    Args:
        labels: The true classes.
        outputs: Logits, a row a text.

    Returns:
        Per cent, in [-100, 100].
    """
    return 100 * float(matthews_corrcoef(labels, outputs.argmax(axis=-1)))


def f1(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Score two classes by F1 of the class 1, as QQP is.

    Args:
        labels: The true classes.
        outputs: Logits, a row a text.

    Returns:
        Per cent, in [0, 100].
    """
    return 100 * float(f1_score(labels, outputs.argmax(axis=-1), zero_division=0.0))


def accuracy(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Score classes by how many are right.

    Args:
        labels: The true classes.
        outputs: Logits, a row a text.

    Returns:
        Per cent, in [0, 100].
    """
    return 100 * float(accuracy_score(labels, outputs.argmax(axis=-1)))


def spearman(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Score numbers by how well they are ordered, as STS-B is.

    Args:
        labels: The true scores.
        outputs: The model's, a row a text.

    Returns:
        Spearman's rank correlation in per cent; not a number where all scores are alike.
    """
    guesses = outputs.reshape(len(labels))
    if len(set(labels.tolist())) == 1 or len(set(guesses.tolist())) == 1:
        return math.nan  # the correlation with what does not vary is not defined
    return 100 * float(spearmanr(labels, guesses).statistic)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "CoLA": matthews,
    "QQP": f1,
    "STS-B": spearman,
}
"""The metric of a task; the accuracy of all others."""


def metric_of(task: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """Give the metric that GLUE scores a task by, of those that have several the paper's.

    Args:
        task: The name of a task.

    Returns:
        A function of labels and outputs; its name is the metric's.
    """
    return METRICS.get(task, accuracy)
