"""Fine-tuning from end to end with the Hugging Face Trainer, whatever the task.

It puts the other pieces in a row (scan, load the rows, train, evaluate, save whole) and
measures each; with ``full=True`` it trains the ordinary way, for comparison. What a task adds
stands in `subvocab.integrations.classifier` and `subvocab.integrations.language_model`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
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
from subvocab.errors import CheckpointError
from subvocab.integrations.trainer import VocabularyCallback
from subvocab.model.accounting import PeakMemory, count_parameters
from subvocab.model.load import from_pretrained, local_folder
from subvocab.model.shrink import vocabulary_of
from subvocab.storage import read_checkpoint
from subvocab.vocabulary import PartialVocabulary, TokenCounts

TRAIN_SPLITS = ("train",)
EVAL_SPLITS = ("validation", "dev", "test", "train")


@dataclass(frozen=True)
class FineTuning:
    """What to fine-tune, on what, and how.

    Attributes:
        model: A folder, or a name on the Hub.
        train: Training data (see `subvocab.data.loading.load_split`).
        evaluation: Evaluation data.
        out: The folder for the whole model; it must not exist, or be empty.
        tokenizer: The model's own.
        task: ``classification``, or what a language model learns: ``causal-lm``,
            ``masked-lm`` or ``seq2seq``.
        label_column: The column of classes.
        text_columns: The column of text, or two that make a pair of texts to classify.
        prompt_column: The column of prompts (see `subvocab.data.dialogues.find_dialogues`).
        response_column: The column of responses.
        head: How a language model's loss treats tokens outside V′: ``exact``,
            ``restricted`` or ``whole``; see `subvocab.from_pretrained`.
        rest_shift: Whether one trained vector stands for how those tokens move.
        mask_probability: The share of tokens that a masked language model foretells.
        epochs: Passes over the training data.
        learning_rate: At its peak; it falls linearly to zero.
        batch_size: Rows a step.
        max_length: Tokens to truncate each row to, or to cut running text into; no more
            than the model has positions.
        seed: Of a head's random weights, the order of rows, masks and dropout.
        full: Whether to train the ordinary way, with the whole matrix.
        progress: Whether to show progress bars.
    """

    model: str
    train: str
    evaluation: str
    out: Path
    tokenizer: PreTrainedTokenizerBase
    task: str = "classification"
    label_column: str = "label"
    text_columns: Sequence[str] = ()
    prompt_column: str | None = None
    response_column: str | None = None
    head: str = "exact"
    rest_shift: bool = True
    mask_probability: float = 0.15
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


@dataclass(frozen=True)
class Task:
    """What a task adds: its data, its kind of model, and how that is judged.

    Attributes:
        train_rows: A ``datasets.Dataset`` of token ids.
        auto_class: The class of transformers that loads the model.
        collator: Makes batches to train on, given V′; or None where the whole is trained.
        score: Evaluates the model of a Trainer.
        options: For loading the model.
        partial_options: More of them where only the rows of V′ are loaded.
        label_columns: Columns of labels that are tokens.
        scores_before: Whether scores before training say anything.
    """

    train_rows: Any
    auto_class: Any
    collator: Callable[[PartialVocabulary | None], Any]
    score: Callable[[Trainer], Mapping[str, float]]
    options: Mapping[str, Any] = field(default_factory=dict)
    partial_options: Mapping[str, Any] = field(default_factory=dict)
    label_columns: Sequence[str] = ()
    scores_before: bool = False


def run(job: FineTuning, prepare: Callable[[FineTuning], Task]) -> FineTuned:
    """Fine-tune a model on the embedding rows that its training data uses.

    Args:
        job: What to do.
        prepare: Loads the data of the job's task.

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
    lengths = (job.max_length, positions or job.max_length, job.tokenizer.model_max_length)
    job = replace(job, model=str(folder), max_length=min(lengths))
    with _timed(seconds, "tokenize"):
        task = prepare(job)
    with _timed(seconds, "scan"):
        counts = scan(
            task.train_rows,
            tokenizer=job.tokenizer,
            full_vocab_size=full_vocab_size,
            label_columns=task.label_columns,
            progress=job.progress,
        )
    metrics: dict[str, float] = {}
    with TemporaryDirectory() as logs:
        arguments = _training_arguments(job, logs)
        with PeakMemory(arguments.device) as memory:
            with _timed(seconds, "load"):
                model = _load_model(job, folder, task, counts)
            trainer = _trainer(job, arguments, model, task)
            if task.scores_before:
                with _timed(seconds, "evaluate"):
                    metrics |= {f"{name}_before": s for name, s in task.score(trainer).items()}
            with _timed(seconds, "train"):
                trainer.train()
            with _timed(seconds, "evaluate"):
                ending = "_after" if task.scores_before else ""
                metrics |= {f"{name}{ending}": s for name, s in task.score(trainer).items()}
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
        metrics=metrics,
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


def _load_model(job: FineTuning, folder: Path, task: Task, counts: TokenCounts) -> PreTrainedModel:
    """Load the model in single precision, random weights the same with and without PEMA."""
    set_seed(job.seed)
    options: dict[str, Any] = {"dtype": torch.float32, **task.options}
    if job.full:
        return task.auto_class.from_pretrained(folder, **options)  # type: ignore[no-any-return]
    model: PreTrainedModel = from_pretrained(
        task.auto_class,
        folder,
        counts.partial_vocabulary(),
        tokenizer=job.tokenizer,
        **task.partial_options,
        **options,
    )
    return model


def _trainer(
    job: FineTuning, arguments: TrainingArguments, model: PreTrainedModel, task: Task
) -> Trainer:
    """Set up a Trainer that shows a bar but prints no log lines."""
    callbacks: list[TrainerCallback] = [] if job.full else [VocabularyCallback(model)]
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=task.train_rows,
        data_collator=task.collator(None if job.full else vocabulary_of(model)),
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


def _whole_parameters(model: PreTrainedModel) -> ParameterCounts:
    """Count the parameters of a model that was trained whole: nothing is saved."""
    matrix = cast("nn.Parameter", model.get_input_embeddings().weight)
    total = sum(parameter.numel() for parameter in model.parameters())
    rows = matrix.shape[0]
    return ParameterCounts(rows, rows, matrix.numel(), matrix.numel(), total, total)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Note how long a phase takes, in all."""
    start = time.perf_counter()
    yield
    seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start
