"""Count on the workers of a Ray cluster, and add up on the way to the caller.

A block's or a file's counts are a task without state: when a worker dies, Ray runs the task once
more, and nothing is lost or counted twice. Tallies are added up in their order, so that growth
is known and an error can tell the row. The workers import neither torch nor transformers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from subvocab._extras import import_extra
from subvocab.data import encoding
from subvocab.data.columns import choose_columns
from subvocab.data.files import files_of, parts_of_path
from subvocab.data.parts import Part, part_of_table
from subvocab.data.recipe import Recipe
from subvocab.data.urls import Url, file_at
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts, VocabularyGrowth

FAN_IN = 32
"""Tallies that one task adds up, so that the caller gets few."""
ADDING_CPUS = 0
"""Another number than counting asks for: Ray would do both in one task a block. None, since Ray
would keep back what it is, and leave a whole core idle."""


def is_ray_dataset(source: object) -> bool:
    """Tell a ``ray.data.Dataset``.

    Args:
        source: Anything.

    Returns:
        True for a dataset of Ray Data. Whoever has one has imported Ray.
    """
    module = sys.modules.get("ray.data")
    return module is not None and isinstance(source, getattr(module, "Dataset", ()))


@dataclass(frozen=True)
class _Tally:
    """What some rows hold, or why they cannot be counted.

    Attributes:
        rows: How many were counted; with an error, those of the blocks before it.
        scanned: `TokenCounts`, or `VocabularyGrowth`.
        error: What is wrong with the first block or file that could not be counted.
    """

    rows: int
    scanned: Any
    error: str | None = None

    def __add__(self, later: _Tally) -> _Tally:
        """Add the rows that come after these, unless there is an error."""
        if self.error is not None:
            return self
        return _Tally(self.rows + later.rows, self.scanned + later.scanned, later.error)


def count_on_ray(dataset: Any, recipe: Recipe, *, progress: bool) -> TokenCounts | VocabularyGrowth:
    """Count a dataset of Ray Data, block by block.

    Args:
        dataset: A ``ray.data.Dataset``. Only the columns counted are read, where the source
            can do that.
        recipe: What to count.
        progress: Whether Ray may show its progress bars.

    Returns:
        As `Recipe.count`. Cost to the caller: the counts of `FAN_IN` blocks at a time.

    Raises:
        DataError: As for `subvocab.scan`; tells the row in the order of the dataset.
    """
    with _in_order(dataset.context, progress=progress):
        chosen = choose_columns(Part(_schema(dataset), lambda _: iter(())), recipe.wanted)
        if not (columns := chosen.names):
            return _nothing(recipe).scanned  # type: ignore[no-any-return]
        recipe = replace(recipe.of_columns(chosen), tokenizer=encoding.sendable(recipe.tokenizer))
        counted = dataset.select_columns(columns).map_batches(
            _count_block,
            batch_size=None,
            zero_copy_batch=True,
            batch_format="pyarrow",
            fn_kwargs={"recipe": recipe},
        )
        total = _total(counted, recipe)
    if total.error is not None:
        raise DataError(f"{total.error} The block begins at row {total.rows:,}.")
    return total.scanned  # type: ignore[no-any-return]


def _schema(dataset: Any) -> pa.Schema:
    """Tell the columns; blocks of pandas do not know their types, so a row is read."""
    schema = dataset.schema()
    if schema is None:
        return pa.schema([])
    if not all(isinstance(kind, pa.DataType) for kind in schema.types):
        return dataset.take_batch(1, batch_format="pyarrow").schema
    return pa.schema(list(zip(schema.names, schema.types, strict=True)))


def count_files_on_ray(
    source: Any, recipe: Recipe, *, file_format: str | None, header: bool, progress: bool
) -> TokenCounts | VocabularyGrowth:
    """Count files, one a task.

    Args:
        source: A path or URL, or several; the workers must see the files by these names.
        recipe: What to count.
        file_format: As for `subvocab.scan`.
        header: As for `subvocab.scan`.
        progress: Whether Ray may show its progress bars.

    Returns:
        As `Recipe.count`.

    Raises:
        DataError: As for `subvocab.scan`, or if the source is something else than files.
        MissingExtraError: If Ray is not installed.
    """
    ray_data = import_extra("ray.data", extra="ray", purpose="The engine `ray`")
    paths = [source] if isinstance(source, str | os.PathLike | Url) else source
    if not isinstance(paths, Sequence) or not all(
        isinstance(p, str | os.PathLike | Url) for p in paths
    ):
        raise DataError(
            f"The engine `ray` counts files, not a `{type(source).__name__}`. Pass paths, or a "
            "dataset made by `ray.data` without `engine`."
        )
    files = [
        str(file if isinstance(file, Url) else file.absolute())
        for path in paths
        for file in files_of(file_at(path), file_format=file_format)
    ]
    recipe = replace(recipe, tokenizer=encoding.sendable(recipe.tokenizer))
    dataset = ray_data.from_items(files, override_num_blocks=max(len(files), 1))
    with _in_order(dataset.context, progress=progress):
        counted = dataset.map_batches(
            _count_files,
            batch_size=1,
            batch_format="pyarrow",
            fn_kwargs={"recipe": recipe, "file_format": file_format, "header": header},
        )
        total = _total(counted, recipe)
    if total.error is not None:
        raise DataError(total.error)
    return total.scanned  # type: ignore[no-any-return]


def _total(counted: Any, recipe: Recipe) -> _Tally:
    """Add up tallies, most of them on the workers, until one is an error."""
    added = counted.map_batches(
        _add_up,
        batch_size=FAN_IN,
        batch_format="pyarrow",
        num_cpus=ADDING_CPUS,
        fn_kwargs={"recipe": recipe},
    )
    total = _nothing(recipe)
    for table in added.iter_batches(batch_size=None, batch_format="pyarrow"):
        total += _unpacked(table, recipe)
        if total.error is not None:
            break
    return total


@contextmanager
def _in_order(context: Any, *, progress: bool) -> Iterator[None]:
    """Let Ray keep the order of blocks, and drop none that fails."""
    wanted = [
        (context.execution_options, "preserve_order", True),
        (context, "max_errored_blocks", 0),
    ]
    if not progress:
        wanted.append((context, "enable_progress_bars", False))
    before = [(place, name, getattr(place, name)) for place, name, _ in wanted]
    try:
        for place, name, value in wanted:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _count_block(block: pa.Table, recipe: Recipe) -> pa.Table:
    """Count a block, on a worker."""
    part = part_of_table(_without_shapes(block), name="the block")
    return _tally(lambda: [part], recipe, rows=block.num_rows)


def _count_files(
    files: pa.Table, recipe: Recipe, file_format: str | None, *, header: bool
) -> pa.Table:
    """Count the file that a table names, on a worker."""
    file = file_at(files.column("item")[0].as_py())
    return _tally(
        lambda: list(parts_of_path(file, file_format=file_format, header=header)), recipe, rows=0
    )


def _tally(parts: Callable[[], list[Part]], recipe: Recipe, *, rows: int) -> pa.Table:
    """Count parts. What is wrong is raised by the caller, who knows what came before."""
    # The task has one core: no threads of the tokenizer's own.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        scanned = recipe.count(parts(), threads=1, advance=lambda _amount: None)
    except DataError as error:
        return _packed(replace(_nothing(recipe), error=str(error)))
    return _packed(_Tally(rows, scanned))


def _without_shapes(block: pa.Table) -> pa.Table:
    """Take the values of ragged tensors, which Ray keeps beside their shapes."""
    for at, field in enumerate(block.schema):
        kind = field.type
        if isinstance(kind, pa.ExtensionType) and pa.types.is_struct(kind.storage_type):
            chunks = [pc.struct_field(chunk.storage, "data") for chunk in block.column(at).chunks]
            block = block.set_column(at, field.name, pa.chunked_array(chunks))
    return block


def _add_up(tallies: pa.Table, recipe: Recipe) -> pa.Table:
    """Add up some tallies, on a worker."""
    return _packed(_unpacked(tallies, recipe))


def _nothing(recipe: Recipe) -> _Tally:
    return _Tally(0, recipe.count([], threads=1, advance=lambda _amount: None))


def _packed(tally: _Tally) -> pa.Table:
    """Write a tally as one row; a block uses few tokens of V."""
    growth = tally.scanned if isinstance(tally.scanned, VocabularyGrowth) else None
    counts = tally.scanned.counts if growth is None else growth.counts.counts
    token_ids = np.flatnonzero(counts)
    first_seen = None if growth is None else growth.first_seen[token_ids]
    columns = {
        "rows": pa.array([tally.rows], pa.int64()),
        "error": pa.array([tally.error], pa.string()),
        "token_ids": pa.array([token_ids], pa.list_(pa.int64())),
        "times": pa.array([counts[token_ids]], pa.list_(pa.int64())),
        "first_seen": pa.array([first_seen], pa.list_(pa.int64())),
    }
    return pa.table(columns)


def _unpacked(table: pa.Table, recipe: Recipe) -> _Tally:
    """Read tallies and add them up."""

    def tally(at: int) -> _Tally:
        token_ids, times = (_array(table, name, at) for name in ("token_ids", "times"))
        counts = np.zeros(recipe.full_vocab_size, dtype=np.int64)
        counts[token_ids] = times
        scanned: Any = TokenCounts(counts, recipe.special_token_ids)
        if recipe.notes_first:
            first_seen = np.full(recipe.full_vocab_size, -1, dtype=np.int64)
            first_seen[token_ids] = _array(table, "first_seen", at)
            scanned = VocabularyGrowth(scanned, first_seen)
        rows, error = (table.column(name)[at].as_py() for name in ("rows", "error"))
        return _Tally(rows, scanned, error)

    return reduce(add, map(tally, range(len(table))), _nothing(recipe))


def _array(table: pa.Table, name: str, at: int) -> np.ndarray:
    return np.asarray(table.column(name)[at].values.to_numpy())
