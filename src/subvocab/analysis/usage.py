"""How much of the running text a part of the vocabulary covers (paper §3)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts


def usage_figures(counts: TokenCounts) -> dict[str, int]:
    """Gather how much of a vocabulary a dataset uses.

    Args:
        counts: How often each token was seen.

    Returns:
        Values by name, for JSON.

    Raises:
        VocabularyMismatchError: If nothing was seen and there is no special token to keep.

    Example:
        >>> list(usage_figures(TokenCounts(np.array([1, 0, 6, 3]))).values())
        [4, 3, 10, 3]
    """
    return {
        "full_vocab_size": counts.full_vocab_size,
        "unique_tokens": counts.unique_tokens,
        "total_tokens": counts.total_tokens,
        "partial_vocab_size": len(counts.partial_vocabulary()),
    }


def coverage(counts: TokenCounts) -> Float64[np.ndarray, "unique"]:
    """Tell what share of the running text the most frequent tokens cover.

    Args:
        counts: How often each token was seen.

    Returns:
        At index m − 1, the share that the m most frequent tokens cover; ascending to 1.
        Empty if nothing was seen.

    Example:
        >>> coverage(TokenCounts(np.array([1, 0, 6, 3]))).tolist()
        [0.6, 0.9, 1.0]
    """
    seen = np.sort(counts.counts[counts.counts > 0])[::-1]
    return np.asarray(np.cumsum(seen) / max(counts.total_tokens, 1), dtype=np.float64)


def tokens_to_cover(counts: TokenCounts, share: float) -> int:
    """Tell how many of the most frequent tokens cover a share of the running text.

    Args:
        counts: How often each token was seen.
        share: In (0, 1].

    Returns:
        The smallest such number; 0 if nothing was seen.

    Raises:
        DataError: If the share lies outside (0, 1].

    Example:
        >>> tokens_to_cover(TokenCounts(np.array([1, 0, 6, 3])), 0.9)
        2
    """
    if not 0 < share <= 1:
        raise DataError(f"A share of {share:g} cannot be covered, expected one in (0, 1].")
    # In whole numbers: the cumulated shares are rounded.
    seen = np.sort(counts.counts[counts.counts > 0])[::-1]
    needed = int(np.ceil(share * counts.total_tokens - 1e-9 * share * counts.total_tokens))
    return int(np.searchsorted(np.cumsum(seen), needed)) + 1 if seen.size else 0
