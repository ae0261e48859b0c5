"""Count the tokens of a dataset, whatever it is kept in (paper §4 "Before fine-tuning").

It reads what the model will consume, and changes nothing: no format, no cache, no state of a
tokenizer. What a collator adds at training time is not in a dataset, and not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from subvocab._progress import progress_bar
from subvocab.data import encoding
from subvocab.data.arrow import find_row, token_ids
from subvocab.data.columns import Chosen, Wanted, choose_columns
from subvocab.data.counting import Ids, TokenCounter, available_threads
from subvocab.data.parts import UNNAMED, Batch, Part
from subvocab.data.sources import parts_of
from subvocab.data.words import word_counter
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts, VocabularyGrowth

TEXT_ROWS = 512


def scan(
    source: Any,
    *,
    tokenizer: Any = None,
    full_vocab_size: int | None = None,
    columns: str | Sequence[str] | None = None,
    label_columns: str | Sequence[str] = (),
    text_columns: str | Sequence[str] | None = None,
    max_length: int | None = None,
    file_format: str | None = None,
    header: bool = True,
    threads: int | None = None,
    progress: bool = True,
) -> TokenCounts:
    """Count how often each token of V occurs in a dataset.

    The counts give V′ (`TokenCounts.partial_vocabulary`). Scan every split that the
    model will see, and add the counts.

    Args:
        source: Token ids: a ``Dataset``, ``DatasetDict`` or ``IterableDataset``; an Arrow
            table or array; an array or tensor; what a tokenizer returned; any iterable of
            id sequences or of rows with columns. Or texts, with a tokenizer: a dataset
            with a column of text, an iterable of strings, or the path of a file or folder
            (or a list of `pathlib.Path`): JSON lines, CSV, TSV (split on tabs, no quoting),
            plain text (a text a line), Parquet. A mapping of datasets is scanned as its
            splits. An iterator is used up.
        tokenizer: A tokenizer of transformers or `tokenizers`. It encodes texts as its
            own call does, special tokens included, and names the special ids.
        full_vocab_size: |V|, the number of rows of E; by default the tokenizer's number
            of tokens. Give the model's own where it has more rows (Qwen, T5, DeBERTaV3).
        columns: Columns of token ids. By default ``input_ids`` and ``decoder_input_ids``,
            where they exist.
        label_columns: Columns of token ids in which -100 is passed over. Class labels are
            no tokens: name only the labels of a language model.
        text_columns: The column of text, or two that are encoded as a pair. By default the
            only one, ``text`` or ``sentence``. Columns of a file without a header are
            numbered from ``"1"``.
        max_length: Tokens to truncate each text (or pair, the longer first) to, special
            tokens included. None truncates nothing.
        file_format: ``jsonl``, ``csv``, ``tsv``, ``text`` or ``parquet``; by default as the
            file's name ends.
        header: Whether the first line of a CSV or TSV file names its columns.
        threads: How many count; by default as many as there are cores.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        The counts. Kept beside them: id 0 and the tokenizer's special ids. Null rows add
        nothing. Cost: one pass, and 12 |V| bytes a thread.

    Raises:
        DataError: If |V| is not known, a column is missing or holds no token ids, a file
            cannot be read, or an id lies outside ``[0, |V|)``; names column and row.

    Source:
        §4 "Before fine-tuning": V′ = {i | i occurs in D}.

    Example:
        >>> counts = scan([[5, 1, 1], [7]], full_vocab_size=10)
        >>> counts.unique_tokens, counts.total_tokens
        (3, 4)
        >>> counts.partial_vocabulary().token_ids
        array([0, 1, 5, 7])
        >>> batch = {"input_ids": [[5, 1]], "labels": [[-100, 9]]}
        >>> scan(batch, full_vocab_size=10, label_columns="labels").unique_tokens
        3
    """
    options = ScanOptions(
        tokenizer=tokenizer,
        full_vocab_size=full_vocab_size,
        columns=columns,
        label_columns=label_columns,
        text_columns=text_columns,
        max_length=max_length,
        file_format=file_format,
        header=header,
        threads=threads,
        progress=progress,
    )
    return _scan(source, options, growth=False)[0]


class ScanOptions(TypedDict, total=False):
    """What `scan` takes beside its source; told there."""

    tokenizer: Any
    full_vocab_size: int | None
    columns: str | Sequence[str] | None
    label_columns: str | Sequence[str]
    text_columns: str | Sequence[str] | None
    max_length: int | None
    file_format: str | None
    header: bool
    threads: int | None
    progress: bool


def scan_growth(source: Any, **options: Unpack[ScanOptions]) -> VocabularyGrowth:
    """Count the tokens of a dataset, and note when each first came up.

    Args:
        source: As for `scan`.
        **options: As for `scan`.

    Returns:
        The growth, and the same counts as `scan` gives. Rows are read in order; the texts
        of a batch of 512 first word by word, then those that must be encoded whole. Cost:
        20 |V| bytes a thread.

    Source:
        §3 of the paper: unique against total tokens, after Heaps (1978).

    Example:
        >>> growth = scan_growth([[5, 1, 1], [7]], full_vocab_size=10)
        >>> growth.unique_after(np.arange(5)).tolist()
        [0, 1, 2, 2, 3]
    """
    counts, first_seen = _scan(source, options, growth=True)
    return VocabularyGrowth(counts, first_seen)


def _scan(
    source: Any, options: ScanOptions, *, growth: bool
) -> tuple[TokenCounts, Int64[np.ndarray, "full"]]:
    """Count, and note first occurrences if they are wanted; see `scan`."""
    tokenizer = options.get("tokenizer")
    size = _full_vocab_size(options.get("full_vocab_size"), tokenizer)
    columns, texts_named = options.get("columns"), options.get("text_columns")
    wanted = Wanted(
        tokens=None if columns is None else _names(columns),
        labels=_names(options.get("label_columns", ())),
        texts=None if texts_named is None else _names(texts_named),
        tokenizes=tokenizer is not None,
    )
    header = options.get("header", True)
    parts = list(parts_of(source, file_format=options.get("file_format"), header=header))
    chosen = [choose_columns(part, wanted) for part in parts]
    totals = [part.total for part in parts]
    total = None if None in totals else sum(filter(None, totals))
    threads = options.get("threads") or available_threads()
    shown = options.get("progress", True)
    with TokenCounter(size, threads=threads, notes_first=growth) as counter:
        texts = None
        if any(choice.texts for choice in chosen):
            texts = _text_counter(tokenizer, counter, options.get("max_length"))
        with progress_bar("Scanning", total=total, enabled=shown) as advance:
            for part, choice in zip(parts, chosen, strict=True):
                for batch in part.read([*choice.texts, *choice.tokens, *choice.labels]):
                    _count(part, batch, choice, counter, texts)
                    advance(batch.amount)
        if texts is not None:
            texts.finish()
        counts = TokenCounts(counter.total(), encoding.special_token_ids(tokenizer, size))
        return counts, counter.first_seen()


def _full_vocab_size(full_vocab_size: int | None, tokenizer: Any) -> int:
    """Find |V|."""
    if full_vocab_size is None and tokenizer is None:
        raise DataError(
            "The size of the vocabulary is not known. Pass `full_vocab_size`, which is the number "
            "of rows of the model's embedding matrix, or the `tokenizer`."
        )
    size = encoding.vocabulary_size(tokenizer) if full_vocab_size is None else full_vocab_size
    if size < 1:
        raise DataError(f"`full_vocab_size` is {size:,}, expected one or more.")
    return size


def _names(columns: str | Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(dict.fromkeys(columns))


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
    for name in (*chosen.tokens, *chosen.labels):
        column = batch.table.column(name)
        labels = name in chosen.labels
        counter.add(_ids(part, batch, name, column, labels=labels))
    if texts is not None and chosen.texts:
        for start in range(0, len(batch.table), TEXT_ROWS):
            _count_texts(part, batch, start, chosen.texts, texts)


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


def _count_texts(
    part: Part, batch: Batch, start: int, names: Sequence[str], texts: encoding.TextCounter
) -> None:
    """Count the rows of a batch in which no text is null."""
    table = batch.table.slice(start, TEXT_ROWS)
    sides = [table.column(name).to_pylist() for name in names]
    rows: Sequence[int] = range(len(table))
    if any(table.column(name).null_count for name in names):
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
