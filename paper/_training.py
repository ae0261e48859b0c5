"""Fine-tuning in the setting of the paper's Table 8, with E or with E′, to compare the two.

The Hugging Face Trainer does the work; the two ways differ in how the model is loaded alone.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import subvocab as sv
from paper._callbacks import Clock, SilentProgress, StopAfter

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
"""What configurations call the dropout of hidden states and of attention."""


@dataclass(frozen=True)
class Setting:
    """How to fine-tune; the defaults are those of the paper.

    Attributes:
        epochs: Passes over the training rows.
        steps: Steps to take instead, where it is positive; the schedule stays that of
            ``epochs``.
        learning_rate: At its peak, which is at the start; it falls linearly to zero.
        batch_size: Rows a step.
        max_length: Tokens to truncate a text or pair to.
        epsilon: Of Adam.
        betas: Of Adam.
        dropout: Of hidden states and of attention.
        clip: Norm to clip gradients to, 0 for none. The paper is silent; 1 is the Trainer's.
        seed: Of the head's random weights, the order of rows, and dropout.
        device: ``cpu`` or ``cuda``.
        progress: Whether to show the Trainer's progress bar.

    Source:
        Table 8 of the paper.
    """

    epochs: float = 3.0
    steps: int = 0
    learning_rate: float = 2e-5
    batch_size: int = 32
    max_length: int = 128
    epsilon: float = 1e-8
    betas: tuple[float, float] = (0.9, 0.999)
    dropout: float = 0.1
    clip: float = 1.0
    seed: int = 0
    device: str = "cpu"
    progress: bool = False


@dataclass(frozen=True)
class Rows:
    """Rows of a task, as a model consumes them.

    Attributes:
        train: A ``datasets.Dataset`` with ``input_ids``, the tokenizer's other columns, and
            ``labels``.
        evaluation: The same, by name of the split.
        num_labels: Classes; 1 for a score.
        task_rows: How many training rows the task has, of which ``train`` may be the first.
    """

    train: Any
    evaluation: Mapping[str, Any]
    num_labels: int
    task_rows: int


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Attributes:
        losses: Of every step.
        gradient_norms: Of every step, before clipping.
        scores: By split of the evaluation.
        weights: The whole state dict, on the CPU.
        matrix_rows: Rows of the embedding matrix that was trained.
        step_seconds: Of every step.
    """

    losses: list[float]
    gradient_norms: list[float]
    scores: dict[str, float]
    weights: dict[str, torch.Tensor]
    matrix_rows: int
    step_seconds: list[float]


def train(
    folder: Path,
    tokenizer: Any,
    rows: Rows,
    setting: Setting,
    *,
    vocabulary: sv.PartialVocabulary | None,
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> Trained:
    """Fine-tune a classifier and score it.

    Args:
        folder: The model.
        tokenizer: Its tokenizer, which pads.
        rows: What to train on and to score.
        setting: How.
        vocabulary: V′, to train with E′; None to train the ordinary way.
        metric: What scores are.

    Returns:
        Losses, scores and weights.
    """
    with TemporaryDirectory(prefix="subvocab-paper-") as logs:
        arguments = training_arguments(setting, logs)
        model = load(folder, tokenizer, rows.num_labels, setting, vocabulary)
        clock = Clock(arguments.device)
        callbacks = [clock, *([StopAfter(setting.steps)] if setting.steps else [])]
        trainer = _trainer(model, arguments, tokenizer, rows.train, callbacks)
        trainer.train()
        scores = {
            split: metric(*_predicted(trainer, part)) for split, part in rows.evaluation.items()
        }
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    matrix_rows = len(cast("torch.Tensor", model.get_input_embeddings().weight))
    del trainer, model
    gc.collect()  # a Trainer and its model are in cycles; the next run needs their memory
    return Trained(
        losses=[entry["loss"] for entry in history],
        gradient_norms=[float(entry.get("grad_norm", math.nan)) for entry in history],
        scores=scores,
        weights=weights,
        matrix_rows=matrix_rows,
        step_seconds=clock.seconds,
    )


def _predicted(trainer: Trainer, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Give labels and logits."""
    found = trainer.predict(rows)
    outputs: Any = found.predictions
    logits = outputs[0] if isinstance(outputs, tuple) else outputs  # some give hidden states too
    return cast("np.ndarray", found.label_ids), logits


def training_arguments(setting: Setting, logs: str) -> TrainingArguments:
    """Say the setting in the Trainer's words.

    Args:
        setting: The setting.
        logs: A folder that the Trainer may write to.

    Returns:
        The arguments.
    """
    on_cpu = setting.device == "cpu"
    arguments = TrainingArguments(
        output_dir=logs,
        num_train_epochs=setting.epochs,
        learning_rate=setting.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        optim="adamw_torch",
        adam_epsilon=setting.epsilon,
        adam_beta1=setting.betas[0],
        adam_beta2=setting.betas[1],
        weight_decay=0.0,  # of zero, AdamW is Adam
        max_grad_norm=setting.clip,
        per_device_train_batch_size=setting.batch_size,
        per_device_eval_batch_size=setting.batch_size,
        seed=setting.seed,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=not setting.progress,
    )
    # It would split every batch among all the GPUs it sees; the setting has one batch of 32.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001 - as the Trainer does itself
    return arguments


def load(
    folder: Path,
    tokenizer: Any,
    num_labels: int,
    setting: Setting,
    vocabulary: sv.PartialVocabulary | None,
) -> PreTrainedModel:
    """Load a classifier in single precision, its head drawn by the seed.

    Args:
        folder: The model.
        tokenizer: Its tokenizer, for readable messages.
        num_labels: Outputs of the head; 1 for a score.
        setting: Dropout and seed.
        vocabulary: V′, for the rows of E′; None for the whole matrix.

    Returns:
        The model, on the CPU.
    """
    set_seed(setting.seed)
    config = AutoConfig.from_pretrained(folder)
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "num_labels": num_labels,
        "problem_type": "regression" if num_labels == 1 else "single_label_classification",
        "ignore_mismatched_sizes": True,  # the head of another task gives way to a fresh one
        **{name: setting.dropout for name in DROPOUTS if hasattr(config, name)},
    }
    auto_class = AutoModelForSequenceClassification
    if vocabulary is None:
        return auto_class.from_pretrained(folder, **options)  # type: ignore[no-any-return]
    model: PreTrainedModel = sv.from_pretrained(
        auto_class, folder, vocabulary, tokenizer=tokenizer, **options
    )
    return model


def _trainer(
    model: PreTrainedModel,
    arguments: TrainingArguments,
    tokenizer: Any,
    train_rows: Any,
    callbacks: list[TrainerCallback],
) -> Trainer:
    """Set up a Trainer that prints no log lines."""
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)  # it prints every loss
    if not arguments.disable_tqdm:
        trainer.add_callback(SilentProgress)
    return trainer
