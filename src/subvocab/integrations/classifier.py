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
from subvocab.integrations.finetuning import (
    EVAL_SPLITS,
    TRAIN_SPLITS,
    FineTuned,
    FineTuning,
    Task,
    run,
)


def finetune_classifier(job: FineTuning) -> FineTuned:
    """Fine-tune a classifier on the embedding rows that its training data uses.

    Args:
        job: What to do; see `subvocab.integrations.finetuning.run` for how it may fail.

    Returns:
        The measurements, with the accuracy, F1 (the mean over classes) and loss. The whole
        model and its tokenizer lie in ``job.out``.
    """
    return run(job, _prepare)


def _prepare(job: FineTuning) -> Task:
    """Load both splits; the first settles columns and classes."""
    train = load_labelled_texts(
        job.train,
        splits=TRAIN_SPLITS,
        label_column=job.label_column,
        text_columns=job.text_columns,
    )
    evaluation = load_labelled_texts(
        job.evaluation,
        splits=EVAL_SPLITS,
        label_column=job.label_column,
        text_columns=train.text_columns,
        label_names=train.label_names,
    )
    train_rows, eval_rows = _tokenized(train, job), _tokenized(evaluation, job)

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
    guesses = np.argmax(prediction.predictions, axis=-1)
    return {
        "accuracy": float(accuracy_score(prediction.label_ids, guesses)),
        "f1": float(f1_score(prediction.label_ids, guesses, average="macro")),
    }
