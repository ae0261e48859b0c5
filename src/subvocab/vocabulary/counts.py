"""How often each token of V occurs in a dataset (paper §3 and §4 "Before fine-tuning").

Counts are a commutative monoid under ``+``, so any split of a corpus over threads, files or
machines gives the same result. This module does no reading: see `subvocab.data`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Int64, Integer

from subvocab._typing import StrPath
from subvocab.errors import VocabularyMismatchError, listed
from subvocab.vocabulary.partial import PartialVocabulary
from subvocab.vocabulary.record import fingerprint, load_value, save_record, sealed

KIND = "token_counts"


def _no_ids() -> np.ndarray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """The number of times each token id was seen. Immutable.

    Attributes:
        counts: Occurrences by token id; its length is |V|, the number of rows of E
            (which may exceed ``len(tokenizer)``). Read-only.
        special_token_ids: Ids to keep in V′ though they may never be seen (padding,
            mask and the like), ascending. They are not counted as seen.

    Raises:
        VocabularyMismatchError: If a count is negative, or a special id lies outside
            ``[0, |V|)``.

    Example:
        >>> counts = TokenCounts(np.array([0, 3, 0, 1]), special_token_ids=np.array([0]))
        >>> counts.unique_tokens, counts.total_tokens, counts.full_vocab_size
        (2, 4, 4)
        >>> counts.partial_vocabulary().token_ids
        array([0, 1, 3])
        >>> (counts + counts).total_tokens
        8
    """

    counts: Int64[np.ndarray, "full"]
    special_token_ids: Int64[np.ndarray, "special"] = field(default_factory=_no_ids)

    def __post_init__(self) -> None:
        counts, special = sealed(self.counts), sealed(np.unique(self.special_token_ids))
        if counts.size and counts.min() < 0:
            at = int(counts.argmin())
            raise VocabularyMismatchError(
                f"The count of token id {at:,} is {counts[at]:,}, expected zero or more."
            )
        outside = special[(special < 0) | (special >= counts.size)]
        if outside.size:
            raise VocabularyMismatchError(
                f"Special token ids {listed(outside.tolist())} lie outside the vocabulary of "
                f"{counts.size:,}. Give the `full_vocab_size` of the model, which is the "
                "number of rows of its embedding matrix."
            )
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "special_token_ids", special)

    def __reduce__(self) -> tuple[type[TokenCounts], tuple[np.ndarray, np.ndarray]]:
        # NumPy forgets on pickling that an array is read-only; the constructor remembers.
        return TokenCounts, (self.counts, self.special_token_ids)

    @property
    def full_vocab_size(self) -> int:
        """|V|."""
        return self.counts.size

    @cached_property
    def unique_tokens(self) -> int:
        """Number of distinct token ids seen."""
        return int(np.count_nonzero(self.counts))

    @cached_property
    def total_tokens(self) -> int:
        """Number of tokens seen."""
        return int(self.counts.sum())

    @cached_property
    def fingerprint(self) -> str:
        """Name of this value: sha256 of counts and special ids."""
        return fingerprint(self.counts, self.special_token_ids)

    def __add__(self, other: TokenCounts) -> TokenCounts:
        """Count two parts of a dataset together.

        Args:
            other: Counts over the same V.

        Returns:
            The sums; the special ids of both.

        Raises:
            VocabularyMismatchError: If the other counts are over another V.
        """
        if self.full_vocab_size != other.full_vocab_size:
            raise VocabularyMismatchError(
                f"Counts over {self.full_vocab_size:,} and over {other.full_vocab_size:,} tokens "
                "cannot be added. Scan both parts with the same tokenizer and `full_vocab_size`."
            )
        special = np.union1d(self.special_token_ids, other.special_token_ids)
        return TokenCounts(self.counts + other.counts, special)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenCounts) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def partial_vocabulary(
        self, extra_token_ids: Iterable[int] | Integer[np.ndarray, "_"] = ()
    ) -> PartialVocabulary:
        """Take V′: the tokens seen, and the special ones.

        Args:
            extra_token_ids: More ids to keep, such as those a collator draws.

        Returns:
            V′.

        Raises:
            VocabularyMismatchError: If nothing was seen and nothing is kept, or an
                extra id lies outside ``[0, |V|)``.

        Source:
            §4 "Before fine-tuning": V′ = {i | i occurs in D}. The special ids are our
            addition: collators and models insert them after the data was scanned.
        """
        extra = sealed(
            extra_token_ids if isinstance(extra_token_ids, np.ndarray) else list(extra_token_ids)
        )
        token_ids = np.union1d(np.flatnonzero(self.counts), self.special_token_ids)
        return PartialVocabulary(np.union1d(token_ids, extra), self.full_vocab_size)

    def save(self, path: StrPath) -> None:
        """Write to a safetensors file.

        Args:
            path: The file to write; its folder must exist.
        """
        tensors = {"counts": self.counts, "special_token_ids": self.special_token_ids}
        save_record(path, KIND, tensors, fingerprint=self.fingerprint)

    @classmethod
    def load(cls, path: StrPath) -> TokenCounts:
        """Read what ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The counts.

        Raises:
            CheckpointError: If the file is missing or damaged, or holds something else.
        """
        return load_value(path, KIND, lambda held: cls(held["counts"], held["special_token_ids"]))
