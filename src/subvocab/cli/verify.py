"""``subvocab verify``: train some steps both ways, and compare every number."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subvocab.cli.console import print_json, quiet_libraries
from subvocab.cli.options import JsonOption, ModelTokenizerOption
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
from subvocab.errors import DataError

if TYPE_CHECKING:
    from subvocab.integrations.verification import Verdict, Verification

BROKEN_STATUS = 1
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "sgd": "sgd",
    "adagrad": "adagrad",
    "rmsprop": "rmsprop",
    "adafactor": "adafactor",
}
DEVICES = ("auto", "cpu")


def verify(
    *,
    model: ModelOption,
    train: TrainOption,
    steps: Annotated[int, typer.Option(min=1, help="Steps to train, each way.")] = 8,
    optimizer: Annotated[str, typer.Option(help=f"{', '.join(OPTIMIZERS)}.")] = "adamw",
    weight_decay: Annotated[float, typer.Option(min=0, max=1e38, help="Of the optimizer.")] = 0.0,
    device: Annotated[str, typer.Option(help="auto, or cpu to leave a GPU alone.")] = "auto",
    task: TaskOption = CLASSIFICATION,
    label_column: LabelColumnOption = None,
    text_column: TrainTextColumnOption = None,
    prompt_column: PromptColumnOption = None,
    response_column: ResponseColumnOption = None,
    head: HeadOption = None,
    no_rest_shift: NoRestShiftOption = False,
    mask_probability: MaskProbabilityOption = None,
    tokenizer: ModelTokenizerOption = None,
    learning_rate: LearningRateOption = 2e-5,
    batch_size: BatchSizeOption = None,
    max_length: TrainLengthOption = None,
    seed: SeedOption = 42,
    json: JsonOption = False,
) -> None:
    """Train some steps with and without, and compare every loss, weight and row bit for bit.

    Exits with 0 if all that is promised for this setting holds, with 1 if not.
    """
    if optimizer not in OPTIMIZERS:
        raise DataError(
            f"There is no optimizer `{optimizer}`, expected one of {', '.join(OPTIMIZERS)}."
        )
    if device not in DEVICES:
        raise DataError(f"There is no device `{device}`, expected {' or '.join(DEVICES)}.")
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
        max_steps=steps,
        optimizer=OPTIMIZERS[optimizer],
        weight_decay=weight_decay,
        use_cpu=device == "cpu",
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        progress=progress,
    )
    from subvocab.integrations import tasks, verification  # noqa: PLC0415

    result = verification.compare(job, tasks.prepare)
    if json:
        print_json(figures(result))
    else:
        show(result)
    if not result.holds:
        raise typer.Exit(BROKEN_STATUS)


def figures(result: Verification) -> dict[str, Any]:
    """Gather what came of it.

    Args:
        result: The verification.

    Returns:
        Values by name, for JSON.
    """
    verdicts = [asdict(verdict) | {"holds": verdict.holds} for verdict in result.verdicts]
    return asdict(result) | {"verdicts": verdicts, "holds": result.holds}


def show(result: Verification) -> None:
    """Print the verdicts as a table.

    Args:
        result: The verification.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    title = f"Trained on {result.full_vocab_size:,} rows, and on {result.partial_vocab_size:,}"
    table = Table("", "numbers", "largest difference", "verdict", title=title, title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    reasons: list[str] = []
    for verdict in result.verdicts:
        difference = f"{verdict.largest_difference:.3g}" if verdict.unequal else "0"
        words = in_words(verdict)
        if verdict.unequal and verdict.reason:
            reasons += [verdict.reason] if verdict.reason not in reasons else []
            words += f" ({reasons.index(verdict.reason) + 1})"
        table.add_row(verdict.group, f"{verdict.numbers:,}", difference, words)
    console = Console()
    console.print(table)
    for number, reason in enumerate(reasons, 1):
        console.print(f"({number}) {reason}.", markup=False, soft_wrap=True)
    console.print("The promise holds." if result.holds else "The promise does NOT hold.")


def in_words(verdict: Verdict) -> str:
    """Say how a group came out.

    Args:
        verdict: Its verdict.

    Returns:
        Whether it is equal, and if not, whether it was to be.
    """
    if not verdict.unequal:
        return "equal, bit for bit"
    if verdict.promised == 0:
        return f"NOT EQUAL: {verdict.unequal:,} differ"
    if not verdict.holds:
        return f"NOT EQUAL: expected within {verdict.promised:g}"
    return "equal to rounding" if verdict.promised < 1 else "differs by design"
