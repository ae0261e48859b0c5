"""Table 6: reductions of distilled models over GLUE, in per cent."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a script: python paper/table6.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paper._command import run_script
from paper._usage import reductions

NAME = "table6"
TITLE = "Table 6: reductions of distilled models over GLUE, in per cent"
measure_of = reductions

if __name__ == "__main__":
    run_script(NAME, TITLE, measure_of)
