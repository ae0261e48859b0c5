"""The main job from end to end: fine-tune a text classifier with the Hugging Face Trainer.

It puts the other pieces in a row (scan, load the rows, train, evaluate, save whole) and
measures each; with ``full=True`` it trains the ordinary way, for comparison.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from subvocab._atomic import check_new_folder, staged_folder
from subvocab.analysis.savings import ParameterCounts
from subvocab.data import scan
from subvocab.data.labelled import LabelledTexts, load_labelled_texts
from subvocab.errors import CheckpointError, DataError
from subvocab.integrations.trainer import VocabularyCallback
from subvocab.model.accounting import PeakMemory, count_parameters
from subvocab.model.load import from_pretrained, local_folder
from subvocab.storage import read_checkpoint
from subvocab.vocabulary import TokenCounts

TRAIN_SPLITS = ("train",)
EVAL_SPLITS = ("validation", "dev", "test", "train")


@dataclass(frozen=True)
class FineTuning:
    """What to fine-tune, on what, and how.

    Attributes:
        model: A folder, or a name on the Hub.
        train: Training data (see `subvocab.data.labelled.load_labelled_texts`).
        evaluation: Evaluation data.
        label_column: The column of classes.
        out: The folder for the whole model; it must not exist, or be empty.
        tokenizer: The model's own.
        text_columns: The column of text, or two that make a pair.
        epochs: Passes over the training data.
        learning_rate: At its peak; it falls linearly to zero.
        batch_size: Texts a step.
        max_length: Tokens to truncate each text to; no more than the model has positions.
        seed: Of the head's random weights, the order of texts, and dropout.
        full: Whether to train the ordinary way, with the whole matrix.
        progress: Whether to show progress bars.
    """

    model: str
    train: str
    evaluation: str
    label_column: str
    out: Path
    tokenizer: PreTrainedTokenizerBase
    text_columns: Sequence[str] = ()
    epochs: float = 3.0
    learning_rate: float = 2e-5
    batch_size: int = 32
    max_length: int = 128
    seed: int = 42
    full: bool = False
    progress: bool = True


@dataclass
class FineTuned:
    """What came of it.

    Attributes:
        counts: Tokens of the training data.
        parameters: Before and after; the same where the whole matrix was trained.
        peak_bytes: The most memory that loading, training and evaluation took (see
            `subvocab.model.accounting.PeakMemory`).
        seconds: Time by phase.
        losses: Training loss of every step.
        metrics: Scores on the evaluation data.
        out: The folder with the whole model.
    """

    counts: TokenCounts
    parameters: ParameterCounts
    out: Path
    peak_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def finetune_classifier(job: FineTuning) -> FineTuned:
    """Fine-tune a classifier on the embedding rows that its training data uses.

    Args:
        job: What to do.

    Returns:
        The measurements. The whole model and its tokenizer lie in ``job.out``.

    Raises:
        CheckpointError: If the model is missing or damaged, or ``out`` holds something.
        DataError: If the data cannot be loaded, or ``max_length`` leaves no room for text.
        UnsupportedModelError: If the model cannot be shrunk.
    """
    check_new_folder(job.out)
    seconds: dict[str, float] = {}
    folder = local_folder(job.model)
    full_vocab_size, positions = _sizes(folder)
    job = replace(job, max_length=min(job.max_length, positions or job.max_length))
    with _timed(seconds, "tokenize"):
        train, evaluation = _load_texts(job)
        train_rows, eval_rows = _tokenized(train, job), _tokenized(evaluation, job)
    with _timed(seconds, "scan"):
        counts = scan(
            train_rows,
            tokenizer=job.tokenizer,
            full_vocab_size=full_vocab_size,
            progress=job.progress,
        )
    with TemporaryDirectory() as logs:
        arguments = _training_arguments(job, logs)
        with PeakMemory(arguments.device) as memory:
            with _timed(seconds, "load"):
                model = _load_model(job, folder, counts, train.label_names)
            trainer = _trainer(job, arguments, model, train_rows)
            with _timed(seconds, "train"):
                trainer.train()
            with _timed(seconds, "evaluate"):
                scores = trainer.evaluate(eval_rows)
    with _timed(seconds, "save"), staged_folder(job.out) as staged:
        model.save_pretrained(staged)
        job.tokenizer.save_pretrained(staged)
    return FineTuned(
        counts=counts,
        parameters=_whole_parameters(model) if job.full else count_parameters(model),
        out=job.out,
        peak_bytes=memory.peak_bytes,
        seconds=seconds,
        losses=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        metrics={name: scores[f"eval_{name}"] for name in ("accuracy", "f1", "loss")},
    )


def _sizes(folder: Path) -> tuple[int, int]:
    """Read |V| and the number of positions, 0 if unbounded; see that the weights are whole."""
    read_checkpoint(folder)
    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
        return int(config.vocab_size), int(getattr(config, "max_position_embeddings", 0))
    except (AttributeError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CheckpointError(
            f"The configuration in {folder} is of no language model: {reason}. Give the folder "
            "that `save_pretrained` wrote."
        ) from error


def _load_texts(job: FineTuning) -> tuple[LabelledTexts, LabelledTexts]:
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
    return train, evaluation


def _tokenized(texts: LabelledTexts, job: FineTuning) -> Any:
    """Encode texts, truncated but not padded: the collator pads."""
    added = job.tokenizer.num_special_tokens_to_add(pair=len(texts.text_columns) > 1)
    if job.max_length <= added:
        raise DataError(
            f"`max_length` is {job.max_length}, but the tokenizer adds {added} special tokens to "
            "each text. Leave room for more than those."
        )

    def encode(rows: dict[str, list[str]]) -> Any:
        sides = [rows[name] for name in texts.text_columns]
        return job.tokenizer(*sides, truncation=True, max_length=job.max_length)

    columns = list(texts.text_columns)
    return texts.rows.map(encode, batched=True, remove_columns=columns, desc="Tokenizing")


def _training_arguments(job: FineTuning, logs: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=logs,
        num_train_epochs=job.epochs,
        learning_rate=job.learning_rate,
        per_device_train_batch_size=job.batch_size,
        per_device_eval_batch_size=job.batch_size,
        seed=job.seed,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=not job.progress,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _load_model(
    job: FineTuning, folder: Path, counts: TokenCounts, label_names: Sequence[str]
) -> PreTrainedModel:
    """Load the model in single precision, with a fresh head: the same with and without PEMA."""
    set_seed(job.seed)
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: number for number, name in enumerate(label_names)},
        "ignore_mismatched_sizes": True,  # the head of another task gives way to a fresh one
    }
    auto_class = AutoModelForSequenceClassification
    if job.full:
        return auto_class.from_pretrained(folder, **options)  # type: ignore[no-any-return]
    vocabulary = counts.partial_vocabulary()
    model: PreTrainedModel = from_pretrained(
        auto_class, folder, vocabulary, tokenizer=job.tokenizer, **options
    )
    return model


def _trainer(
    job: FineTuning, arguments: TrainingArguments, model: PreTrainedModel, train_rows: Any
) -> Trainer:
    """Set up a Trainer that shows a bar but prints no log lines."""
    callbacks: list[TrainerCallback] = [] if job.full else [VocabularyCallback(model)]
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        data_collator=DataCollatorWithPadding(job.tokenizer),
        compute_metrics=_scores,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    if job.progress:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(_SilentProgress)
    return trainer


class _SilentProgress(ProgressCallback):
    """The Trainer's progress bar without a line a step."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing.

        Args:
            *args: The Trainer's.
            **kwargs: The Trainer's.
        """


def _scores(prediction: EvalPrediction) -> dict[str, float]:
    """Compute the accuracy, and F1 as the mean over classes."""
    guesses = np.argmax(prediction.predictions, axis=-1)
    return {
        "accuracy": float(accuracy_score(prediction.label_ids, guesses)),
        "f1": float(f1_score(prediction.label_ids, guesses, average="macro")),
    }


def _whole_parameters(model: PreTrainedModel) -> ParameterCounts:
    """Count the parameters of a model that was trained whole: nothing is saved."""
    matrix = cast("nn.Parameter", model.get_input_embeddings().weight)
    total = sum(parameter.numel() for parameter in model.parameters())
    rows = matrix.shape[0]
    return ParameterCounts(rows, rows, matrix.numel(), matrix.numel(), total, total)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Note how long a phase takes."""
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
