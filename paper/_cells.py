"""Cells of a table: our figure, the paper's, and why one of them is missing."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from subvocab.errors import DataError, SubvocabError

EXPECTED = Path(__file__).parent / "expected"
RESULTS = Path(__file__).parent / "results"
NOT_TRANSCRIBED = "the printed figure has not been transcribed"
HEADINGS = ("model", "task", "ours", "paper", "difference")
FIRST_FIGURE = HEADINGS.index("ours")
DIFFERENCE = HEADINGS.index("difference") - FIRST_FIGURE
UNITS = {"_percent": ", %", "_millions": ", M"}
HUNDRED = 100
WIDTH = 88
ANY = "any"
"""Stands for the task, or the model, of a cell that holds for all of them."""
COLUMNS = ("table", "model", "task", "quantity", "ours", "paper", "difference", "reason", "detail")


class CannotRunError(Exception):
    """A cell cannot be run here; says why, in words for the middle of a sentence."""


@dataclass(frozen=True)
class Printed:
    """One cell of a table as the paper has it, a row of ``expected/*.csv``.

    Attributes:
        model: The model's name, as in `paper._models`.
        task: The task's name, as in `paper._glue`; or ``mean``.
        quantity: What is given, and its unit.
        paper: The printed figure, or None where it is not known.
        source: Where the printed figure was taken from; where there is none, what is
            known of it instead.
    """

    model: str
    task: str
    quantity: str
    paper: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell, as it was found here and as it is printed.

    Attributes:
        model: The model's name.
        task: The task's name.
        quantity: What is given, and its unit.
        ours: Our figure in full precision, or None where it could not be run.
        paper: The printed figure, or None where it is not known.
        reason: Why one of the two is missing; empty where neither is.
        detail: What belongs to our figure, in words.
    """

    model: str
    task: str
    quantity: str
    ours: float | None
    paper: float | None
    reason: str = ""
    detail: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the paper's, or None where one of them is missing."""
        return None if self.ours is None or self.paper is None else self.ours - self.paper


Found = float | tuple[float, str]
"""Our figure, alone or with what belongs to it in words."""

Measure = Callable[[Printed], Found]
"""Finds our figure for a cell. Raises `CannotRunError` or `SubvocabError` where it cannot."""


def read_expected(name: str) -> list[Printed]:
    """Read all cells of a table, whether their printed figure is known or not.

    Args:
        name: Of the table, such as ``table2``.

    Returns:
        The cells, in the order of the file.

    Raises:
        DataError: If the file holds something else.
    """
    path = EXPECTED / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return [
                Printed(
                    row["model"],
                    row["task"],
                    row["quantity"],
                    float(row["paper"]) if row["paper"] else None,
                    row["source"],
                )
                for row in csv.DictReader(file)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} holds no expected cells ({error}). Its columns are model, task, quantity, "
                "paper (a number, or nothing) and source."
            ) from error


def choose(
    printed: Iterable[Printed],
    models: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
) -> list[Printed]:
    """Keep the cells that were asked for.

    Args:
        printed: All cells of a table.
        models: Names of models, or None for all.
        tasks: Names of tasks, or None for all. A mean over all tasks goes with all.

    Returns:
        The cells, in their order.
    """
    return [
        cell
        for cell in printed
        if (models is None or cell.model in (*models, ANY))
        and (tasks is None or cell.task in (*tasks, ANY))
    ]


def fill(printed: Iterable[Printed], measure: Measure) -> list[Cell]:
    """Find our figure for each cell; where it cannot be found, keep the reason.

    Args:
        printed: The cells.
        measure: Finds our figure for one.

    Returns:
        One cell for each, none left out.
    """
    cells = []
    for one in printed:
        ours: float | None = None
        detail = ""
        reasons = []
        try:
            found = measure(one)
            ours, detail = found if isinstance(found, tuple) else (found, "")
        except (CannotRunError, SubvocabError, OSError) as error:
            reasons.append(" ".join(str(error).split()).rstrip("."))
        if one.paper is None:
            reasons.append(f"{NOT_TRANSCRIBED} ({one.source})" if one.source else NOT_TRANSCRIBED)
        reason = "; ".join(reasons)
        cells.append(Cell(one.model, one.task, one.quantity, ours, one.paper, reason, detail))
    return cells


def print_json(cells: Iterable[Cell]) -> None:
    """Print cells as a JSON list on the standard output.

    Args:
        cells: The cells.
    """
    print(json.dumps([asdict(cell) for cell in cells], indent=1, ensure_ascii=False))


def print_table(title: str, cells: Collection[Cell]) -> None:
    """Print ours, the paper's and the difference; then all that is missing, and why.

    Args:
        title: What the table holds.
        cells: The cells; each is printed, those that could not be run below the others.
    """
    run = [cell for cell in cells if cell.ours is not None]
    quantities = list(dict.fromkeys(cell.quantity for cell in run))
    print(title)
    for quantity in quantities:
        _print_quantity(quantity, [cell for cell in run if cell.quantity == quantity])
    print_reasons(cells)
    print_sum(title, cells)


def _print_quantity(quantity: str, cells: Collection[Cell]) -> None:
    """Print the cells of one quantity, one a row."""
    table = Table(title=Text(spelled(quantity)), title_justify="left", box=box.SIMPLE_HEAD)
    for place, heading in enumerate(HEADINGS):
        justify: Literal["left", "right"] = "right" if place >= FIRST_FIGURE else "left"
        table.add_column(heading, justify=justify, no_wrap=True)
    if any(cell.detail for cell in cells):
        table.add_column("")
    for cell in cells:
        figures = (cell.ours, cell.paper, cell.difference)
        shown = [number(f, quantity, signed=place == DIFFERENCE) for place, f in enumerate(figures)]
        words = (cell.model, cell.task, *shown, *([cell.detail] if cell.detail else []))
        table.add_row(*map(Text, words))
    Console().print(table)


def print_reasons(cells: Collection[Cell]) -> None:
    """Print every cell that lacks a figure, those with one reason together.

    Args:
        cells: The cells of a table.
    """
    _print_groups("Not run", [cell for cell in cells if cell.ours is None])
    _print_groups("Run, but not compared", [cell for cell in cells if cell.ours is not None])


def _print_groups(heading: str, cells: Iterable[Cell]) -> None:
    """Print cells by reason; models that lack the same tasks share a line."""
    groups: dict[str, dict[str, dict[str, list[str]]]] = {}
    for cell in cells:
        if cell.reason:
            of_quantity = groups.setdefault(cell.reason, {}).setdefault(cell.quantity, {})
            of_quantity.setdefault(cell.model, []).append(cell.task)
    for reason, quantities in groups.items():
        print("", *textwrap.wrap(f"{heading}: {reason}.", WIDTH), sep="\n")
        for quantity, tasks_of in quantities.items():
            for tasks in dict.fromkeys(map(tuple, tasks_of.values())):
                models = [model for model, own in tasks_of.items() if tuple(own) == tasks]
                names = (", ".join(models), ", ".join(tasks))
                named = " × ".join(name for name in names if name != ANY)
                line = f"  {spelled(quantity)}: {named}"
                print(*textwrap.wrap(line, WIDTH, subsequent_indent="    "), sep="\n")


def print_sum(title: str, cells: Collection[Cell]) -> None:
    """Print how many cells were run, and how many equal the print.

    Args:
        title: What the table holds; what precedes a colon names it.
        cells: Its cells.
    """
    run = sum(cell.ours is not None for cell in cells)
    compared = [cell for cell in cells if cell.difference is not None]
    equal = sum(equals_print(cell) for cell in compared)
    print(
        f"\n{title.partition(':')[0]}: {run} of {len(cells)} cells run, {len(compared)} of them "
        f"compared with the print, {equal} equal."
    )


def equals_print(cell: Cell) -> bool:
    """Tell whether our figure, rounded as the paper rounds, is the printed one.

    Args:
        cell: A cell.

    Returns:
        Whether both are known, and equal at one decimal.
    """
    return (
        cell.ours is not None
        and cell.paper is not None
        and f"{cell.ours:.1f}" == f"{cell.paper:.1f}"
    )


def spelled(quantity: str) -> str:
    """Write the name of a quantity as tables show it.

    Args:
        quantity: As in ``expected/*.csv``.

    Returns:
        Words.

    Example:
        >>> spelled("model_reduction_percent"), spelled("model_parameters_millions")
        ('model reduction, %', 'model parameters, M')
    """
    for ending, unit in UNITS.items():
        quantity = quantity.replace(ending, unit)
    return quantity.replace("_", " ")


def number(value: float | None, quantity: str = "", *, signed: bool = False) -> str:
    """Write a figure as tables show it.

    Args:
        value: The figure, or None.
        quantity: What it tells: per cents and millions have one decimal.
        signed: Whether to write a plus.

    Returns:
        The figure; a count as it is, a small one at three digits; nothing for None.

    Example:
        >>> number(96.0, "share_percent"), number(30522.0), number(0.003214), number(None)
        ('96.0', '30,522', '0.00321', '')
        >>> number(-0.04, "share_percent", signed=True)
        '+0.0'
    """
    if value is None:
        return ""
    sign = "+" if signed else ""
    if quantity.endswith(tuple(UNITS)):
        return f"{round(value, 1) + 0.0:{sign},.1f}"
    if float(value).is_integer():
        return f"{value:{sign},.0f}"
    return f"{value:{sign},.1f}" if abs(value) >= HUNDRED else f"{value:{sign}.3g}"


def write_csv(path: Path, cells: dict[str, list[Cell]]) -> None:
    """Write cells of one or more tables to a CSV file.

    Args:
        path: The file; its folder is made.
        cells: The cells, by the table's name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, of_table in cells.items():
            for cell in of_table:
                row = {"table": name, **asdict(cell), "difference": cell.difference}
                writer.writerow(
                    {key: _rounded(value) for key, value in row.items() if key in COLUMNS}
                )


def _rounded(value: object) -> object:
    """Write as many digits as mean something."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{round(value, 4):.6g}"
    return value
