"""What the pages in `docs` and README show, as programs that tests run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def python_blocks(page: str) -> list[str]:
    """Give the Python snippets of a page, such as ``docs/peft.md``.

    Args:
        page: Its path from the root of the project.

    Returns:
        The programs, in their order.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_block(program: str, names: dict[str, Any]) -> None:
    """Run a snippet with what it takes for granted; what it defines stays in ``names``.

    Args:
        program: The snippet.
        names: Its global names.
    """
    exec(compile(program, "snippet", "exec"), names)  # noqa: S102
