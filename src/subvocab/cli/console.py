"""What all commands share: how they end on an error, and how they print."""

from __future__ import annotations

import functools
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ParamSpec

import typer

from subvocab.errors import DataError, SubvocabError

ERROR_STATUS = 2
INTERRUPTED_STATUS = 130

Options = ParamSpec("Options")


def exits_cleanly(command: Callable[Options, None]) -> Callable[Options, None]:
    """Turn a command's errors into one message and an exit status.

    Args:
        command: The function of a command.

    Returns:
        The same command. What was raised on purpose, and what the system refused, exit
        with 2; an interrupt exits with 130. Anything else is a fault of ours, and shows
        its traceback.
    """

    @functools.wraps(command)
    def run(*args: Options.args, **kwargs: Options.kwargs) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # for terminals that lack a letter
        try:
            command(*args, **kwargs)
        except SubvocabError as error:
            _fail(str(error), ERROR_STATUS)
        except BrokenPipeError:  # of `| head`: click ends in silence
            raise
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            _fail(f"{named}{str(error.strerror or error).rstrip('.')}.", ERROR_STATUS)
        except KeyboardInterrupt:
            _fail("Interrupted; nothing was written.", INTERRUPTED_STATUS)

    return run


def _fail(message: str, status: int) -> None:
    """Say one thing on the standard error, and exit."""
    typer.echo(f"subvocab: {message}", err=True)
    raise typer.Exit(status)


def check_writable(path: Path | None, sources: Iterable[object] = ()) -> None:
    """See before long work that its result can be written.

    Args:
        path: The file to be written, or None.
        sources: Files and folders that are read; URLs are passed over.

    Raises:
        DataError: If its folder does not exist, it is no file itself, or it is one of the
            sources or is read with one.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or a pipe"
        raise DataError(f"{path} is a {kind}, expected the name of a file to write.")
    if not path.parent.is_dir():
        raise DataError(f"There is no folder {path.parent} to write {path.name} to. Make it first.")
    from subvocab.data.files import FORMATS  # noqa: PLC0415

    target = path.resolve()
    of_data = target.suffix.lower() in FORMATS
    read = [source.resolve() for source in sources if isinstance(source, Path)]
    if path.exists() and (target in read or (of_data and target.parent in read)):
        raise DataError(f"{path} is among the data that are read. Write to another file.")


def quiet_libraries() -> bool:
    """Keep `datasets` and transformers from talking over a command.

    Returns:
        Whether a person looks at the standard error, so that progress bars are welcome.
    """
    import datasets  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    watched = sys.stderr.isatty()
    # A fresh classification head is what is wanted here, not something to be reported.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # What it logs it raises too, and then it is said once, by the command.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not watched:
        datasets.disable_progress_bars()
    return watched


def print_json(values: Mapping[str, object]) -> None:
    """Print one JSON object on the standard output.

    Args:
        values: What to print. Numbers that JSON lacks become null.
    """
    typer.echo(json.dumps(_finite(values), allow_nan=False))


def _finite(value: object) -> object:
    """Replace NaN and infinities, at any depth, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def usage_rows(figures: Mapping[str, int]) -> dict[str, str]:
    """Write what a dataset uses of a vocabulary, for `print_table`.

    Args:
        figures: As `usage_figures` gives them.

    Returns:
        Values as text, by what they are.
    """
    share = figures["partial_vocab_size"] / figures["full_vocab_size"]
    return {
        "Tokens of the vocabulary, |V|": f"{figures['full_vocab_size']:,}",
        "Tokens seen": f"{figures['total_tokens']:,}",
        "Distinct tokens seen": f"{figures['unique_tokens']:,}",
        "Rows to keep, |V′|": f"{figures['partial_vocab_size']:,} ({share:.1%})",
    }


def print_table(title: str, rows: Mapping[str, str]) -> None:
    """Print names and values on the standard output.

    Args:
        title: What the table is about.
        rows: Values as text, by what they are.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=Text(title, "table.title"), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table, markup=False)
