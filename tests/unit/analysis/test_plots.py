"""Figures show the numbers that they were given, on axes that say what they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from subvocab.analysis.heaps import fit_heaps, fit_saturating
from subvocab.analysis.plots import (
    AHEAD,
    plot_coverage,
    plot_growth,
    plot_memory,
    plot_savings,
    readable_bytes,
)
from subvocab.analysis.usage import coverage
from subvocab.data import scan_growth
from subvocab.errors import MissingExtraError
from subvocab.vocabulary import TokenCounts
from tests.unit.analysis.report_samples import SIZE, growth, savings

GROWTH = growth()
SAVINGS = savings()
FITS = (fit_heaps(GROWTH), fit_saturating(GROWTH))


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Draw without a display, and leave no figure open."""
    monkeypatch.delenv("DISPLAY", raising=False)
    mpl.use("agg")
    yield
    plt.close("all")


def _lines(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.lines}


def _texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_plot_growth_draws_the_data_and_both_laws() -> None:
    """The curve is exact where it is drawn, and the laws go on beyond it."""
    lines = _lines(plot_growth(GROWTH, FITS))

    tokens, unique = lines["these data"].get_data()
    assert unique.tolist() == GROWTH.unique_after(tokens).tolist()
    assert (tokens[-1], unique[-1]) == (20_000, GROWTH.counts.unique_tokens)
    for name, fit in zip(("Heaps' law", "saturating at |V|"), FITS, strict=True):
        ahead, fitted = lines[name].get_data()
        assert ahead[-1] == AHEAD * 20_000
        assert np.array_equal(fitted, fit.predict(ahead))


def test_plot_growth_draws_the_vocabulary_where_it_is_near() -> None:
    """The line of |V| is within the axes, and says its number."""
    ax = plot_growth(GROWTH, FITS)

    heights = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() != "None"]
    assert SIZE in heights
    assert ax.get_ylim()[1] > SIZE
    assert _texts(ax) == ["|V| = 2,000"]


def test_plot_growth_tells_of_a_vocabulary_far_above() -> None:
    """Curves must not lie flat under a line a hundred times as high."""
    far = scan_growth([[1, 2, 1, 3]], full_vocab_size=5000)

    ax = plot_growth(far)

    assert _texts(ax) == ["↑ |V| = 5,000"]
    assert ax.get_ylim()[1] < 5


def test_plot_growth_of_nothing_is_empty_axes() -> None:
    """Nothing read is nothing drawn, and no warning."""
    assert plot_growth(scan_growth([[]], full_vocab_size=5)).get_xlabel() == "tokens read"


def test_plot_coverage_draws_shares_in_percent() -> None:
    """Each point is what so many tokens cover."""
    ax = plot_coverage(GROWTH.counts)

    amounts, shares = ax.lines[0].get_data()
    assert np.array_equal(shares, 100 * coverage(GROWTH.counts)[amounts - 1])
    assert shares[-1] == 100
    assert [text.partition(" ")[0] for text in _texts(ax)] == ["50%", "80%", "95%"]


def test_plot_coverage_of_nothing_is_empty_axes() -> None:
    """Nothing seen covers nothing."""
    assert _texts(plot_coverage(TokenCounts(np.zeros(3, dtype=np.int64)))) == []


def test_plot_memory_stacks_every_part() -> None:
    """The bars of a model end where the sum of its parts does; numbers are what is held."""
    ax = plot_memory(SAVINGS)

    memories = [memory for plan in SAVINGS for memory in (plan.full, plan.partial)]
    ends = [0.0] * 4
    for container in ax.containers:
        for at, bar in enumerate(container):
            assert bar.get_x() == pytest.approx(ends[at])
            ends[at] += bar.get_width()
    sums = [memory.total + memory.apart for memory in memories]
    assert ends == pytest.approx([total / 1e9 for total in sums])
    assert [c.get_label() for c in ax.containers][:4] == [
        "weights",
        "gradients",
        "optimizer",
        "logits",
    ]
    assert set(map(readable_bytes, (memory.total for memory in memories))) <= set(_texts(ax))


def test_plot_memory_marks_what_is_held_at_once() -> None:
    """Where parts are never held together, a line stands at the sum that is."""
    ax = plot_memory(SAVINGS)

    apart = [m for plan in SAVINGS for m in (plan.full, plan.partial) if m.apart]
    assert len(apart) == 2
    assert [line.get_xdata()[0] for line in ax.lines] == [m.total / 1e9 for m in apart]


def test_plot_memory_takes_one_model() -> None:
    """A lone plan needs no list."""
    ax = plot_memory(SAVINGS[0])

    assert [label.get_text() for label in ax.get_yticklabels()] == ["whole", "PEMA"]
    assert "logits" not in [c.get_label() for c in ax.containers]


def test_plot_savings_draws_both_reductions() -> None:
    """A bar for the embedding, one for the model, under the model's name."""
    ax = plot_savings(SAVINGS)

    widths = [[bar.get_width() for bar in container] for container in ax.containers]
    assert widths[0] == [100 * plan.parameters.embedding_reduction for plan in SAVINGS]
    assert widths[1] == [100 * plan.parameters.model_reduction for plan in SAVINGS]
    assert {"classifier", "speaker <$1>", "75.0%"} <= set(_texts(ax))


PLOTS: dict[str, Callable[..., Any]] = {
    "growth": lambda **options: plot_growth(GROWTH, FITS, **options),
    "coverage": lambda **options: plot_coverage(GROWTH.counts, **options),
    "memory": lambda **options: plot_memory(SAVINGS, **options),
    "savings": lambda **options: plot_savings(SAVINGS, **options),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plots_draw_on_the_axes_given(name: str) -> None:
    """A notebook may lay out figures of its own, and names the axes nowhere else."""
    ax = plt.figure().subplots()

    assert PLOTS[name](ax=ax) is ax
    assert plt.get_fignums() == [1]
    assert ax.get_xlabel()


def test_memory_is_labelled_with_its_unit() -> None:
    """A number without its unit is none."""
    assert plot_memory(SAVINGS).get_xlabel() == "memory for training, GB"
    assert plot_savings(SAVINGS).get_xlabel() == "parameters saved, %"


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are an extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)

    with pytest.raises(MissingExtraError) as caught:
        plot_coverage(GROWTH.counts)

    assert str(caught.value) == (
        "Drawing a figure needs `matplotlib`, which is not installed. "
        "Run `pip install 'subvocab[report]'`."
    )
