"""Tests of the laws of growth."""

from __future__ import annotations

import numpy as np
import pytest

from subvocab.analysis.heaps import HeapsFit, fit_heaps, fit_saturating
from subvocab.data import scan_growth
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts, VocabularyGrowth

SIZE = 50_000
TOTAL = 1_000_000


def growing(unique: np.ndarray) -> VocabularyGrowth:
    """Make a dataset with given numbers of distinct tokens among its first 1, 2, …."""
    new = np.flatnonzero(np.diff(np.floor(unique), prepend=0))
    assert new.size == int(unique[-1])  # a token brings no more than itself
    first_seen = np.full(SIZE, -1)
    first_seen[: new.size] = new
    counts = (first_seen >= 0).astype(np.int64)
    counts[0] += unique.size - counts.sum()
    return VocabularyGrowth(TokenCounts(counts), first_seen)


def test_fit_heaps_finds_the_constants_of_its_law() -> None:
    """To the rounding to whole tokens, with intervals around them."""
    tokens = np.arange(1, TOTAL + 1)
    fit = fit_heaps(growing(tokens**0.7))

    assert fit.scale == pytest.approx(1, rel=2e-3)
    assert fit.exponent == pytest.approx(0.7, abs=2e-4)
    assert fit.scale_interval[0] < fit.scale < fit.scale_interval[1]
    assert fit.exponent_interval[0] < fit.exponent < fit.exponent_interval[1]
    assert fit.asymptote is None
    assert fit.root_mean_square < 1e-3


def test_fit_saturating_finds_the_constants_of_its_law() -> None:
    """It never exceeds |V|, however far it is drawn."""
    tokens = np.arange(1, TOTAL + 1)
    fit = fit_saturating(growing(1 / (1 / (tokens**0.75) + 1 / SIZE)))

    assert fit.scale == pytest.approx(1, rel=3e-3)
    assert fit.exponent == pytest.approx(0.75, abs=3e-4)
    assert fit.asymptote == SIZE
    assert 0.99 * SIZE < fit.predict(np.array([10**12]))[0] < SIZE


def test_residuals_are_those_of_the_prediction() -> None:
    """What is reported is what the law gives."""
    growth = scan_growth(np.random.default_rng(0).zipf(1.4, 50_000) % SIZE, full_vocab_size=SIZE)

    for fit in (fit_heaps(growth), fit_saturating(growth)):
        observed = growth.unique_after(fit.tokens)
        assert np.allclose(fit.residuals, np.log(observed / fit.predict(fit.tokens)))
        assert fit.tokens[-1] == 50_000
        assert abs(fit.residuals[-1]) < 0.1


def test_intervals_narrow_as_the_law_fits_better() -> None:
    """Noise around the same law makes its constants less sure."""
    tokens = np.arange(1, TOTAL + 1)
    law = tokens**0.7
    bent = np.maximum.accumulate(law * (1 + 0.1 * np.sin(np.log(tokens) * 3)))

    def width(fit: HeapsFit) -> float:
        return fit.exponent_interval[1] - fit.exponent_interval[0]

    assert width(fit_heaps(growing(bent))) > 10 * width(fit_heaps(growing(law)))


@pytest.mark.parametrize("fit", [fit_heaps, fit_saturating])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "0 tokens are too few to fit a law of growth to. Scan more texts."),
        ([1, 2, 3], "3 tokens are too few to fit a law of growth to. Scan more texts."),
    ],
)
def test_fit_refuses_too_few_tokens(fit: object, ids: list[int], message: str) -> None:
    """Two constants need more than three points."""
    assert callable(fit)
    with pytest.raises(DataError, match=message):
        fit(scan_growth(np.array(ids, dtype=np.int64), full_vocab_size=9))


@pytest.mark.parametrize("ids", [[4] * 1000, list(range(1000))])
def test_extreme_growth_is_fitted_or_refused(ids: list[int]) -> None:
    """One token over and over, and none twice: a finite law, or a message."""
    growth = scan_growth(np.array(ids), full_vocab_size=1000)
    for law in (fit_heaps, fit_saturating):
        try:
            fit = law(growth)
        except DataError as error:
            assert "No law of growth fits" in str(error)  # noqa: PT017  (either will do)
        else:
            assert np.isfinite([fit.scale, fit.exponent, *fit.predict(fit.tokens)]).all()
