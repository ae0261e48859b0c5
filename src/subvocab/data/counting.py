"""Count token ids on several threads, and name the first that is out of range.

It knows buffers of integers only; where they come from is the caller's business.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from jaxtyping import Int64, Integer, UInt32

from subvocab.errors import DataError

IGNORED_LABEL = -100
JOB_TOKENS = 1 << 20
LARGEST_COUNT = (1 << 32) - 1
NOT_YET = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Ids:
    """Token ids that lie side by side.

    Attributes:
        values: The ids.
        place: Names the place of a position in words, such as ``column `input_ids`,
            row 3``; called for an error only.
        labels: True if ``-100`` may occur, which is no token.
    """

    values: Integer[np.ndarray, "length"]
    place: Callable[[int], str]
    labels: bool = False


@dataclass(frozen=True)
class _Piece:
    """A stretch of ids that one thread counts at a stroke, and the tokens before it."""

    ids: Ids
    start: int
    stop: int
    read: int


class _Tally:
    """What one thread has counted: in 32 bits, since the cache holds more of them.

    Args:
        full_vocab_size: |V|.
        notes_first: Whether to note first occurrences, too.
    """

    def __init__(self, full_vocab_size: int, *, notes_first: bool) -> None:
        self.first = np.full(full_vocab_size, NOT_YET) if notes_first else None
        self.recent: UInt32[np.ndarray, "full"] = np.zeros(full_vocab_size, dtype=np.uint32)
        self._total: Int64[np.ndarray, "full"] = np.zeros(full_vocab_size, dtype=np.int64)
        self._room = LARGEST_COUNT

    def make_room(self, tokens: int) -> None:
        """See that so many more tokens can be counted, even if all are one."""
        if tokens > self._room:
            self.total()
        self._room -= tokens

    def total(self) -> Int64[np.ndarray, "full"]:
        """Add what is recent to all before."""
        self._total += self.recent
        self.recent[:] = 0
        self._room = LARGEST_COUNT
        return self._total


def available_threads() -> int:
    """Tell how many threads can run at once.

    Returns:
        The number of cores this process may use.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TokenCounter:
    """Sums counts over buffers; a context manager, since it owns threads.

    Each thread counts into an array of its own. Jobs are looked at in the order they
    came, so the error is always that of the first offending id.

    Args:
        full_vocab_size: |V|.
        threads: How many to count with.
        notes_first: Whether to note how many tokens came before the first of each id.
    """

    def __init__(self, full_vocab_size: int, *, threads: int, notes_first: bool = False) -> None:
        self.full_vocab_size = full_vocab_size
        self.notes_first = notes_first
        self._read = 0
        self._direct_first = np.full(full_vocab_size if notes_first else 0, NOT_YET)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="subvocab-scan")
        self._jobs: deque[Future[None]] = deque()
        self._waiting: list[_Piece] = []
        self._waiting_tokens = 0
        self._direct = np.zeros(full_vocab_size, dtype=np.int64)
        self._tallies: list[_Tally] = []
        self._idle: list[_Tally] = []

    def __enter__(self) -> TokenCounter:  # noqa: PYI034  (`Self` is not checked at run time)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, ids: Ids) -> None:
        """Count some ids, now or a little later.

        Args:
            ids: The ids; the buffer must stay as it is until ``total``.

        Raises:
            DataError: If an id of these, or of earlier ones, lies outside ``[0, |V|)``.
        """
        for piece in self._pieces(ids):
            self._waiting.append(piece)
            self._waiting_tokens += piece.stop - piece.start
            if self._waiting_tokens >= JOB_TOKENS:
                self._jobs.append(self._pool.submit(self._count, self._waiting))
                self._waiting, self._waiting_tokens = [], 0
        while len(self._jobs) > 2 * self._threads:
            self._jobs.popleft().result()

    def add_times(
        self, token_ids: Int64[np.ndarray, "length"], times: Int64[np.ndarray, "length"]
    ) -> None:
        """Count ids that are known to lie inside the vocabulary, each several times.

        Args:
            token_ids: The ids, in ``[0, |V|)``.
            times: How often each occurred.
        """
        np.add.at(self._direct, token_ids, times)

    def note_first(
        self,
        token_ids: Int64[np.ndarray, "length"],
        positions: Int64[np.ndarray, "length"],
        read: int,
    ) -> None:
        """Note where ids stand that `add_times` counts, among the next tokens read.

        Args:
            token_ids: The ids; those noted before need not be among them.
            positions: Where they stand among the next tokens.
            read: How many those are.
        """
        np.minimum.at(self._direct_first, token_ids, self._read + positions)
        self._read += read

    def total(self) -> Int64[np.ndarray, "full"]:
        """Finish the counting.

        Returns:
            Occurrences by token id.

        Raises:
            DataError: If an id lies outside ``[0, |V|)``.
        """
        while self._jobs:
            self._jobs.popleft().result()
        self._count(self._waiting)
        self._waiting, self._waiting_tokens = [], 0
        return np.asarray(
            np.sum([self._direct, *(tally.total() for tally in self._tallies)], axis=0)
        )

    def first_seen(self) -> Int64[np.ndarray, "full"]:
        """Tell where each id was first seen, once the counting is finished.

        Returns:
            By token id, the tokens read before it, -1 if it never came; nothing unless
            ``notes_first``.
        """
        tallies = [tally.first for tally in self._tallies if tally.first is not None]
        first = np.min([self._direct_first, *tallies], axis=0)
        return np.where(first == NOT_YET, -1, first)

    def _pieces(self, ids: Ids) -> Iterator[_Piece]:
        """Cut a long buffer, and keep account of the tokens before each piece."""
        for start in range(0, ids.values.size, JOB_TOKENS):
            stop = min(start + JOB_TOKENS, ids.values.size)
            yield _Piece(ids, start, stop, self._read)
            if self.notes_first:
                ignored = ids.values[start:stop] == IGNORED_LABEL if ids.labels else False
                self._read += stop - start - int(np.count_nonzero(ignored))

    def _count(self, pieces: list[_Piece]) -> None:
        """Count some pieces into a tally that no other thread uses."""
        from subvocab.data.kernel import count_ids, count_new_ids  # noqa: PLC0415

        try:
            tally = self._idle.pop()
        except IndexError:
            tally = _Tally(self.full_vocab_size, notes_first=self.notes_first)
            self._tallies.append(tally)
        tally.make_room(sum(piece.stop - piece.start for piece in pieces))
        for piece in pieces:
            values = piece.ids.values[piece.start : piece.stop]
            if values.dtype == np.uint64:  # the largest would come round to below zero
                values = np.minimum(values, np.uint64(NOT_YET))
            if values.dtype not in (np.int32, np.int64):
                values = values.astype(np.int64)
            skipped = IGNORED_LABEL if piece.ids.labels else 0
            if tally.first is None:
                at = count_ids(values, tally.recent, skipped)
            else:
                at = count_new_ids(values, tally.recent, skipped, tally.first, piece.read)
            if at >= 0:
                raise _outside(piece.ids, piece.start + at, self.full_vocab_size)
        self._idle.append(tally)


def _outside(ids: Ids, position: int, full_vocab_size: int) -> DataError:
    """Tell which id is not of this vocabulary, where it stands, and what to do."""
    token_id = int(ids.values[position])
    remedy = (
        "It marks labels to ignore: name the column in `label_columns`."
        if token_id == IGNORED_LABEL
        else "Give the `full_vocab_size` of the model, which is the number of rows of its "
        "embedding matrix, and the tokenizer that made the ids."
    )
    return DataError(
        f"Token id {token_id:,} at {ids.place(position)} lies outside the vocabulary of "
        f"{full_vocab_size:,}. {remedy}"
    )
