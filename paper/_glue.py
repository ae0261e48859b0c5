"""Read GLUE: the benchmark's own files, as its download ships them, or the Hub's copy.

Tab-separated, UTF-8, no quoting. Rows of the files that lack a text or a label are left out, as
the Hub's copy leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from paper._cells import CannotRunError
from paper._hub import from_hub
from subvocab.errors import DataError

HUB_NAME = "nyu-mll/glue"
FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
ENTAILMENT = ("entailment", "not_entailment")
COPY = "Copy the file as its publisher ships it."
PARAPHRASES = "msr_paraphrase_{}.txt"


@dataclass(frozen=True)
class Task:
    """One of the nine tasks.

    Attributes:
        name: As the paper and the folder name it.
        hub: Its name on the Hub.
        columns: Of text, in the files: one, or two that make a pair.
        hub_columns: The same on the Hub, where they are named otherwise.
        label_column: Of the class or the score, in the files.
        labels: Names of the classes, in order; none for a score.
        files: The file of each split.
        unnamed: Columns of the files that begin with a row of data.
    """

    name: str
    hub: str
    columns: tuple[str, ...]
    hub_columns: tuple[str, ...] = ()
    label_column: str = "label"
    labels: tuple[str, ...] = ("0", "1")
    files: Mapping[str, str] = field(default_factory=lambda: FILES)
    unnamed: tuple[str, ...] = ()

    @property
    def num_labels(self) -> int:
        """Classes, or 1 for a score."""
        return len(self.labels) or 1

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits."""
        return tuple(self.files)

    def has_labels(self, split: str) -> bool:
        """Whether the benchmark gave the labels away."""
        return not split.startswith("test")


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Attributes:
        texts: One or two texts a row.
        labels: The class's number or the score of each row; None where they are kept secret.
    """

    texts: Sequence[tuple[str, ...]]
    labels: Sequence[float] | None

    def __len__(self) -> int:
        return len(self.texts)


_MNLI = {
    "train": "train.tsv",
    "validation_matched": "dev_matched.tsv",
    "validation_mismatched": "dev_mismatched.tsv",
    "test_matched": "test_matched.tsv",
    "test_mismatched": "test_mismatched.tsv",
}
_ONE = ("sentence",)
_TWO = ("sentence1", "sentence2")

TASKS = {
    task.name: task
    for task in (
        Task("CoLA", "cola", _ONE, unnamed=("source", "label", "author", "sentence")),
        Task(
            "MNLI",
            "mnli",
            columns=_TWO,
            hub_columns=("premise", "hypothesis"),
            label_column="gold_label",
            labels=("entailment", "neutral", "contradiction"),
            files=_MNLI,
        ),
        Task(
            "MRPC",
            "mrpc",
            columns=("#1 String", "#2 String"),
            hub_columns=_TWO,
            label_column="Quality",
        ),
        Task("QNLI", "qnli", ("question", "sentence"), labels=ENTAILMENT),
        Task("QQP", "qqp", ("question1", "question2"), label_column="is_duplicate"),
        Task("RTE", "rte", _TWO, labels=ENTAILMENT),
        Task("SST-2", "sst2", _ONE),
        Task("STS-B", "stsb", _TWO, label_column="score", labels=()),
        Task("WNLI", "wnli", _TWO),
    )
}


def find_task(name: str) -> Task:
    """Find a task by its name in the paper or on the Hub, in capitals or not.

    Args:
        name: Such as ``SST-2`` or ``sst2``.

    Returns:
        The task.

    Raises:
        DataError: If GLUE has none of that name.
    """
    for task in TASKS.values():
        if name.lower() in (task.name.lower(), task.hub):
            return task
    raise DataError(f"GLUE has no task `{name}`, expected one of {', '.join(TASKS)}.")


def read_split(data: Path | None, name: str, split: str) -> Split:
    """Read one split of a task.

    Args:
        data: The folder with the tasks' folders or with ``glue/``; None for the Hub.
        name: The task, as in ``TASKS``.
        split: One of the task's ``splits``.

    Returns:
        Its rows.

    Raises:
        CannotRunError: If the task is not there, or the Hub cannot be reached.
        DataError: If a file is not as GLUE ships it; names file and line.
    """
    task = TASKS[name]
    if data is None:
        return _from_hub(task, split)
    folder = _folder(data, task)
    if name == "MRPC" and (folder / PARAPHRASES.format("train")).is_file():
        return _original_paraphrases(task, folder, split)
    path = folder / task.files[split]
    unnamed = task.unnamed if task.has_labels(split) else ()  # CoLA's test file has a header
    return _collect(task, split, path, tab_separated(path, _needed(task, split), unnamed))


def _folder(data: Path, task: Task) -> Path:
    """Find a task's folder."""
    folders = [data / "glue" / task.name, data / task.name]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise CannotRunError(f"{task.name} is not at hand: there is no folder {folders[0]}")


def _original_paraphrases(task: Task, folder: Path, split: str) -> Split:
    """Read MRPC as its publisher ships it: GLUE's validation rows are listed in a third file."""
    path = folder / PARAPHRASES.format("test" if split == "test" else "train")
    rows = tab_separated(path, ("#1 ID", "#2 ID", *task.columns))
    if split != "test":
        listed = {tuple(line.split("\t")) for _, line in lines(folder / "dev_ids.tsv")}
        wanted = split == "validation"
        rows = (
            (number, row)
            for number, row in rows
            if ((row.get("#1 ID"), row.get("#2 ID")) in listed) == wanted
        )
    return _collect(task, split, path, rows)


def _collect(
    task: Task, split: str, path: Path, rows: Iterator[tuple[int, dict[str, str]]]
) -> Split:
    """Take texts and labels out of rows."""
    needed = _needed(task, split)
    texts: list[tuple[str, ...]] = []
    labels: list[float] = []
    for number, row in rows:
        if any(name not in row for name in needed):
            continue
        texts.append(tuple(row[name] for name in task.columns))
        if task.has_labels(split):
            labels.append(_label(task, row[task.label_column], path, number))
    if not texts:
        raise DataError(
            f"{path} has no row with {' and '.join(f'`{name}`' for name in needed)}. {COPY}"
        )
    return Split(texts, labels if task.has_labels(split) else None)


def _needed(task: Task, split: str) -> tuple[str, ...]:
    """Name the columns that a split must have."""
    return (*task.columns, task.label_column) if task.has_labels(split) else task.columns


def _label(task: Task, text: str, path: Path, number: int) -> float:
    """Read a class's number or a score."""
    try:
        return task.labels.index(text) if task.labels else float(text)
    except ValueError:
        expected = f"one of {', '.join(task.labels)}" if task.labels else "a number"
        raise DataError(
            f"Line {number:,} of {path} has the label `{text}`, expected {expected}. {COPY}"
        ) from None


def tab_separated(
    path: Path, needed: Sequence[str], unnamed: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read tab-separated values without quoting.

    Args:
        path: The file.
        needed: Columns that it must have.
        unnamed: Names of the columns where the file has no header, else nothing.

    Yields:
        The number of the line, and its values by column; a short line has fewer.

    Raises:
        DataError: If the file is empty, or lacks a column; lists those that it has.
    """
    names: Sequence[str] = ()
    for number, line in lines(path):
        values = line.split("\t")
        if not names:
            names = unnamed or values
            _check_columns(path, names[: len(values)], needed, named=not unnamed)
            if not unnamed:
                continue
        if line:
            yield number, dict(zip(names, values, strict=False))
    if not names:
        raise DataError(f"{path} is empty. {COPY}")


def _check_columns(path: Path, names: Sequence[str], needed: Sequence[str], *, named: bool) -> None:
    """See that the first line is as it should be."""
    absent = [name for name in needed if name not in names]
    if absent and named:
        found = ", ".join(f"`{name}`" for name in names)
        raise DataError(
            f"{path} has no column {' or '.join(f'`{name}`' for name in absent)}. Its columns: "
            f"{found}. {COPY}"
        )
    if absent:
        raise DataError(
            f"The first line of {path} has {len(names)} values, expected a row of data without a "
            f"header, with {' and '.join(f'`{name}`' for name in absent)} behind them. {COPY}"
        )


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a file of text, with or without a byte order mark.

    Args:
        path: The file.

    Yields:
        Their numbers from 1, and the lines without their ends.

    Raises:
        CannotRunError: If there is no such file.
        DataError: If it is not UTF-8; names the first line that is not.
    """
    if not path.is_file():
        raise CannotRunError(f"there is no file {path}")
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.removesuffix("\n")
    except UnicodeDecodeError:
        raise DataError(
            f"Line {_first_undecodable(path):,} of {path} is not UTF-8. {COPY}"
        ) from None


def _first_undecodable(path: Path) -> int:
    """Find the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0  # not reached: the decoder refused one


def _from_hub(task: Task, split: str) -> Split:
    """Read the Hub's copy."""
    rows = hub_split(HUB_NAME, task.hub, split)
    texts = list(zip(*(rows[name] for name in task.hub_columns or task.columns), strict=True))
    labels = [float(label) for label in rows["label"]] if task.has_labels(split) else None
    return Split(texts, labels)


def hub_split(repository: str, name: str, split: str) -> Mapping[str, Sequence[Any]]:
    """Load one split of a data set on the Hub.

    Args:
        repository: Its name.
        name: The part of it.
        split: The split.

    Returns:
        Columns.

    Raises:
        CannotRunError: If it cannot be had.
    """
    found, reason = _hub_or_reason(repository, name)
    if found is None:
        raise CannotRunError(reason)
    columns: Mapping[str, Sequence[Any]] = found[split]
    return columns


@cache
def _hub_or_reason(repository: str, name: str) -> tuple[Any, str]:
    """Look once only: to learn that the Hub has none takes its time."""
    from datasets import load_dataset  # noqa: PLC0415  of no use where files are read

    try:
        return from_hub(lambda: load_dataset(repository, name), f"the data set {repository}"), ""
    except CannotRunError as error:
        return None, str(error)
