"""``subvocab finetune``: train a model on the rows that its data uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subvocab.cli.console import print_json, quiet_libraries
from subvocab.cli.options import JsonOption, ModelTokenizerOption, OutFolderOption
from subvocab.cli.tokenizer import load_training_tokenizer
from subvocab.errors import DataError

if TYPE_CHECKING:
    from subvocab.integrations.finetuning import FineTuned

CLASSIFICATION = "classification"
LANGUAGE_MODELS = ("causal-lm", "masked-lm", "seq2seq")
TASKS = (CLASSIFICATION, *LANGUAGE_MODELS)
TASKS_OF_OPTIONS = {
    "--label-column": (CLASSIFICATION,),
    "--text-column": (CLASSIFICATION, "causal-lm", "masked-lm"),
    "--prompt-column": ("causal-lm", "seq2seq"),
    "--response-column": ("causal-lm", "seq2seq"),
    "--mask-probability": ("masked-lm",),
    "--head": LANGUAGE_MODELS,
    "--no-rest-shift": LANGUAGE_MODELS,
}
"""The tasks that an option is for; others are for all."""
HEADS = ("exact", "restricted", "whole")
TOKENS_NEEDED = {
    CLASSIFICATION: ("pad_token",),
    "causal-lm": ("eos_token",),
    "masked-lm": ("pad_token",),
    "seq2seq": ("pad_token", "eos_token"),
}


def finetune(
    *,
    model: Annotated[str, typer.Option(metavar="DIR_OR_NAME", help="Folder, or name on the Hub.")],
    train: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="JSON lines, CSV, TSV or Parquet, of running text also plain text; a folder; or "
            "NAME[:SPLIT].",
        ),
    ],
    evaluation: Annotated[str, typer.Option("--eval", metavar="DATA", help="As --train.")],
    out: OutFolderOption,
    task: Annotated[
        str, typer.Option(help="classification, causal-lm, masked-lm or seq2seq.")
    ] = CLASSIFICATION,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column of classes.")
    ] = None,
    text_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The column of text; give two to classify pairs."),
    ] = None,
    prompt_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column of prompts; by default prompt."),
    ] = None,
    response_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The column of what is learned; by default response or completion. Without "
            "prompts, messages may hold conversations.",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="How a language model's loss treats tokens that the data lacks: exact, "
            "restricted or whole; by default exact."
        ),
    ] = None,
    no_rest_shift: Annotated[
        bool, typer.Option("--no-rest-shift", help="Leave the rows of those tokens as they are.")
    ] = False,
    mask_probability: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="The share of tokens that are masked; by default 0.15."),
    ] = None,
    tokenizer: ModelTokenizerOption = None,
    epochs: Annotated[
        float, typer.Option(min=0, max=1e6, help="Passes over the training data.")
    ] = 3.0,
    learning_rate: Annotated[float, typer.Option(min=0, help="At its peak.")] = 2e-5,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Rows a step; by default 32, of a language model 8."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens to truncate a row to, or to cut running text into; by default 128, of a "
            "language model 512.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all that is random.")] = 42,
    full: Annotated[
        bool, typer.Option("--full", help="Train the ordinary way, with the whole matrix.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a model on the rows that its data uses, and save it whole."""
    given = {
        "--label-column": label_column,
        "--text-column": text_column or None,
        "--prompt-column": prompt_column,
        "--response-column": response_column,
        "--mask-probability": mask_probability,
        "--head": head,
        "--no-rest-shift": no_rest_shift or None,
    }
    _check_options(
        task, {name: value for name, value in given.items() if value is not None}, full=full
    )
    from subvocab.integrations.classifier import finetune_classifier  # noqa: PLC0415
    from subvocab.integrations.finetuning import FineTuning  # noqa: PLC0415
    from subvocab.integrations.language_model import finetune_language_model  # noqa: PLC0415
    from subvocab.model.load import local_folder  # noqa: PLC0415
    from subvocab.storage import read_checkpoint  # noqa: PLC0415

    progress = quiet_libraries()
    folder = local_folder(model)
    read_checkpoint(folder)  # what is no model is not asked for its tokenizer
    classifies = task == CLASSIFICATION
    job = FineTuning(
        model=str(folder),
        train=train,
        evaluation=evaluation,
        out=out,
        tokenizer=load_training_tokenizer(
            tokenizer or str(folder), folder, needed=TOKENS_NEEDED[task]
        ),
        task=task,
        label_column=label_column or "",
        text_columns=text_column or (),
        prompt_column=prompt_column,
        response_column=response_column,
        head=head or "exact",
        rest_shift=not no_rest_shift,
        mask_probability=0.15 if mask_probability is None else mask_probability,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size or (32 if classifies else 8),
        max_length=max_length or (128 if classifies else 512),
        seed=seed,
        full=full,
        progress=progress,
    )
    result = finetune_classifier(job) if classifies else finetune_language_model(job)
    if json:
        print_json(figures(result))
    else:
        show(result)


def _check_options(task: str, given: Mapping[str, Any], *, full: bool) -> None:
    """Refuse options that do not go together."""
    if task not in TASKS:
        raise DataError(f"There is no task `{task}`, expected one of {', '.join(TASKS)}.")
    for name in given:
        if task not in TASKS_OF_OPTIONS[name]:
            known = " or ".join(TASKS_OF_OPTIONS[name])
            raise DataError(
                f"`{name}` is given, but the task is `{task}`, expected {known}. Leave it out, or "
                "name that `--task`."
            )
        if full and name in ("--head", "--no-rest-shift"):
            raise DataError(
                f"`{name}` and `--full` are both given, but with the whole matrix no token is "
                "left out of the loss. Leave out one of them."
            )
    if task == CLASSIFICATION and "--label-column" not in given:
        raise DataError(
            "No column of classes is named, which the task `classification` learns. Name it in "
            "`--label-column`, or another `--task`."
        )
    if "--text-column" in given and given.keys() & {"--prompt-column", "--response-column"}:
        raise DataError(
            "Columns of running text and of prompts or responses are both named, expected one of "
            "the two. Leave out `--text-column`, or the others."
        )
    if given.get("--head", "exact") not in HEADS:
        raise DataError(f"There is no head `{given['--head']}`, expected {', '.join(HEADS)}.")
    if "--no-rest-shift" in given and given.get("--head", "exact") != "exact":
        raise DataError(
            f"`--no-rest-shift` is given, but the head is `{given['--head']}`, expected `exact`: "
            "others shift nothing. Leave it out."
        )


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
