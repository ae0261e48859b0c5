"""The partial vocabulary V′ and its mapping f (paper §4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer

from subvocab._typing import StrPath
from subvocab.errors import OutOfVocabularyError, VocabularyMismatchError, listed
from subvocab.vocabulary.record import fingerprint, load_value, save_record, sealed

KIND = "partial_vocabulary"
ABSENT = -1


@dataclass(frozen=True, eq=False)
class PartialVocabulary:
    """The token ids a dataset uses, numbered anew from zero. Immutable.

    Attributes:
        token_ids: V′, strictly ascending; position k holds the token whose row is row
            k of E′, so the array *is* f⁻¹. Read-only.
        full_vocab_size: |V|, the number of rows of E.

    Raises:
        VocabularyMismatchError: If there are no ids, or they are not strictly ascending
            and in ``[0, |V|)``.

    Source:
        §4. The paper leaves f free; we take the one that keeps the order of ids, which
        keeps the order of summation, and so every bit, of gradient norms.
    """

    token_ids: Int64[np.ndarray, "partial"]
    full_vocab_size: int

    def __post_init__(self) -> None:
        ids = sealed(self.token_ids)
        if not ids.size:
            raise VocabularyMismatchError(
                "A partial vocabulary of no tokens was asked for, expected at least one. "
                "Was the dataset empty, or the wrong column scanned?"
            )
        falls = np.flatnonzero(np.diff(ids) <= 0)
        if falls.size:
            at = int(falls[0])
            raise VocabularyMismatchError(
                f"Token ids must rise strictly, but {ids[at]:,} is followed by {ids[at + 1]:,} "
                f"at position {at + 1:,}. Pass `np.unique(token_ids)`."
            )
        if ids[0] < 0 or ids[-1] >= self.full_vocab_size:
            at = 0 if ids[0] < 0 else -1
            raise VocabularyMismatchError(
                f"Token id {ids[at]:,} lies outside the vocabulary of {self.full_vocab_size:,}. "
                "Give the `full_vocab_size` of the model, which is the number of rows of its "
                "embedding matrix."
            )
        object.__setattr__(self, "token_ids", ids)

    def __reduce__(self) -> tuple[type[PartialVocabulary], tuple[np.ndarray, int]]:
        # NumPy forgets on pickling that an array is read-only; the constructor remembers.
        return PartialVocabulary, (self.token_ids, self.full_vocab_size)

    def __len__(self) -> int:
        """Return |V′|."""
        return self.token_ids.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartialVocabulary) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"PartialVocabulary({len(self):,} of {self.full_vocab_size:,} tokens, "
            f"fingerprint {self.fingerprint[:12]})"
        )

    @cached_property
    def fingerprint(self) -> str:
        """Name of this value: sha256 of the ids and |V|."""
        return fingerprint(self.token_ids, np.array([self.full_vocab_size]))

    @cached_property
    def lookup(self) -> Int32[np.ndarray, "full"]:
        """The mapping f as a table: the partial id by token id, -1 where there is none."""
        table = np.full(self.full_vocab_size, ABSENT, dtype=np.int32)
        table[self.token_ids] = np.arange(len(self), dtype=np.int32)
        table.flags.writeable = False
        return table

    def contains(self, token_ids: Integer[np.ndarray, "*batch"]) -> Bool[np.ndarray, "*batch"]:
        """Tell which ids are in V′.

        Args:
            token_ids: Any integers; those outside ``[0, |V|)`` are in no vocabulary.

        Returns:
            True where the id is in V′.

        Example:
            >>> PartialVocabulary(np.array([0, 7]), full_vocab_size=50).contains(np.array([7, -1]))
            array([ True, False])
        """
        place = np.searchsorted(self.token_ids, token_ids)
        return np.asarray(self.token_ids[np.minimum(place, len(self) - 1)] == token_ids)

    def to_partial(self, token_ids: Integer[np.ndarray, "*batch"]) -> Int32[np.ndarray, "*batch"]:
        """Renumber token ids for the partial embedding matrix: apply f.

        The result indexes rows of E′ just as the input indexed rows of E, so
        ``partial_matrix[v.to_partial(ids)]`` equals ``matrix[ids]`` exactly.

        Args:
            token_ids: Ids in the full numbering, any shape, each in ``[0, |V|)``.
                Never label ids: ``-100`` is not a token.

        Returns:
            Ids in the partial numbering, each in ``[0, |V′|)``; a new array of the
            input's shape. Cost: one look-up an id.

        Raises:
            OutOfVocabularyError: If any id is not in V′. Nothing is returned for the
                ids that are.

        Source:
            §4 "Before fine-tuning": f: V′ → {i ∈ ℕ | i ≤ |V′|} and
            D′[i, j] = f(D[i, j]). The paper counts from 1, we count from 0.

        Example:
            >>> v = PartialVocabulary(np.array([0, 7, 42]), full_vocab_size=50)
            >>> v.to_partial(np.array([[42, 0], [7, 7]]))
            array([[2, 0],
                   [1, 1]], dtype=int32)
        """
        present = self.contains(token_ids)
        if not present.all():
            missing = np.unique(token_ids[~present]).tolist()
            raise OutOfVocabularyError(
                f"{len(missing):,} token {'id is' if len(missing) == 1 else 'ids are'} not in "
                f"the partial vocabulary of {len(self):,}: {listed(missing)}. "
                "Scan every split the model will train on.",
                token_ids=missing,
            )
        return np.asarray(self.lookup[token_ids])

    def to_full(self, partial_ids: Integer[np.ndarray, "*batch"]) -> Int64[np.ndarray, "*batch"]:
        """Give back the token ids: apply f⁻¹.

        Args:
            partial_ids: Ids in the partial numbering, any shape, each in ``[0, |V′|)``.

        Returns:
            Ids in the full numbering; a new array of the input's shape.

        Raises:
            OutOfVocabularyError: If an id is not in ``[0, |V′|)``.

        Source:
            §4 "After fine-tuning": f⁻¹.

        Example:
            >>> v = PartialVocabulary(np.array([0, 7, 42]), full_vocab_size=50)
            >>> v.to_full(np.array([2, 1]))
            array([42,  7])
        """
        outside = partial_ids[(partial_ids < 0) | (partial_ids >= len(self))]
        if outside.size:
            raise OutOfVocabularyError(
                f"Partial ids {listed(np.unique(outside).tolist())} lie outside the partial "
                f"vocabulary of {len(self):,}. Were they renumbered already?",
                token_ids=np.unique(outside).tolist(),
            )
        return np.asarray(self.token_ids[partial_ids])

    def union(
        self, other: PartialVocabulary | Integer[np.ndarray, "_"] | list[int]
    ) -> PartialVocabulary:
        """Keep the tokens of both.

        Args:
            other: Another partial vocabulary of the same V, or plain token ids.

        Returns:
            A partial vocabulary; this one if the other adds nothing.

        Raises:
            VocabularyMismatchError: If the other is of another V, or an id lies
                outside ``[0, |V|)``.

        Example:
            >>> len(PartialVocabulary(np.array([0, 7]), full_vocab_size=50).union([7, 9]))
            3
        """
        if isinstance(other, PartialVocabulary):
            if other.full_vocab_size != self.full_vocab_size:
                raise VocabularyMismatchError(
                    f"Partial vocabularies of {self.full_vocab_size:,} and of "
                    f"{other.full_vocab_size:,} tokens cannot be united. Take both with the same "
                    "tokenizer and `full_vocab_size`."
                )
            other = other.token_ids
        added = np.union1d(self.token_ids, sealed(other))
        if added.size == len(self):
            return self
        return PartialVocabulary(added, self.full_vocab_size)

    def resized(self, full_vocab_size: int) -> PartialVocabulary:
        """Fit to an embedding matrix of another height.

        Many matrices have more rows than their tokenizer has tokens (Qwen, T5,
        DeBERTaV3), some fewer (Gemma 3): the rows are what counts.

        Args:
            full_vocab_size: The number of rows of E.

        Returns:
            The same token ids out of another |V|.

        Raises:
            VocabularyMismatchError: If an id lies outside the new V.

        Example:
            >>> PartialVocabulary(np.array([0, 7]), full_vocab_size=50).resized(64).full_vocab_size
            64
        """
        return PartialVocabulary(self.token_ids, full_vocab_size)

    def save(self, path: StrPath) -> None:
        """Write to a safetensors file.

        Args:
            path: The file to write; its folder must exist.
        """
        tensors = {
            "token_ids": self.token_ids,
            "full_vocab_size": np.array([self.full_vocab_size], dtype=np.int64),
        }
        save_record(path, KIND, tensors, fingerprint=self.fingerprint)

    @classmethod
    def load(cls, path: StrPath) -> PartialVocabulary:
        """Read what ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The partial vocabulary.

        Raises:
            CheckpointError: If the file is missing or damaged, or holds something else.
        """
        return load_value(
            path, KIND, lambda held: cls(held["token_ids"], int(held["full_vocab_size"][0]))
        )
