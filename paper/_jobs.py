"""What Tables 9 and 10 share: models and tasks made ready to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import datasets
import torch
import transformers
import typer

import subvocab as sv
from paper._cells import CannotRunError, Printed, choose, read_expected
from paper._glue import TASKS, Split, find_task, read_split
from paper._models import find_model
from paper._training import Rows, Setting
from subvocab.cli.tokenizer import load_training_tokenizer
from subvocab.errors import DataError, SubvocabError
from subvocab.model.load import local_folder
from subvocab.storage import read_checkpoint

ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]MODEL,...",
        help="Of the table, folders, or names on the Hub. By default, all of the table.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or auto.")]


@dataclass(frozen=True)
class Model:
    """A model to train.

    Attributes:
        name: As cells name it.
        folder: Where its weights lie.
        tokenizer: Its tokenizer, which can pad.
        full_vocab_size: |V|, the rows of its matrix.
    """

    name: str
    folder: Path
    tokenizer: Any
    full_vocab_size: int


def model_names(given: Sequence[str] | None, default: Sequence[str]) -> dict[str, str]:
    """Tell where the models lie that were asked for.

    Args:
        given: Names of the paper's models, folders, names on the Hub; each may be called
            something else, as in ``NAME=FOLDER``. Nothing for the default.
        default: Names of the paper's models.

    Returns:
        Folder or name on the Hub, by the name for cells.
    """
    found = {}
    for text in _parted(given) or default:
        name, _, place = text.rpartition("=")
        if Path(place).is_dir():
            found[name or Path(place).resolve().name] = place
            continue
        try:
            known = find_model(place)
        except DataError:
            found[name or place] = place
        else:
            found[name or known.name] = known.hub
    return found


def find(name: str, place: str) -> Model:
    """Find a model and its tokenizer, on disk or on the Hub.

    Args:
        name: As cells name it.
        place: Folder, or name on the Hub.

    Returns:
        The model.

    Raises:
        CannotRunError: If its weights or its tokenizer cannot be had.
    """
    found, reason = _model_or_reason(name, place)
    if found is None:
        raise CannotRunError(reason)
    return found


@cache
def _model_or_reason(name: str, place: str) -> tuple[Model | None, str]:
    """Look once only: to learn that the Hub cannot be reached takes its time."""
    try:
        folder = local_folder(place)
        read_checkpoint(folder)
        config = transformers.AutoConfig.from_pretrained(folder).get_text_config()
        tokenizer = load_training_tokenizer(str(folder), folder)
    except (SubvocabError, OSError) as error:
        if not Path(place).exists():  # one reason for all of them, so that they print together
            return None, "its weights lie in no folder here, and could not be had from the Hub"
        reason = " ".join(str(error).split()).rstrip(".")
        return None, f"the model {name} cannot be had: {reason}"
    return Model(name, folder, tokenizer, int(config.vocab_size)), ""


def encode(
    model: Model, task: str, data: Path | None, setting: Setting, train_rows: int | None = None
) -> Rows:
    """Read a task and make it what a model consumes.

    Args:
        model: The model, whose tokenizer encodes.
        task: The task.
        data: The folder of data sets, or None for the Hub.
        setting: Tokens to truncate to.
        train_rows: How many of the first training rows to take; None for all.

    Returns:
        The training rows, and every validation split.

    Raises:
        CannotRunError: If the task is not at hand.
        DataError: If a file is not as GLUE ships it.
    """
    validation = [split for split in TASKS[task].splits if split.startswith("validation")]
    train = read_split(data, task, "train")
    return Rows(
        train=_encoded(task, train, model, setting, train_rows),
        evaluation={
            split: _encoded(task, read_split(data, task, split), model, setting)
            for split in validation
        },
        num_labels=TASKS[task].num_labels,
        task_rows=len(train),
    )


def encode_unlabelled(model: Model, task: str, data: Path | None, setting: Setting) -> list[Any]:
    """Read and encode the test splits, which the paper counts with the others.

    Args:
        model: The model, whose tokenizer encodes.
        task: The task.
        data: The folder of data sets, or None for the Hub.
        setting: Tokens to truncate to.

    Returns:
        A ``datasets.Dataset`` a split.

    Raises:
        CannotRunError: If the task is not at hand.
        DataError: If a file is not as GLUE ships it.
    """
    tests = [split for split in TASKS[task].splits if split.startswith("test")]
    return [_encoded(task, read_split(data, task, split), model, setting) for split in tests]


def _encoded(
    task: str, split: Split, model: Model, setting: Setting, rows: int | None = None
) -> Any:
    """Encode texts or pairs, truncated but not padded: the collator pads."""
    texts = split.texts[:rows]
    columns: dict[str, Any] = {
        f"text{number}": list(side) for number, side in enumerate(zip(*texts, strict=True))
    }
    names = list(columns)
    if split.labels is not None:
        number_of = float if TASKS[task].num_labels == 1 else int
        columns["labels"] = [number_of(label) for label in split.labels[:rows]]

    def encode_batch(batch: Any) -> Any:
        sides = [batch[name] for name in names]
        return model.tokenizer(*sides, truncation=True, max_length=setting.max_length)

    dataset = datasets.Dataset.from_dict(columns)
    return dataset.map(encode_batch, batched=True, remove_columns=names)


def count(parts: Sequence[Any], model: Model) -> sv.TokenCounts:
    """Count the tokens of encoded rows.

    Args:
        parts: Encoded splits.
        model: The model, for its tokenizer's special ids and |V|.

    Returns:
        The counts of all of them.
    """
    return sv.scan(
        {str(number): part for number, part in enumerate(parts)},
        tokenizer=model.tokenizer,
        full_vocab_size=model.full_vocab_size,
        progress=False,
    )


def chosen(
    table: str,
    models: Sequence[str],
    quantities: Mapping[str, Sequence[str]],
) -> list[Printed]:
    """Give the cells that were asked for: the paper's, and those of models it does not have.

    Args:
        table: Its name.
        models: Names of models, as cells name them.
        quantities: What is given for a task, by the tasks that were asked for.

    Returns:
        The cells.
    """
    printed = read_expected(table)
    known = {cell.model for cell in printed}
    others = [
        Printed(model, task, quantity, source="a model of yours, not the paper's")
        for model in models
        if model not in known
        for task, of_task in quantities.items()
        for quantity in of_task
    ]
    return choose(printed, models, quantities) + others


def expected_models(table: str) -> list[str]:
    """Name the models of a table.

    Args:
        table: Its name.

    Returns:
        Their names, in order.
    """
    return list(dict.fromkeys(cell.model for cell in read_expected(table)))


def task_names(given: Sequence[str] | None) -> list[str]:
    """Tell which tasks were asked for.

    Args:
        given: Their names in the paper or on the Hub; nothing for all nine.

    Returns:
        Their names in the paper.

    Raises:
        DataError: If GLUE has none of that name.
    """
    return [find_task(name).name for name in _parted(given)] or list(TASKS)


def _parted(given: Sequence[str] | None) -> list[str]:
    """Part names at commas, as the other scripts do."""
    return [part.strip() for text in given or () for part in text.split(",") if part.strip()]


def device_name(wanted: str) -> str:
    """Settle where to train.

    Args:
        wanted: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        ``cpu`` or ``cuda``.

    Raises:
        DataError: If it is something else, or there is no such device.
    """
    present = torch.cuda.is_available()
    if wanted not in ("cpu", "cuda", "auto"):
        raise DataError(f"The device is `{wanted}`, expected cpu, cuda or auto.")
    if wanted == "cuda" and not present:
        raise DataError("The device is `cuda`, but torch sees no GPU here. Give --device cpu.")
    return "cuda" if present and wanted != "cpu" else "cpu"
