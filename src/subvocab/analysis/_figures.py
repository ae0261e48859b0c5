"""The figures of a report, each in two widths and in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from subvocab.analysis import plots
from subvocab.analysis._findings import Findings
from subvocab.analysis._svg import draw_svg
from subvocab.analysis.savings import Savings
from subvocab.analysis.usage import tokens_to_cover
from subvocab.vocabulary import TokenCounts

WIDE, NARROW = 780, 350
"""Widths of a figure on a screen and on a phone."""


@dataclass(frozen=True)
class Drawing:
    """A figure in two widths, with its words.

    Attributes:
        wide: An ``<svg>`` for screens.
        narrow: The same for phones.
        told: What the figure shows, in numbers, for those who do not see it.
        caption: What it is.
    """

    wide: Any
    narrow: Any
    told: str
    caption: str


def draw_figures(findings: Findings, trusted: Callable[[str], Any]) -> dict[str, Drawing | None]:
    """Draw what the page shows.

    Args:
        findings: The numbers.
        trusted: Marks text that the template is not to escape.

    Returns:
        Figures by the template's names for them; None for those of models, without any.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    growth, savings = findings.growth, findings.savings

    def drawing(name: str, draw: Any, heights: tuple[int, int], told: str, caption: str) -> Any:
        wide, narrow = (
            trusted(draw_svg(draw, name=f"{name}-{width}", width=width, height=height))
            for width, height in zip((WIDE, NARROW), heights, strict=True)
        )
        return Drawing(wide, narrow, told, caption)

    bars = 60 + 78 * len(savings)
    return {
        "growth_figure": drawing(
            "growth",
            lambda ax: plots.plot_growth(growth, findings.fits, ax=ax),
            (400, 320),
            _tell_growth(findings),
            f"Distinct tokens against tokens read. The laws go on to {plots.AHEAD} times "
            "these data.",
        ),
        "coverage_figure": drawing(
            "coverage",
            lambda ax: plots.plot_coverage(growth.counts, ax=ax),
            (320, 280),
            _tell_coverage(growth.counts),
            "Share of the running text that the most frequent tokens cover together.",
        ),
        "memory_figure": drawing(
            "memory",
            lambda ax: plots.plot_memory(savings, ax=ax),
            (bars + 20, bars + 20),
            " ".join(map(_tell_memory, savings)),
            _memory_caption(savings),
        )
        if savings
        else None,
        "savings_figure": drawing(
            "savings",
            lambda ax: plots.plot_savings(savings, ax=ax),
            (bars, bars),
            " ".join(map(_tell_savings, savings)),
            "Parameters saved, of the embedding matrix and of the whole model.",
        )
        if savings
        else None,
    }


def _tell_growth(findings: Findings) -> str:
    """Say what the figure of growth shows."""
    tokens, unique = findings.growth.curve(5)
    points = ", ".join(f"{u:,} after {n:,}" for n, u in zip(tokens, unique, strict=True))
    laws = "".join(
        f" {'The saturating form' if fit.asymptote else 'The law of Heaps'} fits with K "
        f"{fit.scale:.3g} and β {fit.exponent:.3g}."
        for fit in findings.fits
    )
    size = findings.growth.counts.full_vocab_size
    return f"Growth curve. Distinct tokens: {points}. The vocabulary has {size:,}.{laws}"


def _tell_coverage(counts: TokenCounts) -> str:
    """Say what the figure of coverage shows."""
    points = ", ".join(
        f"{tokens_to_cover(counts, share):,} cover {share:.0%}" for share in plots.MARKED_SHARES
    )
    return (
        f"Coverage curve. Of the {counts.unique_tokens:,} tokens seen, the most frequent {points}."
    )


def _tell_memory(savings: Savings) -> str:
    """Say what the bars of one model's memory show."""
    full, partial = savings.full, savings.partial
    parts = ", ".join(
        f"{part} {plots.readable_bytes(getattr(full, part))} and "
        f"{plots.readable_bytes(getattr(partial, part))}"
        for part in plots.PARTS
        if getattr(full, part)
    )
    return (
        f"{savings.model}: {plots.readable_bytes(full.total)} whole, "
        f"{plots.readable_bytes(partial.total)} with PEMA ({parts})."
    )


def _memory_caption(savings: Sequence[Savings]) -> str:
    """Say what bars and lines are."""
    said = "Memory for training with the whole matrix, and with the rows of V′ alone."
    if any(memory.apart for plan in savings for memory in (plan.full, plan.partial)):
        said += (
            " The line in a bar, and the number beside it, is the most that is held at the same "
            "time: logits are gone before the last gradients come."
        )
    return said


def _tell_savings(savings: Savings) -> str:
    """Say what the bars of one model's parameters show."""
    parameters = savings.parameters
    return (
        f"{savings.model}: {parameters.embedding_reduction:.1%} of the embedding saved, "
        f"{parameters.model_reduction:.1%} of the model."
    )
