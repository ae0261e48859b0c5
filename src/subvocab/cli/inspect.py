"""``subvocab inspect``: what a file or folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subvocab.cli.console import print_json, print_table
from subvocab.cli.options import JsonOption

if TYPE_CHECKING:
    from subvocab.storage import Checkpoint

DESCRIPTION_FILE = "subvocab.json"
"""Marks a compact checkpoint; looked for here so that others need no torch."""


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="Counts, a vocabulary, a row adapter, or a checkpoint."
        ),
    ],
    *,
    json: JsonOption = False,
) -> None:
    """Tell what a file of counts, a vocabulary, a row adapter or a checkpoint holds."""
    held = describe(path)
    if json:
        print_json(held)
    else:
        print_table(str(path), {name.replace("_", " "): shown(v) for name, v in held.items()})


def describe(path: Path) -> dict[str, Any]:
    """Read what a file or folder says of itself.

    Args:
        path: A file or folder.

    Returns:
        Values by name.

    Raises:
        CheckpointError: If it is nothing that this library reads, or damaged.
    """
    from subvocab.storage import read_checkpoint  # noqa: PLC0415
    from subvocab.vocabulary import (  # noqa: PLC0415
        PartialVocabulary,
        TokenCounts,
        VocabularyGrowth,
    )
    from subvocab.vocabulary.record import record_kind  # noqa: PLC0415

    kind = record_kind(path) if path.is_file() and path.suffix == ".safetensors" else None
    if kind in ("token_counts", "vocabulary_growth"):
        value = (TokenCounts if kind == "token_counts" else VocabularyGrowth).load(path)
        counts = value if isinstance(value, TokenCounts) else value.counts
        return {
            "kind": kind,
            "full_vocab_size": counts.full_vocab_size,
            "unique_tokens": counts.unique_tokens,
            "total_tokens": counts.total_tokens,
            "special_tokens": counts.special_token_ids.size,
            "partial_vocab_size": len(counts.partial_vocabulary()),
            "fingerprint": value.fingerprint,
        }
    if kind == "partial_vocabulary":
        vocabulary = PartialVocabulary.load(path)
        return {
            "kind": kind,
            "full_vocab_size": vocabulary.full_vocab_size,
            "partial_vocab_size": len(vocabulary),
            "fingerprint": vocabulary.fingerprint,
        }
    if kind == "row_adapter":
        return _describe_row_adapter(path)
    return _describe_checkpoint(path, read_checkpoint(path))


def _describe_row_adapter(path: Path) -> dict[str, Any]:
    """Describe the learned rows of each table."""
    from subvocab.model.row_adapter import RowAdapter  # noqa: PLC0415

    adapter = RowAdapter.load(path)
    tables = [
        {
            "table": name,
            "rows": len(table.token_ids),
            "of": table.full_vocab_size,
            "numbers": f"{list(table.values.shape)} {table.values.dtype}".replace("torch.", ""),
            "kept_as": "differences" if table.differences else "learned rows",
            "rest_shift": "yes" if table.rest_shift is not None else "no",
            "base_fingerprint": table.base_fingerprint,
        }
        for name, table in adapter.tables.items()
    ]
    return {"kind": "row_adapter", "fingerprint": adapter.fingerprint, "tables": tables}


def _describe_checkpoint(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Describe weights: compact ones by their own description, any by their tensors."""
    tensors = checkpoint.tensors.values()
    tallest = sorted(tensors, key=lambda tensor: -tensor.nbytes)[:3]
    held = {
        "kind": "checkpoint",
        "files": len(checkpoint.files),
        "tensors": len(tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors),
        "largest": [f"{t.name} {t.dtype} {list(t.shape)}" for t in tallest],
    }
    if not (path / DESCRIPTION_FILE).is_file():
        return held
    from subvocab.model.checkpoint import VOCABULARY_FILE  # noqa: PLC0415
    from subvocab.model.merge import read_description  # noqa: PLC0415

    base = read_description(path).get("base")
    vocabulary = describe(path / VOCABULARY_FILE)
    return {**held, "kind": "compact_checkpoint", "base": base, "vocabulary": vocabulary}


def shown(value: object) -> str:
    r"""Write a value for people.

    Args:
        value: What `describe` gives.

    Returns:
        Numbers with separators, lists a line each.

    Example:
        >>> shown(30522), shown(["a", "b"])
        ('30,522', 'a\nb')
    """
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return "\n".join(map(shown, value))
    if isinstance(value, dict):
        return "\n".join(f"{name.replace('_', ' ')}: {shown(v)}" for name, v in value.items())
    return str(value)
