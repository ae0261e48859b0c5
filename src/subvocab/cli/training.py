"""What commands that train share: options on data, task and head, and the job they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subvocab.cli.tokenizer import load_training_tokenizer
from subvocab.errors import DataError

if TYPE_CHECKING:
    from subvocab.integrations.job import FineTuning

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


ModelOption = Annotated[
    str, typer.Option(metavar="DIR_OR_NAME", help="Folder, or name on the Hub.")
]
TrainOption = Annotated[
    str,
    typer.Option(
        metavar="DATA",
        help="JSON lines, CSV, TSV or Parquet, of running text also plain text; a folder; or "
        "NAME[:SPLIT].",
    ),
]
TaskOption = Annotated[str, typer.Option(help="classification, causal-lm, masked-lm or seq2seq.")]
LabelColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column of classes.")
]
TrainTextColumnOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="The column of text; give two to classify pairs."),
]
PromptColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column of prompts; by default prompt.")
]
ResponseColumnOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column of what is learned; by default response or completion. Without "
        "prompts, messages may hold conversations.",
    ),
]
HeadOption = Annotated[
    str | None,
    typer.Option(
        help="How a language model's loss treats tokens that the data lacks: exact, "
        "restricted or whole; by default exact."
    ),
]
NoRestShiftOption = Annotated[
    bool, typer.Option("--no-rest-shift", help="Leave the rows of those tokens as they are.")
]
MaskProbabilityOption = Annotated[
    float | None,
    typer.Option(min=0.01, max=1, help="The share of tokens that are masked; by default 0.15."),
]
LearningRateOption = Annotated[float, typer.Option(min=0, max=1e38, help="At its peak.")]
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Rows a step; by default 32, of a language model 8.")
]
TrainLengthOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens to truncate a row to, or to cut running text into; by default 128, of a "
        "language model 512.",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all that is random.")]


def training_job(*, model: str, task: str, tokenizer: str | None, **settings: Any) -> FineTuning:
    """Make a job of what was typed.

    Args:
        model: Folder or name.
        task: Its task.
        tokenizer: Folder or name, if it does not lie beside the model.
        **settings: The options of `TASKS_OF_OPTIONS` under the names of their parameters;
            None, False or empty where not given. And others of the job's; ``batch_size`` and
            ``max_length`` may be None.

    Returns:
        The job.

    Raises:
        DataError: If options do not go together.
    """
    values = {name: settings.pop(name[2:].replace("-", "_")) for name in TASKS_OF_OPTIONS}
    given = {name: value for name, value in values.items() if value}
    _check_options(task, given, full=settings.get("full", False))
    from subvocab.integrations.job import FineTuning  # noqa: PLC0415
    from subvocab.model.load import local_folder  # noqa: PLC0415
    from subvocab.storage import read_checkpoint  # noqa: PLC0415

    folder = local_folder(model)
    read_checkpoint(folder)  # what is no model is not asked for its tokenizer
    batch_size, max_length = (32, 128) if task == CLASSIFICATION else (8, 512)
    return FineTuning(
        model=str(folder),
        tokenizer=load_training_tokenizer(
            tokenizer or str(folder), folder, needed=TOKENS_NEEDED[task]
        ),
        task=task,
        label_column=given.get("--label-column", ""),
        text_columns=given.get("--text-column", ()),
        prompt_column=given.get("--prompt-column"),
        response_column=given.get("--response-column"),
        head=given.get("--head", "exact"),
        rest_shift="--no-rest-shift" not in given,
        mask_probability=given.get("--mask-probability", 0.15),
        batch_size=settings.pop("batch_size") or batch_size,
        max_length=settings.pop("max_length") or max_length,
        **settings,
    )


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
