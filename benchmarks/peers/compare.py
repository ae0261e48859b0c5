"""What two runs learned, put side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from benchmarks.peers.trial import WEIGHTS


@dataclass(frozen=True)
class Learned:
    """What a run gave.

    Attributes:
        losses: Of each step.
        folder: Where its weights are.
        rows: Of the embedding matrix.
    """

    losses: list[float]
    folder: Path
    rows: int


ROUNDING = 1e-5
"""A difference of losses or weights up to this is one of rounding."""


def verdict(one: Learned, two: Learned, token_ids: list[int]) -> str:
    """Compare losses and all weights.

    Args:
        one: What a run learned.
        two: What another run learned.
        token_ids: The tokens that occur.

    Returns:
        ``equal`` if all are, to the last bit; or else how far they are apart.
    """
    losses = max(abs(a - b) for a, b in zip(one.losses, two.losses, strict=True))
    used_rows = rows = 0.0
    with (
        safe_open(one.folder / WEIGHTS, "pt") as weights,
        safe_open(two.folder / WEIGHTS, "pt") as their_weights,
    ):
        names = set(weights.keys())
        if missing := names ^ set(their_weights.keys()):
            return f"DIFFERS: {len(missing)} tensors are in one alone, such as {min(missing)}"
        for name in sorted(names):
            a, b = weights.get_tensor(name), their_weights.get_tensor(name)
            if a.shape != b.shape:
                return f"DIFFERS: {name} is {tuple(a.shape)}, not {tuple(b.shape)}"
            if not torch.equal(a, b):
                by_row = (a.double() - b.double()).abs().flatten(1 if a.dim() > 1 else 0)
                by_row = by_row.amax(1) if a.dim() > 1 else by_row
                used = by_row[token_ids] if len(by_row) == one.rows else by_row
                used_rows, rows = max(used_rows, float(used.max())), max(rows, float(by_row.max()))
    if one.losses == two.losses and not rows:
        return "equal"
    if max(losses, rows) <= ROUNDING:
        return f"to rounding, {max(losses, rows):.0e}"
    if max(losses, used_rows) <= ROUNDING:
        return f"to rounding, {max(losses, used_rows):.0e}; rows of unused tokens by {rows:.0e}"
    return f"DIFFERS: losses by {losses:.0e}, weights by {used_rows:.0e}"
