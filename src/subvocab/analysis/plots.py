"""Figures of what a dataset uses and what that saves, as matplotlib Axes (paper, Figure 2).

Each function draws on the axes it is given, and opens a figure of its own without. Colours
have one meaning each, and are told apart by the colour-blind (after Okabe and Ito); line
styles tell the same once more. Needs the extra ``report``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subvocab.analysis._style import (
    BAR,
    COLORS,
    count_ticks,
    group_bars,
    label_bar,
    own_axes,
    styled,
)
from subvocab.analysis.heaps import HeapsFit
from subvocab.analysis.memory import GIGABYTE
from subvocab.analysis.savings import Savings
from subvocab.analysis.usage import coverage, tokens_to_cover
from subvocab.vocabulary import TokenCounts, VocabularyGrowth

AHEAD = 3
"""How far fitted curves are drawn: so many times the tokens read."""

FAR = 4.0
"""From so many times the curves' height, |V| is told and not drawn: they would lie flat."""

MARKED_SHARES = (0.5, 0.8, 0.95)
"""Shares of the running text that the figure of coverage points out."""

PARTS = {
    "weights": "blue",
    "gradients": "orange",
    "optimizer": "green",
    "logits": "purple",
    "temporary": "edge",
}
"""The parts of `Memory`, in the order they are stacked."""

ROOMY = 6.0
"""Inches from which the parts of memory have room beside each other."""


def plot_growth(growth: VocabularyGrowth, fits: Sequence[HeapsFit] = (), *, ax: Any = None) -> Any:
    """Draw distinct tokens against tokens read, with fitted laws and the line of |V|.

    The laws go on to three times the tokens read. Where |V| lies far above all curves, an
    arrow tells of it.

    Args:
        growth: What one pass over the dataset told.
        fits: Laws fitted to it, from `fit_heaps` and `fit_saturating`.
        ax: Axes to draw on; a figure of their own by default.

    Returns:
        The axes.

    Raises:
        MissingExtraError: If matplotlib is not installed.

    Source:
        §3 and Figure 2.
    """
    ax = own_axes(ax)
    counts = growth.counts
    total = max(counts.total_tokens, 1)
    tokens = np.unique(np.linspace(0, total, 400).astype(np.int64))
    unique = growth.unique_after(tokens)
    ahead = np.unique(np.linspace(1, AHEAD * total, 400).astype(np.int64))
    ax.plot(
        tokens, unique, color=COLORS["blue"], linewidth=5, alpha=0.5, label="these data", zorder=2
    )
    ax.plot(total, counts.unique_tokens, "o", color=COLORS["blue"], markersize=8, zorder=4)
    for fit in fits:
        saturating = fit.asymptote is not None
        ax.plot(
            ahead,
            fit.predict(ahead),
            color=COLORS["green" if saturating else "orange"],
            linestyle="solid" if saturating else (0, (5, 2)),
            linewidth=1.8,
            label="saturating at |V|" if saturating else "Heaps' law",
            zorder=3 if saturating else 3.5,  # dashes on top: both show where they agree
        )
    ax.set(xlabel="tokens read", ylabel="distinct tokens")
    highest = max([1.0, float(counts.unique_tokens), *(fit.predict(ahead[-1:])[0] for fit in fits)])
    _draw_vocabulary(ax, counts.full_vocab_size, highest)
    ax.set_xlim(0, AHEAD * total if fits else 1.05 * total)
    count_ticks(ax.xaxis)
    count_ticks(ax.yaxis)
    ax.legend(loc="lower right", frameon=False)
    return styled(ax, grid="both")


def _draw_vocabulary(ax: Any, size: int, highest: float) -> None:
    """Draw the line of |V|, or tell where it is."""
    told = f"|V| = {size:,}"
    style = {"color": COLORS["muted"], "parse_math": False}
    if size > FAR * highest:
        ax.set_ylim(0, 1.25 * highest)
        ax.annotate(
            f"↑ {told}",
            (0, 1),
            (8, -6),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            **style,
        )
    else:
        ax.set_ylim(0, 1.12 * max(size, highest))
        ax.axhline(size, color=COLORS["muted"], linewidth=1.4, linestyle=(0, (1, 2)))
        ax.annotate(told, (0, size), (8, 5), textcoords="offset points", **style)


def plot_coverage(counts: TokenCounts, *, ax: Any = None) -> Any:
    """Draw what share of the running text the most frequent tokens cover.

    Args:
        counts: How often each token was seen.
        ax: Axes to draw on; a figure of their own by default.

    Returns:
        The axes.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    ax = own_axes(ax)
    shares = 100 * coverage(counts)
    # As many points as the eye can tell apart, not one a token.
    amounts = np.unique(np.geomspace(1, max(shares.size, 1), 400).round().astype(np.int64))
    drawn = shares[amounts[: shares.size] - 1]
    ax.plot(amounts[: drawn.size], drawn, color=COLORS["blue"], linewidth=2.2)
    ax.fill_between(amounts[: drawn.size], drawn, color=COLORS["blue"], alpha=0.12, linewidth=0)
    for share in MARKED_SHARES if shares.size else ():
        amount = tokens_to_cover(counts, share)
        height = shares[amount - 1]
        # Left of the curve, or under it where there is no room to the left.
        left = amount**3 > shares.size
        ax.plot(amount, height, "o", color=COLORS["blue"], markersize=6)
        ax.annotate(
            f"{share:.0%} by {amount:,}",
            (amount, height),
            (-8, 4) if left else (9, -5),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom" if left else "top",
            color=COLORS["ink"],
        )
    ax.set(xscale="log", xlabel="most frequent tokens", ylabel="share of the running text, %")
    ax.set_xlim(1, max(shares.size, 2))
    ax.set_ylim(0, 108)
    ax.set_yticks(range(0, 101, 20))
    count_ticks(ax.xaxis, logarithmic=True)
    return styled(ax, grid="y")


def plot_memory(savings: Savings | Sequence[Savings], *, ax: Any = None) -> Any:
    """Draw what training keeps in memory, whole and with PEMA, as stacked bars.

    The numbers are what is held at the worst moment. Where parts of a bar are never held at
    the same time, such as logits and the last gradients, a line marks that sum in the bar.

    Args:
        savings: What a plan saves, for one model or several.
        ax: Axes to draw on; a figure of their own by default.

    Returns:
        The axes. Units: 10⁹ bytes.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    ax = own_axes(ax)
    plans = [savings] if isinstance(savings, Savings) else list(savings)
    memories = [memory for plan in plans for memory in (plan.full, plan.partial)]
    places = group_bars(ax, [plan.model for plan in plans], ("whole", "PEMA"))
    ends = np.zeros(len(memories))
    for part, color in PARTS.items():
        sizes = np.array([getattr(memory, part) for memory in memories]) / GIGABYTE
        if not sizes.any():
            continue
        ax.barh(
            places,
            sizes,
            left=ends,
            height=BAR,
            color=COLORS[color],
            edgecolor=COLORS["paper"],
            linewidth=1,
            label=part,
        )
        ends += sizes
    for place, end, memory in zip(places, ends, memories, strict=True):
        if memory.apart:  # the bars are longer than what is ever held at once
            peak = memory.total / GIGABYTE
            ax.plot([peak, peak], place + BAR * np.array([-0.62, 0.62]), color=COLORS["ink"])
        label_bar(ax, end, place, readable_bytes(memory.total))
    ax.set_xlim(0, 1.2 * max(ends, default=1.0))
    ax.set_xlabel("memory for training, GB")
    # Above the axes, so that it lies on no bar.
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(PARTS) if ax.figure.get_figwidth() > ROOMY else 3,
        frameon=False,
        borderaxespad=0,
        columnspacing=1.2,
        handlelength=0.9,
        handleheight=0.9,
        handletextpad=0.5,
    )
    return styled(ax, grid="x", bars=True)


def plot_savings(savings: Savings | Sequence[Savings], *, ax: Any = None) -> Any:
    """Draw what share of the parameters each model saves.

    Args:
        savings: What a plan saves, for one model or several.
        ax: Axes to draw on; a figure of their own by default.

    Returns:
        The axes.

    Raises:
        MissingExtraError: If matplotlib is not installed.

    Source:
        §5.3, Tables 2 and 3.
    """
    ax = own_axes(ax)
    plans = [savings] if isinstance(savings, Savings) else list(savings)
    kinds = {"embedding": "blue", "model": "orange"}
    places = group_bars(ax, [plan.model for plan in plans], [*kinds])
    for row, (kind, color) in enumerate(kinds.items()):
        shares = [100 * getattr(plan.parameters, f"{kind}_reduction") for plan in plans]
        ax.barh(places[row::2], shares, height=BAR, color=COLORS[color])
        for place, share in zip(places[row::2], shares, strict=True):
            label_bar(ax, share, place, f"{share:.1f}%")
    ax.set_xlim(0, 112)
    ax.set_xticks(range(0, 101, 20))
    ax.set_xlabel("parameters saved, %")
    return styled(ax, grid="x", bars=True)


def readable_bytes(amount: int) -> str:
    """Write an amount of memory with three digits that count.

    Args:
        amount: Bytes.

    Returns:
        The amount in the unit that suits it, a thousand to the next.

    Example:
        >>> readable_bytes(4_446_000_000), readable_bytes(92_300_000), readable_bytes(512)
        ('4.45 GB', '92.3 MB', '0.512 kB')
    """
    for unit, size in (("TB", 10**12), ("GB", GIGABYTE), ("MB", 10**6)):
        if amount >= size:
            return f"{_three_digits(amount / size)} {unit}"
    return f"{_three_digits(amount / 1000)} kB"


def _three_digits(value: float) -> str:
    """Write a number below a thousand, or a little above."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004
