"""The numbers of a report, gathered before anything is drawn or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from subvocab.analysis.anomalies import TokenKind, UnusedToken
from subvocab.analysis.heaps import HeapsFit, fit_heaps, fit_saturating
from subvocab.analysis.savings import Savings
from subvocab.analysis.usage import coverage, tokens_to_cover, usage_figures
from subvocab.errors import DataError
from subvocab.vocabulary import VocabularyGrowth

SHARES = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Shares of the running text whose tokens are counted."""


@dataclass(frozen=True)
class Findings:
    """What is known of a dataset's use of a vocabulary, and of what models save by it.

    Attributes:
        growth: What one pass over the dataset told.
        heaps: Heaps' law, or None where it cannot be fitted.
        saturating: The form that ends at |V|, or None.
        unfitted: Why a law could not be fitted; empty if both were.
        covered: Shares of the running text, and how many tokens cover them.
        unused: The tokens never seen.
        savings: What is saved, model by model.
    """

    growth: VocabularyGrowth
    heaps: HeapsFit | None
    saturating: HeapsFit | None
    unfitted: str
    covered: tuple[tuple[float, int], ...]
    unused: tuple[UnusedToken, ...]
    savings: tuple[Savings, ...]

    @property
    def fits(self) -> tuple[HeapsFit, ...]:
        """The laws that could be fitted."""
        return tuple(fit for fit in (self.heaps, self.saturating) if fit is not None)

    @property
    def partial_vocab_size(self) -> int:
        """|V′|."""
        return len(self.growth.counts.partial_vocabulary())

    def unused_by_kind(self) -> dict[str, int]:
        """Count the tokens never seen.

        Returns:
            How many there are of each kind, none left out.
        """
        found = Counter(token.kind for token in self.unused)
        return {kind.value: found[kind] for kind in TokenKind}

    def figures(self) -> dict[str, Any]:
        """Gather all numbers for machines.

        Returns:
            Values by name, for JSON.
        """
        cumulated = coverage(self.growth.counts)
        return {
            **usage_figures(self.growth.counts),
            "fits": {
                "heaps": _fit_figures(self.heaps),
                "saturating": _fit_figures(self.saturating),
            },
            "unfitted": self.unfitted or None,
            "coverage": [
                {"share": share, "tokens": tokens, "covered": float(cumulated[tokens - 1])}
                for share, tokens in self.covered
            ],
            "unused": self.unused_by_kind(),
            "savings": [savings.figures() for savings in self.savings],
        }


def find(
    growth: VocabularyGrowth, unused: Sequence[UnusedToken], savings: Sequence[Savings]
) -> Findings:
    """Work out the numbers of a report.

    Args:
        growth: What one pass over the dataset told.
        unused: The tokens never seen.
        savings: What is saved, model by model.

    Returns:
        The numbers. A law that cannot be fitted is left out, and it is said why.

    Raises:
        DataError: If nothing was read.
    """
    if not growth.counts.total_tokens:
        raise DataError("There is nothing to report: the data hold no token. Scan other data.")
    reasons: list[str] = []
    return Findings(
        growth=growth,
        heaps=_fitted(fit_heaps, growth, reasons),
        saturating=_fitted(fit_saturating, growth, reasons),
        unfitted=reasons[0] if reasons else "",
        covered=tuple((share, tokens_to_cover(growth.counts, share)) for share in SHARES),
        unused=tuple(unused),
        savings=tuple(savings),
    )


def _fitted(
    fit: Callable[[VocabularyGrowth], HeapsFit], growth: VocabularyGrowth, reasons: list[str]
) -> HeapsFit | None:
    """Fit a law, or note why not."""
    try:
        return fit(growth)
    except DataError as error:
        reasons.append(str(error))
        return None


def _fit_figures(fit: HeapsFit | None) -> dict[str, Any] | None:
    """Gather the constants of a law; its residuals as one number."""
    if fit is None:
        return None
    return {
        "scale": fit.scale,
        "scale_interval": list(fit.scale_interval),
        "exponent": fit.exponent,
        "exponent_interval": list(fit.exponent_interval),
        "asymptote": fit.asymptote,
        "root_mean_square": fit.root_mean_square,
    }
