"""What is counted of the parts of a source, and how: a value that can be sent elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from subvocab.data import encoding
from subvocab.data.arrow import find_row, is_text, token_ids, unwrapped
from subvocab.data.columns import Chosen, Wanted, choose_columns
from subvocab.data.counting import Ids, TokenCounter
from subvocab.data.parts import BATCH_ROWS, UNNAMED, Batch, Part
from subvocab.data.words import word_counter
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts, VocabularyGrowth

TEXT_ROWS = 512


@dataclass(frozen=True)
class Recipe:
    """What a scan counts, whatever the source.

    Attributes:
        full_vocab_size: |V|.
        wanted: The columns.
        tokenizer: As for `subvocab.scan`, or what `encoding.sendable` made of it.
        max_length: Tokens to truncate each text to, or None.
        special_token_ids: Ids to keep beside the counts.
        notes_first: Whether to note where each token was first seen.
    """

    full_vocab_size: int
    wanted: Wanted
    tokenizer: Any
    max_length: int | None
    special_token_ids: Int64[np.ndarray, "special"]
    notes_first: bool

    def of_columns(self, chosen: Chosen) -> Recipe:
        """Fix the columns, so that parts of one source are all counted alike.

        Args:
            chosen: The columns.

        Returns:
            The recipe that chooses them by name.
        """
        wanted = Wanted(
            tokens=None if chosen.texts else chosen.tokens,
            labels=chosen.labels,
            texts=chosen.texts or None,
            tokenizes=self.wanted.tokenizes,
            unforeseen=chosen.unforeseen,
        )
        return replace(self, wanted=wanted)

    def count(
        self, parts: Sequence[Part], *, threads: int, advance: Callable[[float], None]
    ) -> TokenCounts | VocabularyGrowth:
        """Count some parts.

        Args:
            parts: The parts, in the order of reading.
            threads: How many count.
            advance: Told the amount of each batch.

        Returns:
            The counts; the growth if first occurrences are noted. Those of parts that were
            counted apart add up.

        Raises:
            DataError: As for `subvocab.scan`.
        """
        chosen = [choose_columns(part, self.wanted) for part in parts]
        size = self.full_vocab_size
        with TokenCounter(size, threads=threads, notes_first=self.notes_first) as counter:
            texts = None
            if any(choice.texts for choice in chosen):
                texts = _text_counter(self.tokenizer, counter, self.max_length)
            for part, choice in zip(parts, chosen, strict=True):
                for batch in part.read([*choice.names, *choice.unforeseen]):
                    _count(part, batch, choice, counter, texts)
                    advance(batch.amount)
            if texts is not None:
                texts.finish()
            counts = TokenCounts(counter.total(), self.special_token_ids)
            return VocabularyGrowth(counts, counter.first_seen()) if self.notes_first else counts


def _text_counter(
    tokenizer: Any,
    counter: TokenCounter,
    max_length: int | None,
) -> encoding.TextCounter:
    """Choose the quickest way that gives the tokenizer's own ids."""
    backend = encoding.backend_of(tokenizer, max_length)
    if backend is None:
        encode = encoding.caller_encode(tokenizer, max_length)
        return encoding.PlainTextCounter(encode, counter)
    plain = encoding.PlainTextCounter(backend.encode, counter)
    # A copy of its own for each: the two are set differently, and work at the same time.
    another = encoding.backend_of(tokenizer, max_length)
    return (word_counter(another, plain, counter) if another else None) or plain


def _count(
    part: Part,
    batch: Batch,
    chosen: Chosen,
    counter: TokenCounter,
    texts: encoding.TextCounter | None,
) -> None:
    """Count the chosen columns of a batch."""
    _refuse_late(part, batch, chosen.unforeseen)
    for name in (*chosen.tokens, *chosen.labels):
        column = batch.table.column(name)
        labels = name in chosen.labels
        counter.add(_ids(part, batch, name, column, labels=labels))
    if texts is not None and chosen.texts:
        _check_text(part, batch, chosen.texts)
        for start in range(0, len(batch.table), TEXT_ROWS):
            _count_texts(part, batch, start, chosen.texts, texts)


def _refuse_late(part: Part, batch: Batch, unforeseen: Sequence[str]) -> None:
    """Refuse values that would not be counted, since the first rows had none of their kind."""
    for name in unforeseen:
        if name not in batch.table.schema.names:
            continue
        column = batch.table.column(name)
        if column.null_count < len(column):
            raise DataError(
                f"Later rows{_of(part)} have `{name}`, but the first {BATCH_ROWS:,} have not, so "
                "it would not be counted. Give all rows the same columns, or name those to count."
            )


def _ids(part: Part, batch: Batch, name: str, column: pa.Array, *, labels: bool) -> Ids:
    """Take the ids out of a column; on an error find out where they stand."""
    try:
        values = token_ids(column)
    except DataError as error:
        raise DataError(
            f"Column `{name}`{_of(part)} {error}. Name the columns of token ids in "
            "`columns`, or those of text in `text_columns`."
        ) from error

    def place(position: int) -> str:
        row = batch.row(find_row(column, position))
        return f"{_row((name,), row)}{_of(part)}"

    return Ids(values, place, labels=labels)


def _check_text(part: Part, batch: Batch, names: Sequence[str]) -> None:
    """See that a batch holds text where the first one did."""
    for name in names:
        kind = batch.table.schema.field(name).type
        if not (is_text(kind) or pa.types.is_null(kind)):
            first, last = batch.row(0), batch.row(len(batch.table) - 1)
            raise DataError(
                f"Column `{name}`{_of(part)} holds `{kind}` in rows {first:,} to {last:,}, "
                "expected text in every row. Write those anew."
            )


def _count_texts(
    part: Part, batch: Batch, start: int, names: Sequence[str], texts: encoding.TextCounter
) -> None:
    """Count the rows of a batch in which no text is null."""
    table = batch.table.slice(start, TEXT_ROWS)
    try:
        columns = [unwrapped(table.column(name)) for name in names]
        sides = [column.to_pylist() for column in columns]
    except UnicodeDecodeError as error:
        first, last = batch.row(start), batch.row(start + len(table) - 1)
        raise DataError(
            f"A text in {_row(names, first)} to {last:,}{_of(part)} is not UTF-8 ({error.reason} "
            f"at byte {error.start:,} of it). Write the texts anew, in UTF-8."
        ) from error
    rows: Sequence[int] = range(len(table))
    if any(column.null_count for column in columns):
        rows = [row for row in rows if all(side[row] is not None for side in sides)]
        sides = [[side[row] for row in rows] for side in sides]

    def place(text: int) -> str:
        return f"{_row(names, batch.row(start + rows[text]))}{_of(part)}"

    if rows:
        texts.add(sides[0], sides[1] if len(sides) > 1 else None, place)


def _row(names: Sequence[str], row: int) -> str:
    """Name a row, and the columns unless the source has none."""
    if UNNAMED in names:
        return f"row {row:,}"
    return f"column {' and '.join(f'`{name}`' for name in names)}, row {row:,}"


def _of(part: Part) -> str:
    return f" of {part.name}" if part.name else ""
