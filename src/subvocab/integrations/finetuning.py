"""Fine-tuning from end to end with the Hugging Face Trainer, whatever the task.

It puts the other pieces in a row (scan, load the rows, train, evaluate, save whole) and
measures each; with ``full=True`` it trains the ordinary way, for comparison. What a task adds
stands in `subvocab.integrations.classifier` and `subvocab.integrations.language_model`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    PreTrainedModel,
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
from subvocab.integrations.job import FineTuned, FineTuning, Task
from subvocab.integrations.trainer import VocabularyCallback
from subvocab.model.accounting import count_parameters
from subvocab.model.load import from_pretrained, local_folder
from subvocab.model.peak_memory import PeakMemory
from subvocab.model.shrink import vocabulary_of
from subvocab.storage import read_checkpoint
from subvocab.vocabulary import TokenCounts


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
    job, folder, full_vocab_size = local_job(job)
    with _timed(seconds, "tokenize"):
        task = prepare(job)
    with _timed(seconds, "scan"):
        counts = count_tokens(job, task, full_vocab_size)
    metrics: dict[str, float] = {}
    with TemporaryDirectory() as logs:
        arguments = training_arguments(job, logs)
        with PeakMemory(arguments.device) as memory:
            with _timed(seconds, "load"):
                model = load_model(job, folder, task, counts)
            trainer = make_trainer(job, arguments, model, task)
            if task.scores_before:
                with _timed(seconds, "evaluate"):
                    metrics |= {f"{name}_before": s for name, s in task.score(trainer).items()}
            with _timed(seconds, "train"):
                trainer.train()
            ending = "_after" if task.scores_before else ""
            with _timed(seconds, "evaluate"), _saved_if_it_fails(job, model):
                metrics |= {f"{name}{ending}": s for name, s in task.score(trainer).items()}
    with _timed(seconds, "save"):
        _save(job, model)
    return FineTuned(
        counts=counts,
        parameters=_whole_parameters(model) if job.full else count_parameters(model),
        out=job.out,
        peak_bytes=memory.peak_bytes,
        seconds=seconds,
        losses=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        metrics=metrics,
    )


def local_job(job: FineTuning) -> tuple[FineTuning, Path, int]:
    """Find a job's model, and fit the job to it.

    Args:
        job: The job.

    Returns:
        The job, its rows no longer than the model has positions; the folder where the
        model lies; and |V|.

    Raises:
        CheckpointError: If the model is missing or damaged.
    """
    folder = local_folder(job.model)
    full_vocab_size, positions = _sizes(folder)
    lengths = (job.max_length, positions or job.max_length, job.tokenizer.model_max_length)
    return replace(job, model=str(folder), max_length=min(lengths)), folder, full_vocab_size


def count_tokens(job: FineTuning, task: Task, full_vocab_size: int) -> TokenCounts:
    """Count the tokens that a job trains on.

    Args:
        job: The job.
        task: What its task adds.
        full_vocab_size: |V|.

    Returns:
        The counts.
    """
    return scan(
        task.train_rows,
        tokenizer=job.tokenizer,
        full_vocab_size=full_vocab_size,
        label_columns=task.label_columns,
        progress=job.progress,
    )


def _sizes(folder: Path) -> tuple[int, int]:
    """Read |V| and how long a row may be, 0 if unbounded; see that the weights are whole."""
    read_checkpoint(folder)
    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
        return int(config.vocab_size), _room(config)
    except (AttributeError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CheckpointError(
            f"The configuration in {folder} is of no language model: {reason}. Give the folder "
            "that `save_pretrained` wrote."
        ) from error


def _room(config: Any) -> int:
    """Count the positions of a row: those of RoBERTa begin behind that of padding."""
    positions = int(getattr(config, "max_position_embeddings", 0))
    if not positions or type(config) not in MODEL_MAPPING:
        return positions
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    tables = {name: m for name, m in model.named_modules() if isinstance(m, nn.Embedding)}
    for name, table in tables.items():
        holds_positions = "position" in name and table.num_embeddings == positions
        if holds_positions and table.padding_idx is not None:
            return positions - table.padding_idx - 1
    return positions


def training_arguments(job: FineTuning, logs: str) -> TrainingArguments:
    """Say to a Trainer what a job is; every step is logged, and nothing saved.

    Args:
        job: The job.
        logs: A folder for what the Trainer writes.

    Returns:
        Its arguments.
    """
    return TrainingArguments(
        output_dir=logs,
        num_train_epochs=job.epochs,
        max_steps=job.max_steps,
        optim=job.optimizer,
        weight_decay=job.weight_decay,
        use_cpu=job.use_cpu,
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


def load_model(job: FineTuning, folder: Path, task: Task, counts: TokenCounts) -> PreTrainedModel:
    """Load the model in single precision, random weights the same with and without PEMA.

    Args:
        job: The job.
        folder: Where the model lies.
        task: What the job's task adds.
        counts: The tokens of the training data.

    Returns:
        The whole model if the job is ``full``, else one with the rows of V′.
    """
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


def make_trainer(
    job: FineTuning, arguments: TrainingArguments, model: PreTrainedModel, task: Task
) -> Trainer:
    """Set up a Trainer that shows a bar but prints no log lines.

    Args:
        job: The job.
        arguments: Its training arguments.
        model: Its model.
        task: What its task adds.

    Returns:
        The Trainer.
    """
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


def _save(job: FineTuning, model: PreTrainedModel) -> None:
    """Save the whole model and its tokenizer, all at once or not at all."""
    with staged_folder(job.out) as staged:
        model.save_pretrained(staged)
        job.tokenizer.save_pretrained(staged)


@contextmanager
def _saved_if_it_fails(job: FineTuning, model: PreTrainedModel) -> Iterator[None]:
    """Lose no training by an error in what comes after it."""
    try:
        yield
    except Exception as error:
        _save(job, model)
        error.add_note(f"The model was trained, and is saved in {job.out}.")
        raise


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
