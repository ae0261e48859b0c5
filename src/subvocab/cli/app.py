"""The commands of ``subvocab``. To add one, write it in a file of its own and register it here.

Commands import what is heavy when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import typer

from subvocab.cli.console import exits_cleanly
from subvocab.cli.finetune import finetune
from subvocab.cli.inspect import inspect
from subvocab.cli.merge import merge
from subvocab.cli.scan import scan

app = typer.Typer(
    name="subvocab",
    help="Fine-tune a language model while holding only the embedding rows its data uses.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _start() -> None:
    """Keep the name of a command necessary, however few there are."""


for _command in (scan, finetune, merge, inspect):
    app.command()(exits_cleanly(_command))
