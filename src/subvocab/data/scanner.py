"""Count the tokens of a dataset, whatever it is kept in (paper §4 "Before fine-tuning").

It reads what the model will consume, and changes nothing: no format, no cache, no state of a
tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from jaxtyping import Int64

from subvocab._progress import progress_bar
from subvocab._typing import StrPath
from subvocab.data import encoding
from subvocab.data.columns import Wanted
from subvocab.data.counting import available_threads
from subvocab.data.model_facts import check_tokenizer, labels_of, rows_of
from subvocab.data.probe import SAMPLE_ROWS, run_collator
from subvocab.data.ray import count_files_on_ray, count_on_ray, is_ray_dataset
from subvocab.data.recipe import Recipe
from subvocab.data.resuming import count_resumably
from subvocab.data.sources import parts_of
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts, VocabularyGrowth


def scan(
    source: Any,
    *,
    tokenizer: Any = None,
    full_vocab_size: int | None = None,
    model: Any = None,
    collator: Callable[[list[Any]], Any] | None = None,
    columns: str | Sequence[str] | None = None,
    label_columns: str | Sequence[str] | None = None,
    text_columns: str | Sequence[str] | None = None,
    max_length: int | None = None,
    file_format: str | None = None,
    header: bool = True,
    threads: int | None = None,
    resume: StrPath | None = None,
    engine: str = "local",
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
            splits. An iterator is used up. A dataset of Ray Data is counted where its blocks
            are.
        tokenizer: A tokenizer of transformers or `tokenizers`. It encodes texts as its
            own call does, special tokens included, and names the special ids. By default
            the collator's.
        full_vocab_size: |V|, the number of rows of E; by default the model's, or else the
            tokenizer's number of tokens: many models have more rows (Qwen, T5, DeBERTaV3).
        model: The model that will be trained, or its configuration.
        collator: What makes batches of rows for it: the ``collate_fn`` of the data loader, the
            ``data_collator`` of the Trainer. It runs over a sample of 256 rows; tokens that
            it brings into every round are kept beside the counts, those that it draws at
            random are told by a warning.
        columns: Columns of token ids. By default ``input_ids`` and ``decoder_input_ids``,
            where they exist.
        label_columns: Columns of token ids in which -100 is passed over. Class labels are
            no tokens: name only the labels of a language model. By default ``labels``, if
            ``model`` is a model with an output head; a configuration does not tell.
        text_columns: The column of text, or two that are encoded as a pair. By default the
            only one, ``text`` or ``sentence``. Columns of a file without a header are
            numbered from ``"1"``.
        max_length: Tokens to truncate each text (or pair, the longer first) to, special
            tokens included. None truncates nothing.
        file_format: ``jsonl``, ``csv``, ``tsv``, ``text`` or ``parquet``; by default as the
            file's name ends.
        header: Whether the first line of a CSV or TSV file names its columns.
        threads: How many count; by default as many as there are cores. A Ray dataset is
            counted by the tasks that Ray starts.
        resume: A file in which an ``IterableDataset`` keeps its counts and its place, every
            half minute: a scan that was interrupted goes on from there, if it is the same scan.
        engine: What counts files: this process (``local``), or the tasks of a Ray cluster,
            a file each (``ray``).
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        The counts. Kept beside them: id 0, the tokenizer's special ids and those of the
        collator. Null rows add nothing. Cost: one pass, and 12 |V| bytes a thread.

    Raises:
        DataError: If |V| is not known, a column is missing or holds no token ids, a file
            cannot be read, or an id lies outside ``[0, |V|)``; names column and row. If the
            collator fails, or its batches have no token ids.
        VocabularyMismatchError: If the tokenizer has more ids than the model has rows.

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
        model=model,
        collator=collator,
        columns=columns,
        label_columns=label_columns,
        text_columns=text_columns,
        max_length=max_length,
        file_format=file_format,
        header=header,
        threads=threads,
        resume=resume,
        engine=engine,
        progress=progress,
    )
    return _scan(source, options, growth=False)[0]


class ScanOptions(TypedDict, total=False):
    """What `scan` takes beside its source; told there."""

    tokenizer: Any
    full_vocab_size: int | None
    model: Any
    collator: Callable[[list[Any]], Any] | None
    columns: str | Sequence[str] | None
    label_columns: str | Sequence[str] | None
    text_columns: str | Sequence[str] | None
    max_length: int | None
    file_format: str | None
    header: bool
    threads: int | None
    resume: StrPath | None
    engine: str
    progress: bool


LARGEST_SIZE = (1 << 31) - 1
"""Of a vocabulary: more rows no embedding matrix has, and no memory counters."""
_NOT_NOTED: Int64[np.ndarray, "none"] = np.empty(0, dtype=np.int64)


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
    model, collator = options.get("model"), options.get("collator")
    tokenizer = options.get("tokenizer")
    tokenizer = getattr(collator, "tokenizer", None) if tokenizer is None else tokenizer
    size = _full_vocab_size(options.get("full_vocab_size"), tokenizer, model)
    columns, labels = _names(options.get("columns")), _names(options.get("label_columns"))
    wanted = Wanted(
        tokens=columns,
        labels=labels or (),
        texts=_names(options.get("text_columns")),
        tokenizes=tokenizer is not None,
        usual_labels=labels_of(model) if labels is None else (),
    )
    probed = None
    if collator is not None:
        names = (*(columns or ()), *wanted.labels, *wanted.usual_labels)
        if is_ray_dataset(source):  # its rows stay where they are, but for a sample
            probed, _ = run_collator(collator, source.take(SAMPLE_ROWS), names=names)
        else:
            probed, source = run_collator(collator, source, names=names)
    special = encoding.special_token_ids(tokenizer, size)
    recipe = Recipe(size, wanted, tokenizer, options.get("max_length"), special, growth)
    scanned = _counted(source, recipe, options)
    if isinstance(scanned, VocabularyGrowth):
        counts, first_seen = scanned.counts, scanned.first_seen
    else:
        counts, first_seen = scanned, _NOT_NOTED
    return (counts if probed is None else probed.added_to(counts)), first_seen


def _counted(source: Any, recipe: Recipe, options: ScanOptions) -> TokenCounts | VocabularyGrowth:
    """Let count who can read the source."""
    threads = options.get("threads") or available_threads()
    if threads < 1:
        raise DataError(f"`threads` is {threads}, expected one or more.")
    shown, kept = options.get("progress", True), options.get("resume")
    if kept is not None:
        return count_resumably(source, recipe, Path(kept), threads=threads, progress=shown)
    if is_ray_dataset(source):
        return count_on_ray(source, recipe, progress=shown)
    named, header = options.get("file_format"), options.get("header", True)
    if (engine := options.get("engine", "local")) == "ray":
        return count_files_on_ray(source, recipe, file_format=named, header=header, progress=shown)
    if engine != "local":
        raise DataError(f"The engine is `{engine}`, expected `local` or `ray`.")
    parts = list(parts_of(source, file_format=named, header=header, in_order=recipe.notes_first))
    totals = [part.total for part in parts]
    total = None if None in totals else sum(filter(None, totals))
    with progress_bar("Scanning", total=total, enabled=shown) as advance:
        return recipe.count(parts, threads=threads, advance=advance)


def _full_vocab_size(full_vocab_size: int | None, tokenizer: Any, model: Any) -> int:
    """Find |V|."""
    known = None if tokenizer is None else encoding.vocabulary_size(tokenizer)
    rows = rows_of(model)
    if full_vocab_size is None and rows is not None and known is not None:
        check_tokenizer(known, rows)
    sizes = [size for size in (full_vocab_size, rows, known) if size is not None]
    if not sizes:
        raise DataError(
            "The size of the vocabulary is not known. Pass `full_vocab_size`, which is the number "
            "of rows of the model's embedding matrix, or the `model`, or the `tokenizer`."
        )
    size = sizes[0]
    if not 1 <= size <= LARGEST_SIZE:
        raise DataError(f"`full_vocab_size` is {size:,}, expected one to {LARGEST_SIZE:,}.")
    return size


def _names(columns: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if columns is None:
        return None
    return (columns,) if isinstance(columns, str) else tuple(dict.fromkeys(columns))
