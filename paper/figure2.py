"""Figure 2: how the number of distinct tokens grows with the tokens read, and two laws of it."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

if not __package__:  # run as a script: python paper/figure2.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paper._cells import Cell, Measure, Printed
from paper._command import run_script
from paper._usage import Request, token_growth
from subvocab.analysis.heaps import HeapsFit, fit_heaps, fit_saturating
from subvocab.errors import DataError
from subvocab.vocabulary import VocabularyGrowth

NAME = "figure2"
TITLE = "Figure 2: growth of the vocabulary, and two laws fitted to it"
FITS = {"heaps": fit_heaps, "saturating": fit_saturating}
FORMATS = (".svg", ".png", ".pdf")
PANEL_INCHES = (6.4, 4.4)
PANELS_A_ROW = 3


@cache
def _growth(request: Request, model: str, task: str) -> VocabularyGrowth:
    """Scan a data set in the order of its splits, once for models of one tokenizer."""
    return token_growth(request, model, task)


@cache
def _fit(request: Request, model: str, task: str, law: str) -> HeapsFit:
    """Fit a law once for all its constants."""
    return FITS[law](_growth(request, model, task))


def measure_of(request: Request) -> Measure:
    """Measure a curve, or a constant of a law fitted to it.

    Args:
        request: Where the data are, and which rows of them.

    Returns:
        Gives the figure of a cell, and where it lies with 95 % confidence.
    """

    def measure(cell: Printed) -> tuple[float, str]:
        if cell.quantity in {"total_tokens", "unique_tokens"}:
            counts = _growth(request, cell.model, cell.task).counts
            of_all = f"of |V| = {counts.full_vocab_size:,}"
            unique = cell.quantity == "unique_tokens"
            return float(getattr(counts, cell.quantity)), of_all if unique else ""
        law, _, constant = cell.quantity.partition("_")
        fit = _fit(request, cell.model, cell.task, law)
        if constant == "rms":
            return fit.root_mean_square, ""
        low, high = fit.scale_interval if constant == "scale" else fit.exponent_interval
        return float(getattr(fit, constant)), f"95 %: {low:.3g}, {high:.3g}"

    return measure


def draw(path: Path, cells: list[Cell], request: Request) -> None:
    """Draw a panel for each model and task that was run: the curve, both laws, and |V|.

    Args:
        path: An SVG, PNG or PDF file.
        cells: What was run.
        request: Where the data are, and which rows of them.

    Raises:
        DataError: If the file's name tells no such format, or nothing was run.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path} ends in none of {', '.join(FORMATS)}. Name a figure that does.")
    panels = list(dict.fromkeys((c.model, c.task) for c in cells if c.ours is not None))
    if not panels:
        raise DataError(f"No curve could be measured, so {path} was not written.")
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to load

    from subvocab.analysis.plots import plot_growth  # noqa: PLC0415

    across = min(PANELS_A_ROW, len(panels))
    down = -(-len(panels) // across)
    size = (across * PANEL_INCHES[0], down * PANEL_INCHES[1])
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for ax, (model, task) in zip(axes, panels, strict=False):
        fits = [_fit(request, model, task, law) for law in FITS]
        plot_growth(_growth(request, model, task), fits, ax=ax)
        ax.set_title(f"{model}, {task}")
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    run_script(NAME, TITLE, measure_of, draw)
