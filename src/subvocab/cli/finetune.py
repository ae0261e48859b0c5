"""``subvocab finetune``: train a text classifier on the rows that its data uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subvocab.cli.console import print_json

if TYPE_CHECKING:
    from subvocab.integrations.classifier import FineTuned


def finetune(
    *,
    model: Annotated[str, typer.Option(metavar="DIR_OR_NAME", help="Folder, or name on the Hub.")],
    train: Annotated[
        str,
        typer.Option(
            metavar="DATA", help="JSON lines, CSV, TSV or Parquet; a folder; or NAME[:SPLIT]."
        ),
    ],
    evaluation: Annotated[str, typer.Option("--eval", metavar="DATA", help="As --train.")],
    label_column: Annotated[str, typer.Option(metavar="NAME", help="The column of classes.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the whole model.")],
    text_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The column of text; give two to train on pairs."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="DIR_OR_NAME", help="If it does not lie beside the model."),
    ] = None,
    epochs: Annotated[
        float, typer.Option(min=0, max=1e6, help="Passes over the training data.")
    ] = 3.0,
    learning_rate: Annotated[float, typer.Option(min=0, help="At its peak.")] = 2e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a step.")] = 32,
    max_length: Annotated[int, typer.Option(min=1, help="Tokens to truncate a text to.")] = 128,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all that is random.")] = 42,
    full: Annotated[
        bool, typer.Option("--full", help="Train the ordinary way, with the whole matrix.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fine-tune a text classifier on the rows that its data uses, and save it whole."""
    from subvocab.cli.console import quiet_libraries  # noqa: PLC0415
    from subvocab.cli.tokenizer import load_training_tokenizer  # noqa: PLC0415
    from subvocab.integrations.classifier import (  # noqa: PLC0415
        FineTuning,
        finetune_classifier,
    )
    from subvocab.model.load import local_folder  # noqa: PLC0415
    from subvocab.storage import read_checkpoint  # noqa: PLC0415

    progress = quiet_libraries()
    folder = local_folder(model)
    read_checkpoint(folder)  # what is no model is not asked for its tokenizer
    job = FineTuning(
        model=str(folder),
        train=train,
        evaluation=evaluation,
        label_column=label_column,
        out=out,
        tokenizer=load_training_tokenizer(tokenizer or str(folder), folder),
        text_columns=text_column or (),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        full=full,
        progress=progress,
    )
    result = finetune_classifier(job)
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
        table.add_row(name, "", f"{score:.4f}")
    console = Console()
    console.print(table)
    console.print(f"The whole model lies in {result.out}", markup=False, soft_wrap=True)
