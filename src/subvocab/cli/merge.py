"""``subvocab merge``: make a compact checkpoint whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subvocab.cli.options import OutFolderOption


def merge(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A folder that save_compact wrote.")
    ],
    *,
    base: Annotated[
        str, typer.Option(metavar="MODEL", help="The model it came from: folder, or Hub name.")
    ],
    out: OutFolderOption,
) -> None:
    """Make a compact checkpoint whole, on disk."""
    from subvocab.model.checkpoint import merge as merge_checkpoint  # noqa: PLC0415

    merge_checkpoint(checkpoint, base=base, out=out)
    typer.echo(f"The whole model lies in {out}")
