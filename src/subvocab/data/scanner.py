"""Count the tokens of a dataset, whatever it is kept in (paper §4 "Before fine-tuning").

It reads what the model will consume, and changes nothing: no format, no cache, no state of a
tokenizer. What a collator adds at training time is not in a dataset, and not counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from subvocab._progress import progress_bar
from subvocab._typing import StrPath
from subvocab.data import encoding, hugging_face
from subvocab.data.arrow import find_row, token_ids
from subvocab.data.columns import TOKEN_COLUMNS, Chosen, Wanted, choose_columns
from subvocab.data.counting import Ids, TokenCounter, available_threads
from subvocab.data.files import parts_of_path
from subvocab.data.iterables import part_of_array, part_of_iterable
from subvocab.data.parts import UNNAMED, Batch, Part, part_of_columns, part_of_table
from subvocab.data.words import word_counter
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts

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
    size = _full_vocab_size(full_vocab_size, tokenizer)
    wanted = Wanted(
        tokens=None if columns is None else _names(columns),
        labels=_names(label_columns),
        texts=None if text_columns is None else _names(text_columns),
        tokenizes=tokenizer is not None,
    )
    parts = list(_parts(source, file_format=file_format, header=header))
    chosen = [choose_columns(part, wanted) for part in parts]
    totals = [part.total for part in parts]
    total = None if None in totals else sum(filter(None, totals))
    with TokenCounter(size, threads=threads or available_threads()) as counter:
        texts = None
        if any(choice.texts for choice in chosen):
            texts = _text_counter(tokenizer, counter, max_length)
        with progress_bar("Scanning", total=total, enabled=progress) as advance:
            for part, choice in zip(parts, chosen, strict=True):
                for batch in part.read([*choice.texts, *choice.tokens, *choice.labels]):
                    _count(part, batch, choice, counter, texts)
                    advance(batch.amount)
        if texts is not None:
            texts.finish()
        counts = counter.total()
    return TokenCounts(counts, encoding.special_token_ids(tokenizer, size))


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


def _parts(source: Any, *, file_format: str | None, header: bool) -> Iterator[Part]:
    """Split any source into parts that are read alike."""
    if isinstance(source, str | os.PathLike):
        yield from _parts_of_path(source, file_format=file_format, header=header)
    elif hugging_face.is_dataset(source):
        yield hugging_face.part_of_dataset(source)
    elif hugging_face.is_iterable_dataset(source):
        yield hugging_face.part_of_iterable_dataset(source)
    elif isinstance(source, pa.Table):
        yield part_of_table(source)
    elif isinstance(source, pa.RecordBatch):
        yield part_of_table(pa.Table.from_batches([source]))
    elif isinstance(source, Mapping):
        yield from _parts_of_mapping(source, file_format=file_format, header=header)
    elif isinstance(source, pa.Array | pa.ChunkedArray) or hasattr(source, "__array__"):
        yield part_of_array(source)
    elif isinstance(source, Iterable):
        yield from _parts_of_iterable(source, file_format=file_format, header=header)
    else:
        raise DataError(
            f"A `{type(source).__name__}` cannot be scanned, expected a dataset, a table, an "
            "iterable of token ids, or a path. Pass one of these."
        )


def _parts_of_path(path: StrPath, *, file_format: str | None, header: bool) -> Iterator[Part]:
    """Read a saved dataset, or files."""
    path = Path(path)
    if path.is_dir() and file_format is None and hugging_face.is_saved_dataset(path):
        dataset = hugging_face.load_saved_dataset(path)
        yield from _parts(dataset, file_format=None, header=header)
    else:
        yield from parts_of_path(path, file_format=file_format, header=header)


def _parts_of_mapping(
    source: Mapping[Any, Any], *, file_format: str | None, header: bool
) -> Iterator[Part]:
    """Read columns, or splits: the values of splits have columns of their own."""
    values = list(source.values())
    if TOKEN_COLUMNS[0] in source or not any(map(_has_columns, values)):
        yield part_of_columns(source)
        return
    for split, value in source.items():
        for part in _parts(value, file_format=file_format, header=header):
            name = f"split `{split}`" + (f" ({part.name})" if part.name else "")
            yield Part(part.schema, part.read, name=name, total=part.total)


def _has_columns(value: object) -> bool:
    return (
        hugging_face.is_dataset(value)
        or hugging_face.is_iterable_dataset(value)
        or isinstance(value, pa.Table | pa.RecordBatch | Mapping | str | os.PathLike)
    )


def _parts_of_iterable(
    source: Iterable[Any], *, file_format: str | None, header: bool
) -> Iterator[Part]:
    """Read files if paths were given, else rows."""
    if isinstance(source, Sequence) and source and isinstance(source[0], os.PathLike):
        for path in source:
            yield from _parts_of_path(path, file_format=file_format, header=header)
        return
    if isinstance(source, Sequence) and source and _names_file(source[0]):
        raise DataError(
            f"The first text, {source[0]}, names a file. Pass `pathlib.Path` objects to scan files."
        )
    yield part_of_iterable(source)


def _names_file(text: object) -> bool:
    try:
        return isinstance(text, str) and Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False


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
