"""Questions with parts of their paragraphs, as a model takes them, and the best span of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paper._squad import Question
from subvocab.errors import DataError

LONGEST_ANSWER = 30
"""Tokens that an answer may have."""


@dataclass(frozen=True)
class Window:
    """A question with a part of its paragraph, as a model consumes it.

    Attributes:
        question: Number of the question.
        input_ids: The tokens.
        token_type_ids: Which of them belong to the paragraph, where the model is told.
        spans: First and last character in the paragraph, by token; (0, 0) outside it.
        context: Which tokens are of the paragraph.
    """

    question: int
    input_ids: list[int]
    token_type_ids: list[int] | None
    spans: list[tuple[int, int]]
    context: np.ndarray

    @property
    def features(self) -> dict[str, list[int]]:
        """What ``tokenizer.pad`` takes."""
        found = {"input_ids": self.input_ids, "attention_mask": [1] * len(self.input_ids)}
        return (
            found
            if self.token_type_ids is None
            else {**found, "token_type_ids": self.token_type_ids}
        )


def cut(
    questions: Sequence[Question], tokenizer: Any, *, max_length: int, stride: int
) -> list[Window]:
    """Cut questions with their paragraphs into windows that a model can take.

    Args:
        questions: The questions.
        tokenizer: A fast tokenizer of transformers; it cuts the paragraph, never the question.
        max_length: Tokens of a window, special tokens included.
        stride: Tokens that a window shares with the one before it.

    Returns:
        The windows, in the order of the questions.

    Raises:
        DataError: If a question leaves no room for its paragraph.
    """
    asked = [question.text for question in questions]
    added = tokenizer.num_special_tokens_to_add(pair=True)
    lengths = [len(ids) for ids in tokenizer(asked, add_special_tokens=False)["input_ids"]]
    longest = int(np.argmax(lengths))
    if lengths[longest] + added + stride >= max_length:
        raise DataError(
            f"`{asked[longest]}` has {lengths[longest]} tokens: with {added} special tokens and a "
            f"stride of {stride}, a window of {max_length} has no room for the paragraph. Give a "
            "larger --max-length or a smaller --doc-stride."
        )
    encoded = tokenizer(
        asked,
        [question.context for question in questions],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    kinds = encoded.get("token_type_ids")
    return [
        Window(
            question=question,
            input_ids=encoded["input_ids"][number],
            token_type_ids=None if kinds is None else kinds[number],
            spans=encoded["offset_mapping"][number],
            context=np.array([side == 1 for side in encoded.sequence_ids(number)]),
        )
        for number, question in enumerate(encoded["overflow_to_sample_mapping"])
    ]


def best_answers(
    questions: Sequence[Question],
    windows: Sequence[Window],
    logits: Sequence[tuple[np.ndarray, np.ndarray]],
) -> list[str]:
    """Answer each question by the most likely span of its paragraph.

    Args:
        questions: The questions.
        windows: Their windows.
        logits: Of the first and of the last token, by window; those of padding may follow.

    Returns:
        The answers, in the words of the paragraphs.
    """
    best = [(-np.inf, "")] * len(questions)
    for window, (first, last) in zip(windows, logits, strict=True):
        score, start, end = _best_span(first, last, window.context)
        if score > best[window.question][0]:
            characters = slice(window.spans[start][0], window.spans[end][1])
            best[window.question] = (score, questions[window.question].context[characters])
    return [answer for _, answer in best]


def _best_span(first: np.ndarray, last: np.ndarray, context: np.ndarray) -> tuple[float, int, int]:
    """Find the span inside the paragraph, of no more tokens than allowed, that scores most."""
    length = len(context)
    scores = first[:length, None].astype(np.float64) + last[None, :length]
    allowed = np.triu(np.ones((length, length), bool))
    allowed &= ~np.triu(allowed, LONGEST_ANSWER) & context[:, None] & context[None, :]
    start, end = np.unravel_index(np.argmax(np.where(allowed, scores, -np.inf)), scores.shape)
    return float(scores[start, end]), int(start), int(end)
