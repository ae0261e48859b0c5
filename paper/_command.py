"""What the scripts share: their options, and how they choose, run and print cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from paper import _cells
from paper._cells import Cell, Measure, Printed
from paper._models import MODELS
from paper._usage import Request
from subvocab.cli.console import check_writable, exits_cleanly, quiet_libraries
from subvocab.errors import DataError


class Splits(StrEnum):
    """Which rows are counted."""

    PAPER = "paper"
    TRAIN = "train"


DataOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder with glue/ and tokenizers/ (README.md tells more). By default, the Hub.",
    ),
]
ModelsOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME,...", help="By default, all of the table.")
]
TasksOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME,...", help="By default, all of the table.")
]
SplitsOption = Annotated[
    Splits,
    typer.Option(help="paper: train, validation and test rows, as the paper counts. train: alone."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON list of cells.")]
OutOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the cells, or the figure, to a file.")
]

Write = Callable[[Path, list[Cell], Request], None]


def run_script(
    name: str,
    title: str,
    measure_of: Callable[[Request], Measure],
    write: Write | None = None,
) -> None:
    """Run the script of a table: read the command line, run the cells, print them.

    Args:
        name: Of the table, such as ``table2``.
        title: What it holds, after its name and a colon.
        measure_of: Makes what finds a cell's figure.
        write: Writes ``--out``; by default a CSV file of the cells.
    """

    def command(
        *,
        data: DataOption = None,
        models: ModelsOption = None,
        tasks: TasksOption = None,
        splits: SplitsOption = Splits.PAPER,
        json: JsonOption = False,
        out: OutOption = None,
    ) -> None:
        check_writable(out)
        quiet_libraries()
        request = Request(checked_folder(data), train_only=splits is Splits.TRAIN)
        cells = _cells.fill(choose_cells(name, models, tasks), measure_of(request))
        if json:
            _cells.print_json(cells)
        else:
            alone = " (training rows alone; the paper counts all)" if request.train_only else ""
            _cells.print_table(title + alone, cells)
        if out is not None:
            (write or _write_csv(name))(out, cells, request)

    command.__doc__ = f"{title}."
    typer.run(exits_cleanly(command))


def print_with_details(
    title: str, cells: Sequence[Cell], *, json: bool, with_quantity: bool = False
) -> None:
    """Print cells whose details are too long for a column: each stands below the table.

    Args:
        title: What the table holds.
        cells: The cells.
        json: Whether to print JSON instead.
        with_quantity: Whether a task has a detail for each of its quantities.
    """
    if json:
        _cells.print_json(cells)
        return
    _cells.print_table(title, [replace(cell, detail="") for cell in cells])
    for cell in cells:
        if cell.detail:
            quantity = f", {cell.quantity}" if with_quantity else ""
            print(f"\n{cell.model} × {cell.task}{quantity}: {cell.detail}.")


def _write_csv(name: str) -> Write:
    return lambda path, cells, _: _cells.write_csv(path, {name: cells})


def checked_folder(data: Path | None) -> Path | None:
    """See that the folder of data sets exists.

    Args:
        data: The folder, or None.

    Returns:
        The same.

    Raises:
        DataError: If there is no such folder.
    """
    if data is not None and not data.is_dir():
        raise DataError(
            f"There is no folder {data}. Name the one with `glue` and `tokenizers`, or leave out "
            "`--data` to use the Hub."
        )
    return data


def choose_cells(name: str, models: list[str] | None, tasks: list[str] | None) -> list[Printed]:
    """Read a table's cells, and keep those that were asked for.

    Args:
        name: Of the table.
        models: Names as typed, several of them parted by commas; None for all.
        tasks: Likewise.

    Returns:
        The cells.

    Raises:
        DataError: If the table has no such model or task; lists what it has.
    """
    printed = _cells.read_expected(name)
    aliases = {
        alias: model.name for model in MODELS.values() for alias in (model.hub, *model.aliases)
    }
    return _cells.choose(
        printed,
        _resolved(name, "model", (cell.model for cell in printed), models, aliases),
        _resolved(name, "task", (cell.task for cell in printed), tasks, {}),
    )


def _resolved(
    table: str, kind: str, known: Iterable[str], typed: list[str] | None, aliases: dict[str, str]
) -> list[str] | None:
    """Find the names that were meant, in capitals or not, with hyphens or not."""
    if not typed:
        return None
    names = [name for name in dict.fromkeys(known) if name != _cells.ANY]
    by_plain = {_plain(alias): name for alias, name in aliases.items() if name in names}
    by_plain |= {_plain(name): name for name in names}
    wanted = [part.strip() for text in typed for part in text.split(",") if part.strip()]
    for name in wanted:
        if names and _plain(name) not in by_plain:
            raise DataError(f"{table} has no {kind} `{name}`, expected one of {', '.join(names)}.")
    return [by_plain[_plain(name)] for name in wanted if names]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
