"""Texts with class labels, for training (see `subvocab.data.loading` for what can be read)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from subvocab.data.loading import Contents, choose_texts, load_split, refuse_missing
from subvocab.errors import DataError, listed

LABELLED = Contents("texts and their labels")
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
        source: A file, a folder or a name, as for `subvocab.data.loading.load_split`.
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
    dataset = load_split(source, splits, LABELLED)
    if label_column not in dataset.column_names:
        columns = ", ".join(f"`{name}`" for name in dataset.column_names)
        raise DataError(f"{source} has no label column `{label_column}`. Its columns: {columns}.")
    if len(set(text_columns)) < len(text_columns):
        raise DataError(
            f"The text column `{text_columns[0]}` was named twice. Name one column, or two others "
            "that make a pair."
        )
    texts = choose_texts(dataset.remove_columns(label_column), source, text_columns)
    refuse_missing(dataset, label_column, source)
    names = tuple(label_names or _label_names(dataset, label_column, source))
    labels = _label_numbers(dataset, label_column, names, source)
    rows = dataset.select_columns(list(texts))
    if "labels" in texts:  # the Trainer's name for the classes
        rows = rows.rename_column("labels", "labels_text")
        texts = tuple("labels_text" if name == "labels" else name for name in texts)
    rows = rows.add_column("labels", pa.array(labels, pa.int64()))
    return LabelledTexts(rows, texts, names)


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
