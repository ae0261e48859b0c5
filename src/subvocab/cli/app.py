"""The commands of ``subvocab``. To add one, write it in a file of its own and register it here.

Commands import what is heavy when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from subvocab import __version__
from subvocab.cli.console import exits_cleanly
from subvocab.cli.finetune import finetune
from subvocab.cli.inspect import inspect
from subvocab.cli.merge import merge
from subvocab.cli.plan import plan
from subvocab.cli.report import report
from subvocab.cli.scan import scan
from subvocab.cli.verify import verify

app = typer.Typer(
    name="subvocab",
    help="Fine-tune a language model while holding only the embedding rows its data uses.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(*, wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"subvocab {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda wanted: _print_version(wanted=wanted),
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Keep the name of a command necessary, however few there are."""


for _command in (scan, plan, report, finetune, verify, merge, inspect):
    app.command()(exits_cleanly(_command))
