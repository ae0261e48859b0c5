"""Read XNLI: its own files, as XNLI-1.0 and XNLI-MT-1.0 ship them, or the Hub's copy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from paper._cells import CannotRunError
from paper._glue import COPY, Split, hub_split, tab_separated
from subvocab.errors import DataError

HUB_NAME = "facebook/xnli"
LANGUAGES = (
    *("ar", "bg", "de", "el", "en", "es", "fr", "hi"),
    *("ru", "sw", "th", "tr", "ur", "vi", "zh"),
)
SPLITS = ("train", "validation", "test")
FILES = {"validation": "xnli.dev.tsv", "test": "xnli.test.tsv"}
COLUMNS = ("sentence1", "sentence2")
TRAIN_COLUMNS = ("premise", "hypo")
HUB_COLUMNS = ("premise", "hypothesis")
NUM_LABELS = 3

Pairs = list[tuple[str, ...]]


def read_split(data: Path | None, language: str, split: str) -> Split:
    """Read the pairs of one language; their labels are of no use here.

    Args:
        data: The folder with ``XNLI-1.0`` and ``XNLI-MT-1.0``, or with a folder ``xnli``
            that has them; None for the Hub.
        language: One of ``LANGUAGES``.
        split: One of ``SPLITS``.

    Returns:
        Its rows.

    Raises:
        CannotRunError: If the files are not there, or the Hub cannot be reached.
        DataError: If a file is not as XNLI ships it.
    """
    if data is None:
        rows = hub_split(HUB_NAME, language, split)
        return Split(list(zip(*(rows[name] for name in HUB_COLUMNS), strict=True)), None)
    if split == "train":
        folder = _folder(data, "XNLI-MT-1.0") / "multinli"
        path = folder / f"multinli.train.{language}.tsv"
        found = tab_separated(path, TRAIN_COLUMNS)
        pairs = [
            tuple(row[name] for name in TRAIN_COLUMNS)
            for _, row in found
            if all(name in row for name in TRAIN_COLUMNS)
        ]
    else:
        path = _folder(data, "XNLI-1.0") / FILES[split]
        pairs = _by_language(path).get(language, [])
    if not pairs:
        raise DataError(f"{path} has no row in the language `{language}`. {COPY}")
    return Split(pairs, None)


def _folder(data: Path, name: str) -> Path:
    """Find a part of XNLI."""
    folders = [data / "xnli" / name, data / "XNLI" / name, data / name]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise CannotRunError(f"XNLI is not at hand: there is no folder {folders[-1]}")


@cache
def _by_language(path: Path) -> dict[str, Pairs]:
    """Read a file that holds all languages."""
    pairs: dict[str, Pairs] = {}
    for _, row in tab_separated(path, ("language", *COLUMNS)):
        if all(name in row for name in COLUMNS):
            own = pairs.setdefault(row["language"], [])
            own.append(tuple(row[name] for name in COLUMNS))
    return pairs
