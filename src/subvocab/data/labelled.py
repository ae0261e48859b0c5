"""Load texts with class labels for training, by `datasets`: files, folders or the Hub.

Unlike a scan, this keeps what it reads: `datasets` maps it from its own cache. CSV and TSV
files are read as a scan reads them, every value as text, and held in memory.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from subvocab.data.columns import Wanted, choose_columns
from subvocab.data.files import FORMATS, parts_of_path
from subvocab.data.hugging_face import is_saved_dataset, load_saved_dataset, part_of_dataset
from subvocab.errors import DataError, listed

TABLES = ("csv", "tsv")
BUILDERS = {"jsonl": "json", "parquet": "parquet"}
"""The builder of `datasets` that reads a format."""
LABELLED = (*BUILDERS, *TABLES)
FEWEST_CLASSES = 2


@dataclass(frozen=True)
class LabelledTexts:
    """Texts of one split, each with the number of its class.

    Attributes:
        rows: A ``datasets.Dataset`` with the text columns and ``labels``.
        text_columns: One column, or two that make a pair.
        label_names: The classes, by number.
    """

    rows: Any
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]


def load_labelled_texts(
    source: str,
    *,
    splits: Sequence[str],
    label_column: str,
    text_columns: Sequence[str] = (),
    label_names: Sequence[str] | None = None,
) -> LabelledTexts:
    """Load texts and their classes.

    Args:
        source: A file (JSON lines, CSV, TSV, Parquet), a folder of such files or one that
            ``save_to_disk`` wrote, or the name of a dataset on the Hub. ``NAME:SPLIT``
            chooses a split of a folder or Hub dataset, ``NAME:CONFIG:SPLIT`` a
            configuration too. Files in a folder are splits by their names.
        splits: Splits to take, the first that exists, where the source names none.
        label_column: The column of classes: text, whole numbers or a ``ClassLabel``.
        text_columns: The column of text, or two that make a pair. By default ``text``,
            ``sentence`` or the only one.
        label_names: The classes, if another split has settled them.

    Returns:
        The texts; classes are numbered in the order of their values (whole numbers as
        numbers, also where a file holds them as text), those of a ``ClassLabel`` as it does.

    Raises:
        DataError: If there is no such source, split or column, a text or label is
            missing, a class is unknown, or there are fewer than two.
    """
    dataset = _load(source, splits)
    if label_column not in dataset.column_names:
        columns = ", ".join(f"`{name}`" for name in dataset.column_names)
        raise DataError(f"{source} has no label column `{label_column}`. Its columns: {columns}.")
    if not len(dataset):
        raise DataError(f"{source} has no rows, expected texts and their labels.")
    if len(set(text_columns)) < len(text_columns):
        raise DataError(
            f"The text column `{text_columns[0]}` was named twice. Name one column, or two others "
            "that make a pair."
        )
    part = part_of_dataset(dataset.remove_columns(label_column), name=f"`{source}`")
    wanted = Wanted(tokens=None, labels=(), texts=tuple(text_columns) or None, tokenizes=True)
    texts = choose_columns(part, wanted).texts
    for name in (*texts, label_column):
        _refuse_missing(dataset, name, source)
    names = tuple(label_names or _label_names(dataset, label_column, source))
    labels = _label_numbers(dataset, label_column, names, source)
    rows = dataset.select_columns(list(texts))
    if "labels" in texts:  # the Trainer's name for the classes
        rows = rows.rename_column("labels", "labels_text")
        texts = tuple("labels_text" if name == "labels" else name for name in texts)
    rows = rows.add_column("labels", pa.array(labels, pa.int64()))
    return LabelledTexts(rows, texts, names)


def _load(source: str, splits: Sequence[str]) -> Any:
    """Load one split of whatever the name stands for."""
    name, *choice = [source] if Path(source).exists() else source.split(":")
    wanted = choice[-1:] or splits
    path = Path(name)
    if path.is_file():
        return _load_file(path)
    if path.is_dir():
        dataset = _load_folder(path, wanted)
    elif path.suffix in FORMATS or name.startswith((".", "/")):
        raise DataError(f"There is no file or folder {name}.")
    else:
        dataset = _load_name(name, choice[0] if len(choice) > 1 else None)
    if not isinstance(dataset, Mapping):
        return dataset
    for split in wanted:
        if split in dataset:
            chosen = dataset[split]
            return _load_file(chosen) if isinstance(chosen, Path) else chosen
    raise DataError(
        f"{source} has no split {' or '.join(wanted)}. Its splits: {', '.join(dataset)}."
    )


def _load_file(path: Path) -> Any:
    """Load a file of a format that has labels."""
    found = FORMATS.get(path.suffix.lower(), "")
    if path.stat().st_size == 0:
        raise DataError(f"{path} has no rows, expected texts and their labels.")
    if found in TABLES:
        return _load_table(path)
    if found not in BUILDERS:
        known = ", ".join(end for end, name in FORMATS.items() if name in LABELLED)
        raise DataError(f"{path} ends in `{path.suffix}`, expected one of {known}.")
    with _reasons(path):
        # Whole, and with no pattern in it: `datasets` would expand a name with brackets.
        return datasets.load_dataset(
            BUILDERS[found], data_files=glob.escape(str(path)), split="train"
        )


def _load_table(path: Path) -> Any:
    """Read a CSV or TSV file as a scan does: every value is text, and nothing is null."""
    part = next(parts_of_path(path, file_format=None, header=True))
    names = part.schema.names
    schema = pa.schema([(name, pa.string()) for name in names])
    batches = [batch.table for batch in part.read(names)]
    return datasets.Dataset(pa.Table.from_batches(batches, schema))


def _load_folder(path: Path, splits: Sequence[str]) -> Any:
    """Load what lies in a folder; of files that are splits, give the paths."""
    if is_saved_dataset(path):
        return load_saved_dataset(path)
    found = [
        file for file in sorted(path.iterdir()) if FORMATS.get(file.suffix.lower()) in LABELLED
    ]
    files = {file.stem: file for file in found}
    if files.keys() & splits or any(FORMATS[file.suffix.lower()] in TABLES for file in found):
        return files  # `datasets` would see splits in the names of the folders above, too
    return _load_name(str(path), None)


def _load_name(name: str, config: str | None) -> Any:
    """Load what `datasets` knows under a name."""
    with _reasons(name):
        return datasets.load_dataset(name, config)


@contextmanager
def _reasons(name: object) -> Iterator[None]:
    """Turn whatever `datasets` and its parsers raise into one kind of error."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or repr(cause)).splitlines()[0]
        raise DataError(
            f"`{name}` cannot be loaded: {reason.rstrip('.')}. Give a file, a folder, or the name "
            "of a dataset on the Hub."
        ) from error


def _refuse_missing(dataset: Any, name: str, source: str) -> None:
    """Refuse a column with a null."""
    column = dataset.with_format("arrow")[name]
    values = column[:] if not isinstance(column, pa.ChunkedArray) else column
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise DataError(
            f"Row {row:,} of {source} has nothing in column `{name}`, expected a value in every "
            "row. Take such rows out."
        )


def _label_names(dataset: Any, label_column: str, source: str) -> list[str]:
    """Name the classes: as a ``ClassLabel`` does, else by their values in order."""
    feature = dataset.features[label_column]
    if hasattr(feature, "names"):
        return list(feature.names)
    dtype = getattr(feature, "dtype", type(feature).__name__)
    if not str(dtype).startswith(("string", "large_string", "bool", "int", "uint")):
        raise DataError(
            f"Column `{label_column}` of {source} holds `{dtype}`, expected class labels: text or "
            "whole numbers."
        )
    values = dataset.unique(label_column)
    if len(values) < FEWEST_CLASSES:
        raise DataError(
            f"Column `{label_column}` of {source} names one class only, `{values[0]}`, expected "
            "two or more. Train on data with texts of every class."
        )
    try:
        values = sorted(values, key=int)  # so that "10" comes after "9"
    except ValueError:
        values = sorted(values)
    return [str(value) for value in values]


def _label_numbers(
    dataset: Any,
    label_column: str,
    names: tuple[str, ...],
    source: str,
) -> list[int]:
    """Number the classes of all rows."""
    values = dataset[label_column][:]
    if hasattr(dataset.features[label_column], "names"):
        known = dataset.features[label_column].names
        # -1 stands for a label that was kept secret; it must not count from the end.
        values = [known[value] if value >= 0 else str(value) for value in values]
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted({str(value) for value in values} - numbers.keys())
    if unknown:
        raise DataError(
            f"Column `{label_column}` of {source} holds {listed(unknown)}, which is no class of "
            f"the training data: {listed(names)}. Train on every class, or take those rows out."
        )
    return [numbers[str(value)] for value in values]
