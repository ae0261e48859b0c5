"""One progress bar for all long work: on the standard error, and only where a person looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    description: str, *, total: float | None, enabled: bool = True
) -> Iterator[Callable[[float], None]]:
    """Show how far some long work has come.

    Args:
        description: What is being done, such as ``Scanning``.
        total: Amount of work in any unit, or None if it is not known.
        enabled: False shows nothing; so does a standard error that is no terminal.

    Yields:
        A function to call with the amount of work done since the last call. It
        may be called from any thread.
    """
    if not (enabled and sys.stderr.isatty()):
        yield lambda _amount: None
        return
    # rich costs 50 ms to import: only a terminal pays.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda amount: progress.advance(task, amount)
