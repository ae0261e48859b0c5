"""SQuAD v1.1: its questions read, and answers scored as its own rules have it.

Rajpurkar et al., arXiv:1606.05250, §6.1: exact match and F1 over words, after lower case and
without punctuation and articles; the best over a question's answers counts.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subvocab.errors import DataError

HUB_NAME = "rajpurkar/squad"
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Question:
    """A question, the paragraph that answers it, and the answers people gave."""

    text: str
    context: str
    answers: tuple[str, ...]


def read_questions(path: Path | None) -> list[Question]:
    """Read questions of SQuAD v1.1.

    Args:
        path: A JSON file in SQuAD's own layout, such as ``dev-v1.1.json``; None reads the
            validation split from the Hub.

    Returns:
        The questions, in the file's order.

    Raises:
        DataError: If the file or the Hub cannot be read, holds another layout, or a question
            without an answer.
    """
    questions = _from_hub() if path is None else _from_file(path)
    if not questions:
        raise DataError(f"{path or HUB_NAME} has no questions, expected those of SQuAD v1.1.")
    for question in questions:
        if not question.answers:
            raise DataError(
                f"`{question.text}` has no answer, as in SQuAD v2; expected SQuAD v1.1, where "
                "every question has one. Give dev-v1.1.json."
            )
    return questions


def _from_file(path: Path) -> list[Question]:
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        return [
            Question(
                asked["question"].strip(),  # some begin with blanks that leave the window short
                paragraph["context"],
                tuple(answer["text"] for answer in asked["answers"]),
            )
            for article in articles
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not laid out as SQuAD v1.1 ({type(error).__name__}: {error}): expected "
            "JSON with `data`, `paragraphs`, `context`, `qas`, `question` and `answers`. Give "
            "dev-v1.1.json."
        ) from error


def _from_hub() -> list[Question]:
    import datasets  # noqa: PLC0415 - not needed for a file

    try:
        rows = datasets.load_dataset(HUB_NAME, split="validation")
    except Exception as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(
            f"`{HUB_NAME}` cannot be read from the Hub: {reason}. Give --file dev-v1.1.json."
        ) from error
    return [
        Question(row["question"].strip(), row["context"], tuple(row["answers"]["text"]))
        for row in rows
    ]


def normalized(answer: str) -> list[str]:
    """Reduce an answer to the words that are compared.

    Args:
        answer: The answer.

    Returns:
        Its words in lower case, without punctuation and articles.

    Example:
        >>> normalized("The  Norman's, a dynasty.")
        ['normans', 'dynasty']
    """
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()


def exact_match(answer: str, truth: str) -> float:
    """Tell whether an answer is the truth, 1 or 0.

    Args:
        answer: The answer.
        truth: One of the true ones.

    Returns:
        1.0 where the words are the same, else 0.0.
    """
    return float(normalized(answer) == normalized(truth))


def f1(answer: str, truth: str) -> float:
    """Compare the words of an answer with those of the truth.

    Args:
        answer: The answer.
        truth: One of the true ones.

    Returns:
        The harmonic mean of precision and recall over words, in [0, 1].

    Example:
        >>> round(f1("in the year 1066", "1066"), 3)
        0.5
    """
    ours, theirs = Counter(normalized(answer)), Counter(normalized(truth))
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


def score(
    measure: Callable[[str, str], float], answers: Sequence[str], questions: Sequence[Question]
) -> float:
    """Average a measure over questions, the best true answer of each.

    Args:
        measure: `exact_match` or `f1`.
        answers: One a question.
        questions: The questions.

    Returns:
        Per cent, as SQuAD prints it.
    """
    best = [
        max(measure(answer, truth) for truth in question.answers)
        for answer, question in zip(answers, questions, strict=True)
    ]
    return 100 * float(np.mean(best))
