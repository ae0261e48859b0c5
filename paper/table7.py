"""Table 7: sizes of GLUE's splits, in rows."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a script: python paper/table7.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paper._cells import Measure, Printed
from paper._command import run_script
from paper._glue import read_split
from paper._usage import Request

NAME = "table7"
TITLE = "Table 7: rows of GLUE's splits"


def measure_of(request: Request) -> Measure:
    """Count rows.

    Args:
        request: Where the data are. All splits are counted, whichever were chosen.

    Returns:
        Gives the figure of a cell; its quantity is the split.
    """

    def measure(cell: Printed) -> float:
        return float(len(read_split(request.data, cell.task, cell.quantity)))

    return measure


if __name__ == "__main__":
    run_script(NAME, TITLE, measure_of)
