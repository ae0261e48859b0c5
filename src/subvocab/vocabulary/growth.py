"""How the number of distinct tokens grows as a dataset is read (paper §3, Figure 2).

Where each token was first seen is all that is kept, so the curve is exact at every point and
datasets that were scanned apart are joined by an addition. This module does no reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64, Integer

from subvocab._typing import StrPath
from subvocab.errors import VocabularyMismatchError
from subvocab.vocabulary.counts import TokenCounts
from subvocab.vocabulary.record import fingerprint, load_value, save_record, sealed

KIND = "vocabulary_growth"
NEVER = -1


@dataclass(frozen=True, eq=False)
class VocabularyGrowth:
    """The counts of a dataset, and how far it had been read when each token came up. Immutable.

    Attributes:
        counts: How often each token was seen.
        first_seen: By token id, the number of tokens read before its first occurrence;
            -1 for a token never seen. Read-only.

    Raises:
        VocabularyMismatchError: If the two do not tell of the same tokens.

    Source:
        §3 of the paper, after Heaps (1978): unique against total tokens.

    Example:
        >>> growth = VocabularyGrowth(TokenCounts(np.array([2, 0, 1])), np.array([0, -1, 2]))
        >>> growth.unique_after(np.array([0, 1, 2, 3])).tolist()
        [0, 1, 1, 2]
        >>> (growth + growth).counts.total_tokens
        6
    """

    counts: TokenCounts
    first_seen: Int64[np.ndarray, "full"]

    def __post_init__(self) -> None:
        if self.first_seen.shape != self.counts.counts.shape:
            raise VocabularyMismatchError(
                f"`first_seen` tells of {self.first_seen.size:,} tokens, and the counts of "
                f"{self.counts.full_vocab_size:,}. Take both from one scan."
            )
        seen = self.counts.counts > 0
        wrong = np.flatnonzero(
            (self.first_seen < np.where(seen, 0, NEVER))
            | (self.first_seen >= np.where(seen, self.counts.total_tokens, 0))
        )
        if wrong.size:
            at = int(wrong[0])
            raise VocabularyMismatchError(
                f"Token id {at:,} was counted {self.counts.counts[at]:,} times among "
                f"{self.counts.total_tokens:,} tokens, but first seen after "
                f"{self.first_seen[at]:,}. Take both from one scan."
            )
        object.__setattr__(self, "first_seen", sealed(self.first_seen))

    def __reduce__(self) -> tuple[type[VocabularyGrowth], tuple[TokenCounts, np.ndarray]]:
        # As for TokenCounts: the constructor makes the array read-only again.
        return VocabularyGrowth, (self.counts, self.first_seen)

    @cached_property
    def fingerprint(self) -> str:
        """Name of this value: sha256 of counts, special ids and first occurrences."""
        return fingerprint(self.counts.counts, self.counts.special_token_ids, self.first_seen)

    @cached_property
    def _arrivals(self) -> Int64[np.ndarray, "unique"]:
        """The positions at which a token came up for the first time, ascending."""
        return np.sort(self.first_seen[self.first_seen != NEVER])

    def unique_after(self, tokens: Integer[np.ndarray, "points"]) -> Int64[np.ndarray, "points"]:
        """Count the distinct tokens among the first n that were read.

        Args:
            tokens: Several n.

        Returns:
            The distinct tokens among so many.
        """
        return np.searchsorted(self._arrivals, tokens, side="left")

    def curve(
        self, points: int = 200
    ) -> tuple[Int64[np.ndarray, "points"], Int64[np.ndarray, "points"]]:
        """Take points of the curve, evenly spaced on a logarithmic axis.

        Args:
            points: How many at most; short datasets have fewer.

        Returns:
            Numbers of tokens read, ascending from 1 to all, and the distinct tokens
            among them.
        """
        total = self.counts.total_tokens
        spaced = np.geomspace(1, max(total, 1), points).round().astype(np.int64)
        tokens = np.unique(spaced)[: None if total else 0]
        return tokens, self.unique_after(tokens)

    def __add__(self, other: VocabularyGrowth) -> VocabularyGrowth:
        """Join two datasets, of which the other is read after this one.

        Args:
            other: Growth over the same V.

        Returns:
            The growth over both. Unlike that of counts, the order matters.

        Raises:
            VocabularyMismatchError: If the other is over another V.
        """
        counts = self.counts + other.counts
        later = other.first_seen + self.counts.total_tokens
        known = self.first_seen != NEVER
        first_seen = np.where(other.first_seen == NEVER, NEVER, later)
        return VocabularyGrowth(counts, np.where(known, self.first_seen, first_seen))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VocabularyGrowth) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def save(self, path: StrPath) -> None:
        """Write to a safetensors file.

        Args:
            path: The file to write; its folder must exist.
        """
        tensors = {
            "counts": self.counts.counts,
            "special_token_ids": self.counts.special_token_ids,
            "first_seen": self.first_seen,
        }
        save_record(path, KIND, tensors, fingerprint=self.fingerprint)

    @classmethod
    def load(cls, path: StrPath) -> VocabularyGrowth:
        """Read what ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The growth.

        Raises:
            CheckpointError: If the file is missing or damaged, or holds something else.
        """
        return load_value(
            path,
            KIND,
            lambda held: cls(
                TokenCounts(held["counts"], held["special_token_ids"]), held["first_seen"]
            ),
        )
