"""``subvocab merge``: make a whole model of a compact checkpoint, or of a row adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subvocab._atomic import check_new_folder
from subvocab.cli.options import OutFolderOption
from subvocab.errors import CheckpointError


def merge(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A folder that save_compact wrote, or the file of a row adapter.",
        ),
    ],
    *,
    base: Annotated[
        str, typer.Option(metavar="MODEL", help="The model it came from: folder, or Hub name.")
    ],
    out: OutFolderOption,
    replay_weight_decay: Annotated[
        bool,
        typer.Option(
            "--replay-weight-decay",
            help="Shrink the unused rows as full fine-tuning by AdamW would have.",
        ),
    ] = False,
) -> None:
    """Make a compact checkpoint whole, or write a row adapter into its base, on disk."""
    check_new_folder(out)  # said before torch is imported, which takes seconds
    if not checkpoint.exists():
        raise CheckpointError(
            f"There is no file or folder {checkpoint}. Name what `subvocab.save_compact` or "
            "`RowAdapter.save` wrote."
        )
    if checkpoint.is_file():
        if replay_weight_decay:
            raise CheckpointError(
                f"{checkpoint} is a row adapter, which notes no steps of weight decay. Leave out "
                "`--replay-weight-decay`."
            )
        from subvocab.model.row_adapter import RowAdapter  # noqa: PLC0415

        RowAdapter.load(checkpoint).merge(base, out)
    else:
        from subvocab.model.merge import merge as merge_checkpoint  # noqa: PLC0415

        merge_checkpoint(checkpoint, base=base, out=out, replay_weight_decay=replay_weight_decay)
    typer.echo(f"The whole model lies in {out}")
