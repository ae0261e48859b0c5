"""Load texts with class labels for training, by `datasets`: files, folders or the Hub.

Unlike a scan, this keeps what it reads: `datasets` maps it from its own cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from subvocab.data.columns import Wanted, choose_columns
from subvocab.data.files import FORMATS
from subvocab.data.hugging_face import is_saved_dataset, load_saved_dataset, part_of_dataset
from subvocab.errors import DataError, listed

_AS_TEXT = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "jsonl": ("json", {}),
    "csv": ("csv", _AS_TEXT),
    "tsv": ("csv", {**_AS_TEXT, "sep": "\t", "quoting": 3}),  # 3: no quoting, as GLUE's files
    "parquet": ("parquet", {}),
}
"""How `datasets` reads a format: its builder and options."""


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
            configuration too.
        splits: Splits to take, the first that exists, where the source names none.
        label_column: The column of classes: text, whole numbers or a ``ClassLabel``.
        text_columns: The column of text, or two that make a pair. By default the only
            one, ``text`` or ``sentence``.
        label_names: The classes, if another split has settled them.

    Returns:
        The texts; classes are numbered in the order of their names or values.

    Raises:
        DataError: If there is no such source, split or column, a text or label is
            missing, or a class is unknown.
    """
    dataset = _load(source, splits)
    if label_column not in dataset.column_names:
        columns = ", ".join(f"`{name}`" for name in dataset.column_names)
        raise DataError(f"{source} has no label column `{label_column}`. Its columns: {columns}.")
    part = part_of_dataset(dataset.remove_columns(label_column), name=source)
    wanted = Wanted(tokens=None, labels=(), texts=tuple(text_columns) or None, tokenizes=True)
    texts = choose_columns(part, wanted).texts
    for name in (*texts, label_column):
        _refuse_missing(dataset, name, source)
    names = tuple(label_names or _label_names(dataset, label_column, source))
    labels = _label_numbers(dataset, label_column, names, source)
    rows = dataset.select_columns(list(texts)).add_column("labels", pa.array(labels, pa.int64()))
    return LabelledTexts(rows, texts, names)


def _load(source: str, splits: Sequence[str]) -> Any:
    """Load one split of whatever the name stands for."""
    path, config, split = Path(source), None, None
    if not path.exists():
        name, *choice = source.split(":")
        path, split = Path(name), choice[-1] if choice else None
        config = choice[0] if len(choice) > 1 else None
    dataset = _load_file(path) if path.is_file() else _load_folder_or_name(path, config)
    if not isinstance(dataset, Mapping):
        return dataset
    for name in [split] if split else splits:
        if name in dataset:
            return dataset[name]
    wanted = split or " or ".join(splits)
    raise DataError(f"{source} has no split {wanted}. Its splits: {', '.join(dataset)}.")


def _load_file(path: Path) -> Any:
    """Load a file of a format that has labels."""
    found = FORMATS.get(path.suffix.lower(), "")
    if found not in BUILDERS:
        known = ", ".join(end for end, name in FORMATS.items() if name in BUILDERS)
        raise DataError(f"{path} ends in `{path.suffix}`, expected one of {known}.")
    builder, options = BUILDERS[found]
    with _reasons(path):
        return datasets.load_dataset(builder, data_files=str(path), split="train", **options)


def _load_folder_or_name(path: Path, config: str | None) -> Any:
    """Load a folder or a dataset of the Hub."""
    if path.is_dir() and is_saved_dataset(path):
        return load_saved_dataset(path)
    with _reasons(path):
        return datasets.load_dataset(str(path), config)


@contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Turn whatever `datasets` and its parsers raise into one kind of error."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or repr(cause)).splitlines()[0]
        raise DataError(
            f"`{path}` cannot be loaded: {reason.rstrip('.')}. Give a file, a folder, or the name "
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
    values = sorted(dataset.unique(label_column))
    if not all(isinstance(value, str | int) for value in values):
        raise DataError(
            f"Column `{label_column}` of {source} holds `{feature.dtype}`, expected class labels: "
            "text or whole numbers."
        )
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
        values = [dataset.features[label_column].names[value] for value in values]
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted({str(value) for value in values} - numbers.keys())
    if unknown:
        raise DataError(
            f"Column `{label_column}` of {source} holds {listed(unknown)}, which the training data "
            f"lacks; it has {listed(names)}. Train on every class, or take those rows out."
        )
    return [numbers[str(value)] for value in values]
