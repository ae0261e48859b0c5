"""Run every table and figure that needs no training, on the data at hand.

``python -m paper --data DIR`` writes a CSV file of ours, the paper's and the difference for each,
and tells of every cell that could not be run.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from paper import _cells
from paper._cells import Cell
from paper._command import DataOption, checked_folder
from paper._usage import Request
from subvocab.cli.console import exits_cleanly, quiet_libraries
from subvocab.errors import DataError

NAMES = ("table1", "table2", "table3", "table4", "table5", "table6", "table7", "figure2")

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="By default, all of them.")
]
OutFolderOption = Annotated[
    Path, typer.Option(metavar="DIR", help="Where a CSV file of each is written.")
]


def main(
    names: NamesArgument = None,
    *,
    data: DataOption = None,
    out: OutFolderOption = _cells.RESULTS,
) -> None:
    """Run tables and figures that need no training, and write what was found."""
    unknown = [name for name in names or () if name not in NAMES]
    if unknown:
        raise DataError(
            f"There is no `{unknown[0]}` without training, expected one of {', '.join(NAMES)}."
        )
    quiet_libraries()
    request = Request(checked_folder(data))
    for name in names or NAMES:
        module = import_module(f"paper.{name}")
        cells = _cells.fill(_cells.read_expected(name), module.measure_of(request))
        path = out / f"{name}.csv"
        _cells.write_csv(path, {name: [_anywhere(cell, request) for cell in cells]})
        _cells.print_reasons([cell for cell in cells if cell.ours is None])
        _cells.print_sum(module.TITLE, cells)
        print(f"All of them, with the reason where one is missing: {path}")


def _anywhere(cell: Cell, request: Request) -> Cell:
    """Leave out where the data lie on this machine: results are compared between machines."""
    return replace(cell, reason=cell.reason.replace(str(request.data), "DIR"))


if __name__ == "__main__":
    typer.run(exits_cleanly(main))
