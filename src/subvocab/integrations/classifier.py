"""The task of sorting texts, or pairs of texts, into classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
)

from subvocab.data.labelled import LabelledTexts, load_labelled_texts
from subvocab.data.texts import check_room
from subvocab.integrations.job import EVAL_SPLITS, TRAIN_SPLITS, FineTuning, Task


def prepare(job: FineTuning) -> Task:
    """Load both splits; the first settles columns and classes.

    Args:
        job: What to do.

    Returns:
        The task. Its scores are accuracy, F1 (the mean over classes) and loss.

    Raises:
        DataError: If the data cannot be loaded.
    """
    train = load_labelled_texts(
        job.train,
        splits=TRAIN_SPLITS,
        label_column=job.label_column,
        text_columns=job.text_columns,
    )
    train_rows = eval_rows = _tokenized(train, job)
    if job.evaluation is not None:
        evaluation = load_labelled_texts(
            job.evaluation,
            splits=EVAL_SPLITS,
            label_column=job.label_column,
            text_columns=train.text_columns,
            label_names=train.label_names,
        )
        eval_rows = _tokenized(evaluation, job)

    def score(trainer: Trainer) -> Mapping[str, float]:
        trainer.compute_metrics = _scores
        scores = trainer.evaluate(eval_rows)
        return {name: scores[f"eval_{name}"] for name in ("accuracy", "f1", "loss")}

    return Task(
        train_rows,
        AutoModelForSequenceClassification,
        lambda _vocabulary: DataCollatorWithPadding(job.tokenizer),
        score,
        options={
            "num_labels": len(train.label_names),
            "id2label": dict(enumerate(train.label_names)),
            "label2id": {name: number for number, name in enumerate(train.label_names)},
            "ignore_mismatched_sizes": True,  # the head of another task gives way to a fresh one
        },
    )


def _tokenized(texts: LabelledTexts, job: FineTuning) -> Any:
    """Encode texts, truncated but not padded: the collator pads."""
    check_room(job.tokenizer, job.max_length, pair=len(texts.text_columns) > 1)

    def encode(rows: dict[str, list[str]]) -> Any:
        sides = [rows[name] for name in texts.text_columns]
        return job.tokenizer(*sides, truncation=True, max_length=job.max_length)

    columns = list(texts.text_columns)
    return texts.rows.map(encode, batched=True, remove_columns=columns, desc="Tokenizing")


def _scores(prediction: EvalPrediction) -> dict[str, float]:
    """Compute the accuracy, and F1 as the mean over classes."""
    logits = prediction.predictions
    if isinstance(logits, tuple):  # T5 and BART give the states of their encoder behind them
        logits = logits[0]
    guesses = np.argmax(logits, axis=-1)
    return {
        "accuracy": float(accuracy_score(prediction.label_ids, guesses)),
        "f1": float(f1_score(prediction.label_ids, guesses, average="macro")),
    }
