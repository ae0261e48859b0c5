"""What all figures share: colours, axes without clutter, bars in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subvocab._extras import import_extra

COLORS = {
    "ink": "#1d2733",
    "muted": "#5a6675",
    "grid": "#e4e8ed",
    "edge": "#7b8794",
    "paper": "#fefefe",
    "blue": "#0a6cae",
    "orange": "#c8560b",
    "green": "#0b8a66",
    "purple": "#a2558a",
}
"""What each colour means is told where it is used; the report swaps them all for the dark."""

BAR = 0.82
GROUP = 3.0
"""Height of a bar, and of a model's two bars with its name; in units of the axis."""


def own_axes(ax: Any) -> Any:
    """Give the axes to draw on.

    Args:
        ax: Axes, or None.

    Returns:
        The axes, else some on a figure of pyplot's, which notebooks show.
    """
    if ax is not None:
        return ax
    pyplot = import_extra("matplotlib.pyplot", extra="report", purpose="Drawing a figure")
    return pyplot.subplots(layout="constrained")[1]


def count_ticks(axis: Any, *, logarithmic: bool = False) -> None:
    """Label an axis of counts with numbers that people say.

    Args:
        axis: One of the two of some axes.
        logarithmic: Whether it is.
    """
    ticker = import_extra("matplotlib.ticker", extra="report", purpose="Drawing a figure")
    if logarithmic:
        axis.set_major_locator(ticker.LogLocator(numticks=12))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        axis.set_major_locator(ticker.MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=True))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    """Write a round number, such as 10k."""
    for letter, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def group_bars(ax: Any, names: Sequence[str], rows: Sequence[str]) -> np.ndarray:
    """Make room for a bar a row and model, with the model's name above its own.

    Args:
        ax: The axes.
        names: Of the models.
        rows: What each of a model's bars is.

    Returns:
        The heights of the bars, model by model.
    """
    places = np.array([GROUP * at + row for at in range(len(names)) for row in range(len(rows))])
    ax.set_yticks(places, [*rows] * len(names))
    ax.set_ylim(GROUP * len(names) - 1.4, -1.4)
    for at, name in enumerate(names):
        ax.annotate(
            name,
            (0, GROUP * at - BAR / 2),
            (0, 5),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=COLORS["ink"],
            weight="bold",
            parse_math=False,  # a name may have dollars in it
        )
    return places


def label_bar(ax: Any, end: float, place: float, text: str) -> None:
    """Write a value at the end of its bar.

    Args:
        ax: The axes.
        end: Where the bar ends.
        place: Its height on the axis.
        text: The value.
    """
    ax.annotate(
        text,
        (end, place),
        (5, 0),
        textcoords="offset points",
        va="center_baseline",  # as the labels of ticks
        color=COLORS["ink"],
    )


def styled(ax: Any, *, grid: str, bars: bool = False) -> Any:
    """Take away what says nothing.

    Args:
        ax: The axes, all drawn.
        grid: Lines to draw: ``x``, ``y`` or ``both``.
        bars: Whether bars stand on the left edge, which then needs no line.

    Returns:
        The axes.
    """
    ax.set_axisbelow(True)
    ax.grid(axis=grid, color=COLORS["grid"], linewidth=1)
    ax.spines[["top", "right", *(("left",) if bars else ())]].set_visible(False)
    for spine in ax.spines.values():
        spine.set_color(COLORS["muted"])
    ax.tick_params(color=COLORS["muted"], labelcolor=COLORS["muted"], length=0 if bars else 3)
    ax.xaxis.label.set_color(COLORS["muted"])
    ax.yaxis.label.set_color(COLORS["muted"])
    if legend := ax.get_legend():
        for text in legend.get_texts():
            text.set_color(COLORS["ink"])
    return ax
