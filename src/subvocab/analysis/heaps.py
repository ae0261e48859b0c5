"""Laws for the growth of a vocabulary: Heaps' law, and a form of it that ends at |V| (paper §3).

Both are fitted by nonlinear least squares at points evenly spaced along the dataset. Points
evenly spaced on a logarithmic axis weigh its first words as much as all the rest: on SST-2 the
law then misses the end by 120 %, and so by 6 %.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer

from subvocab.errors import DataError
from subvocab.vocabulary import VocabularyGrowth

POINTS = 200
CONFIDENCE = 0.95
FEWEST_POINTS = 4
Law = Callable[[np.ndarray, float, float], np.ndarray]


@dataclass(frozen=True)
class HeapsFit:
    """A law of growth with the constants that fit a dataset best.

    Attributes:
        scale: K.
        exponent: β.
        scale_interval: Where K lies with 95 % confidence, if residuals were independent;
            those of a growth curve are not, so take it for a lower bound of the doubt.
        exponent_interval: The same for β.
        asymptote: |V| where growth ends there, None where it never ends.
        tokens: The numbers of tokens at which the law was fitted.
        residuals: The logarithm of observed over fitted numbers of distinct tokens there.
    """

    scale: float
    exponent: float
    scale_interval: tuple[float, float]
    exponent_interval: tuple[float, float]
    asymptote: int | None
    tokens: Integer[np.ndarray, "points"]
    residuals: Float64[np.ndarray, "points"]

    @property
    def root_mean_square(self) -> float:
        """Size of the residuals: 0.01 means that the law is off by about 1 %."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    def predict(self, tokens: Integer[np.ndarray, "points"]) -> Float64[np.ndarray, "points"]:
        """Tell how many distinct tokens the law expects.

        Args:
            tokens: Numbers of tokens read.

        Returns:
            The distinct tokens among so many.
        """
        law = _heaps if self.asymptote is None else _saturating(self.asymptote)
        return law(np.asarray(tokens), np.log(self.scale), self.exponent)


def fit_heaps(growth: VocabularyGrowth) -> HeapsFit:
    """Fit Heaps' law, U(n) = K·n^β: the number of distinct tokens among n has no end.

    Args:
        growth: Of a dataset.

    Returns:
        The fit.

    Raises:
        DataError: If the dataset has too few tokens.

    Source:
        §3 of the paper; Heaps (1978), Information Retrieval, §7.5.

    Example:
        >>> from subvocab.data import scan_growth
        >>> rng = np.random.default_rng(0)
        >>> growth = scan_growth(rng.zipf(1.5, 100_000) % 50_000, full_vocab_size=50_000)
        >>> round(fit_heaps(growth).exponent, 1)
        0.6
    """
    return _fit(growth, _heaps, asymptote=None)


def fit_saturating(growth: VocabularyGrowth) -> HeapsFit:
    """Fit the form that ends at |V|: 1 / U(n) = 1 / (K·n^β) + 1 / |V|.

    It is Heaps' law while few tokens are used, and cannot exceed the tokenizer's vocabulary:
    the asymptote that the paper draws.

    Args:
        growth: Of a dataset.

    Returns:
        The fit.

    Raises:
        DataError: If the dataset has too few tokens.

    Source:
        §3 and Figure 2 of the paper. The formula is ours: of two that tend to |V|, it fits
        better than |V|·(1 − exp(−K·n^β / |V|)) on English text with four tokenizers.
    """
    size = growth.counts.full_vocab_size
    return _fit(growth, _saturating(size), asymptote=size)


def _heaps(tokens: np.ndarray, log_scale: float, exponent: float) -> np.ndarray:
    """Heaps' law; its scale as a logarithm, which keeps K positive."""
    return np.asarray(np.exp(log_scale + exponent * np.log(tokens)), dtype=np.float64)


def _saturating(full_vocab_size: int) -> Law:
    """Give the form that ends at a |V|."""

    def law(tokens: np.ndarray, log_scale: float, exponent: float) -> np.ndarray:
        return 1 / (1 / _heaps(tokens, log_scale, exponent) + 1 / full_vocab_size)

    return law


def _fit(growth: VocabularyGrowth, law: Law, *, asymptote: int | None) -> HeapsFit:
    """Find K and β, and how sure they are."""
    from scipy.optimize import OptimizeWarning, curve_fit  # noqa: PLC0415  (slow to load)
    from scipy.stats import t as student  # noqa: PLC0415

    total = growth.counts.total_tokens
    tokens = np.unique(np.linspace(0, total, POINTS + 1).astype(np.int64))[1:]
    if tokens.size < FEWEST_POINTS:
        raise DataError(f"{total:,} tokens are too few to fit a law of growth to. Scan more texts.")
    unique = growth.unique_after(tokens)
    guess = np.polyfit(np.log(tokens), np.log(unique), 1)[::-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            found, covariance = curve_fit(law, tokens, unique, p0=guess)
    except (RuntimeError, OptimizeWarning) as error:
        raise DataError(
            f"No law of growth fits {growth.counts.unique_tokens:,} distinct tokens among "
            f"{total:,} of a vocabulary of {growth.counts.full_vocab_size:,} "
            f"({str(error).rstrip('.')}). Scan more texts."
        ) from error
    quantile = student.ppf((1 + CONFIDENCE) / 2, tokens.size - len(found))
    spread = quantile * np.sqrt(np.diag(covariance))
    low, high = found - spread, found + spread
    return HeapsFit(
        scale=float(np.exp(found[0])),
        exponent=float(found[1]),
        scale_interval=(float(np.exp(low[0])), float(np.exp(high[0]))),
        exponent_interval=(float(low[1]), float(high[1])),
        asymptote=asymptote,
        tokens=tokens,
        residuals=np.log(unique / law(tokens, *found)),
    )
