"""``subvocab finetune``: train a model on the rows that its data uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from subvocab.cli.console import print_json, quiet_libraries
from subvocab.cli.options import JsonOption, ModelTokenizerOption, OutFolderOption
from subvocab.cli.training import (
    CLASSIFICATION,
    BatchSizeOption,
    HeadOption,
    LabelColumnOption,
    LearningRateOption,
    MaskProbabilityOption,
    ModelOption,
    NoRestShiftOption,
    PromptColumnOption,
    ResponseColumnOption,
    SeedOption,
    TaskOption,
    TrainLengthOption,
    TrainOption,
    TrainTextColumnOption,
    training_job,
)

if TYPE_CHECKING:
    from subvocab.integrations.job import FineTuned


def finetune(
    *,
    model: ModelOption,
    train: TrainOption,
    evaluation: Annotated[str, typer.Option("--eval", metavar="DATA", help="As --train.")],
    out: OutFolderOption,
    task: TaskOption = CLASSIFICATION,
    label_column: LabelColumnOption = None,
    text_column: TrainTextColumnOption = None,
    prompt_column: PromptColumnOption = None,
    response_column: ResponseColumnOption = None,
    head: HeadOption = None,
    no_rest_shift: NoRestShiftOption = False,
    mask_probability: MaskProbabilityOption = None,
    tokenizer: ModelTokenizerOption = None,
    epochs: Annotated[
        float, typer.Option(min=0, max=1e6, help="Passes over the training data.")
    ] = 3.0,
    learning_rate: LearningRateOption = 2e-5,
    batch_size: BatchSizeOption = None,
    max_length: TrainLengthOption = None,
    seed: SeedOption = 42,
    full: Annotated[
        bool, typer.Option("--full", help="Train the ordinary way, with the whole matrix.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a model on the rows that its data uses, and save it whole."""
    progress = quiet_libraries()
    job = training_job(
        label_column=label_column,
        text_column=text_column,
        prompt_column=prompt_column,
        response_column=response_column,
        head=head,
        no_rest_shift=no_rest_shift,
        mask_probability=mask_probability,
        model=model,
        task=task,
        tokenizer=tokenizer,
        train=train,
        evaluation=evaluation,
        out=out,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        full=full,
        progress=progress,
    )
    from subvocab.integrations import tasks  # noqa: PLC0415

    result = tasks.finetune(job)
    if json:
        print_json(figures(result))
    else:
        show(result)


def figures(result: FineTuned) -> dict[str, Any]:
    """Gather what a run measured.

    Args:
        result: The run.

    Returns:
        Values by name, for JSON.
    """
    parameters = result.parameters
    return {
        "full_vocab_size": parameters.full_vocab_size,
        "partial_vocab_size": parameters.partial_vocab_size,
        "unique_tokens": result.counts.unique_tokens,
        "total_tokens": result.counts.total_tokens,
        "embedding_parameters": parameters.partial_embedding_parameters,
        "model_parameters": parameters.partial_model_parameters,
        "embedding_reduction": parameters.embedding_reduction,
        "model_reduction": parameters.model_reduction,
        "peak_bytes": result.peak_bytes,
        "seconds": result.seconds,
        "losses": result.losses,
        "metrics": result.metrics,
        "out": str(result.out),
    }


def show(result: FineTuned) -> None:
    """Print what a run measured as a table.

    Args:
        result: The run.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    parameters = result.parameters
    table = Table("", "whole", "trained", "saved", title="Fine-tuning", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"

    def add(label: str, before: int, after: int) -> None:
        table.add_row(label, f"{before:,}", f"{after:,}", f"{1 - after / before:.1%}")

    add("rows of the embedding", parameters.full_vocab_size, parameters.partial_vocab_size)
    embedding = (parameters.embedding_parameters, parameters.partial_embedding_parameters)
    add("embedding parameters", *embedding)
    add("model parameters", parameters.model_parameters, parameters.partial_model_parameters)
    table.add_section()
    table.add_row("distinct tokens in the training data", "", f"{result.counts.unique_tokens:,}")
    table.add_row("peak memory, MB", "", f"{result.peak_bytes / 1e6:,.1f}")
    for phase, seconds in result.seconds.items():
        table.add_row(f"seconds to {phase}", "", f"{seconds:,.2f}")
    table.add_section()
    for name, score in result.metrics.items():
        table.add_row(name.replace("_", " "), "", f"{score:,.4f}")
    console = Console()
    console.print(table)
    console.print(f"The whole model lies in {result.out}", markup=False, soft_wrap=True)
