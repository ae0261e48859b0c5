"""The log-sum-exp over all tokens outside V′: one column that stands for the rest of the softmax.

A softmax over the logits of V′ and this column *is* the softmax over V, so the ordinary cross
entropy gives the exact loss. The rows outside V′ are frozen; they are read a chunk at a time with
an online softmax that also keeps their mean, weighted by probability: the gradient of the
column. So backward needs no second pass, and nothing of size tokens × |V| is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = {"cpu": 1 << 21}
"""Logits held at a time, by type of device: as many as stay in a processor's cache."""
LARGE_TILE = 1 << 25
FEWEST_ROWS = 256
MOST_ROWS = 1 << 14


@dataclass(frozen=True)
class Transform:
    """What a model does to its logits before the softmax: cap · tanh(scale · z / cap).

    Attributes:
        scale: What logits are multiplied by (Cohere, Granite).
        cap: What they are squeezed below (Gemma 2, Gemma 3n), or None.
    """

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Apply it, in the order and precision in which models do.

        Args:
            logits: Of any shape.

        Returns:
            The logits that the softmax takes.
        """
        if self.scale != 1:
            logits = logits * self.scale
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits


@dataclass
class RestStatistics:
    """What else a softmax over frozen rows tells of every hidden state; `rest_column` fills it in.

    None of it has a gradient. Each is ``(tokens,)``, in the precision of the column.

    Attributes:
        highest: The highest logit.
        highest_row: Which of the frozen rows gives it; the first of several.
        total: The sum of the logits.
        mean: Their mean, weighted by probability.
        log_squares: log Σ exp(2 · logit).
        rows: How many logits there are.
    """

    highest: Tensor = field(default_factory=torch.Tensor)
    highest_row: Tensor = field(default_factory=torch.Tensor)
    total: Tensor = field(default_factory=torch.Tensor)
    mean: Tensor = field(default_factory=torch.Tensor)
    log_squares: Tensor = field(default_factory=torch.Tensor)
    rows: int = 0

    def begin(self, highest: Tensor) -> None:
        """Start from no row at all.

        Args:
            highest: Minus infinity for every token, ``(tokens, 1)``.
        """
        zero = torch.zeros_like(highest)
        self.highest, self.total, self.mean, self.log_squares = highest, zero, zero, zero
        self.highest_row = torch.zeros_like(highest, dtype=torch.long)

    def add(self, logits: Tensor, weights: Tensor, peak: Tensor) -> None:
        """Add a part of the rows.

        Args:
            logits: ``(tokens, rows)``.
            weights: exp(logits − peak).
            peak: The highest logit so far, these included, ``(tokens, 1)``.
        """
        highest, row = logits.max(dim=1, keepdim=True)
        self.highest_row = torch.where(highest > self.highest, row + self.rows, self.highest_row)
        self.rows += logits.shape[1]
        fade = (self.highest - peak).exp_()
        self.highest = peak
        self.total = self.total + logits.sum(dim=1, keepdim=True)
        self.mean = self.mean * fade + (logits * weights).sum(dim=1, keepdim=True)
        squares = weights.square().sum(dim=1, keepdim=True)
        self.log_squares = self.log_squares * fade.square() + squares

    def finish(self, weight: Tensor) -> None:
        """Turn sums into what they stand for.

        Args:
            weight: Σ exp(logits − peak), ``(tokens, 1)``.
        """
        self.mean = self.mean / weight
        self.log_squares = self.log_squares.log() + 2 * self.highest
        for name in ("highest", "highest_row", "total", "mean", "log_squares"):
            setattr(self, name, getattr(self, name).squeeze(1))

    def shift(self, added: Tensor) -> None:
        """Add a number to all logits of a token.

        Args:
            added: ``(tokens,)``.
        """
        self.highest = self.highest + added
        self.total = self.total + self.rows * added
        self.mean = self.mean + added
        self.log_squares = self.log_squares + 2 * added


def rows_per_tile(tokens: int, device: torch.device) -> int:
    """Tell how many frozen rows to take at a time.

    Args:
        tokens: How many hidden states there are.
        device: Where the product is made.

    Returns:
        As many as keep tokens × rows within a tile.

    Example:
        >>> rows_per_tile(512, torch.device("cpu"))
        4096
    """
    tile = TILE.get(device.type, LARGE_TILE)
    return min(MOST_ROWS, max(FEWEST_ROWS, tile // max(1, tokens)))


def rest_column(
    hidden: Tensor,
    chunks: Iterable[tuple[Tensor, Tensor | None]],
    *,
    shift: Tensor | None = None,
    transform: Transform = Transform(),
    statistics: RestStatistics | None = None,
) -> Tensor:
    """Give log Σ exp over the logits of frozen rows, for every hidden state.

    Args:
        hidden: ``(tokens, dim)``, in any floating dtype.
        chunks: The frozen rows ``(n, dim)`` with their biases ``(n,)``, a part at a time;
            one part at least.
        shift: ``(tokens,)``: what is added to every one of a token's logits.
        transform: What the model does to logits before the softmax.
        statistics: To be filled in, if wanted.

    Returns:
        ``(tokens,)`` in single precision (double for double), with a gradient for hidden
        states and shift. Cost: two products of tokens × rows × dim, of which the second
        is left out where no gradient is needed.

    Example:
        >>> rows = torch.randn(5, 4)
        >>> hidden = torch.randn(3, 4)
        >>> expected = (hidden @ rows.T).logsumexp(-1)
        >>> torch.allclose(rest_column(hidden, [(rows[:2], None), (rows[2:], None)]), expected)
        True
    """
    if transform.cap is None:  # a shift passes through a sum of exponentials
        column = _log_sum_exp(hidden, None, chunks, transform, statistics)
        if shift is None:
            return column
        added = transform.scale * shift.to(column.dtype)
        if statistics is not None:
            statistics.shift(added.detach())
        return column + added
    return _log_sum_exp(hidden, shift, chunks, transform, statistics)


def _tile(
    logits: Tensor, bias: Tensor | None, shift: Tensor | None, transform: Transform
) -> tuple[Tensor, Tensor | None]:
    """Make logits of products, in place; and the slope of the cap, if there is one."""
    if bias is not None:
        logits += bias.to(logits.dtype)
    if shift is not None:
        logits += shift.to(logits.dtype)[:, None]
    if transform.scale != 1:
        logits *= transform.scale
    if transform.cap is None:
        return logits, None
    logits = logits.div_(transform.cap).tanh_()
    slopes = 1 - logits.square()
    return logits.mul_(transform.cap), slopes


class _LogSumExp(torch.autograd.Function):
    """An online softmax, and with it the mean of the rows."""

    @staticmethod
    def forward(  # noqa: PLR0917 - the interface of a Function
        ctx: Any,
        hidden: Tensor,
        shift: Tensor | None,
        chunks: Iterable[tuple[Tensor, Tensor | None]],
        transform: Transform,
        statistics: RestStatistics | None,
    ) -> Tensor:
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        tokens = hidden.shape[0]
        highest = hidden.new_full((tokens, 1), -torch.inf, dtype=exact)
        total = hidden.new_zeros((tokens, 1), dtype=exact)
        needs_mean = any(ctx.needs_input_grad)
        mean = hidden.new_zeros(hidden.shape if needs_mean else (0,), dtype=exact)
        slope = hidden.new_zeros((tokens, 1), dtype=exact)
        if statistics is not None:
            statistics.begin(highest)
        for rows, bias in chunks:
            logits, slopes = _tile((hidden @ rows.T).to(exact), bias, shift, transform)
            peak = torch.maximum(highest, logits.amax(dim=1, keepdim=True))
            fade = (highest - peak).exp_()
            if statistics is None:
                weights = logits.sub_(peak).exp_()
            else:
                weights = (logits - peak).exp_()
                statistics.add(logits, weights, peak)
            total.mul_(fade).add_(weights.sum(dim=1, keepdim=True))
            highest = peak
            if not needs_mean:
                continue
            if slopes is not None:
                weights *= slopes
                slope.mul_(fade).add_(weights.sum(dim=1, keepdim=True))
            mean.mul_(fade)
            if rows.dtype == exact and not torch.is_autocast_enabled(hidden.device.type):
                mean.addmm_(weights, rows)
            else:
                mean += (weights.to(rows.dtype) @ rows).to(exact)
        if statistics is not None:
            statistics.finish(total)
        if needs_mean:
            gain = transform.scale / total
            slope = slope * gain if transform.cap is not None else torch.full_like(slope, 1.0)
            ctx.save_for_backward((mean * gain).to(hidden.dtype), slope.squeeze(1))
            ctx.shift_dtype = None if shift is None else shift.dtype
        return (highest + total.log_()).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mean, slope = ctx.saved_tensors
        for_hidden = mean * grad[:, None].to(mean.dtype)
        if ctx.shift_dtype is None:
            return for_hidden, None, None, None, None
        return for_hidden, (slope * grad).to(ctx.shift_dtype), None, None, None


_log_sum_exp = cast("Callable[..., Tensor]", _LogSumExp.apply)
