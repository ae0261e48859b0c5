"""A tiny model, and GLUE's files laid out as its download ships them, with rows of our own."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

from tests import tiny_tokenizers
from tests.models import tiny_model

SENTENCES = [
    "the cat sat on the mat",
    "the dog didn't sit in the cafe",
    "a line of cups and grams",
    "12 cups in the end",
    "the end of the line",
    "a cat and a dog on one mat",
    "didn't the cat sit",
]
TRAIN_ROWS, DEV_ROWS, TEST_ROWS = 37, 9, 5
HEADERS = {
    "MNLI": "index\tsentence1\tsentence2\tgold_label",
    "STS-B": "index\tgenre\tsentence1\tsentence2\tscore",
    "WNLI": "index\tsentence1\tsentence2\tlabel",
}
MNLI_LABELS = ("entailment", "neutral", "contradiction")


def write_model(folder: Path) -> Path:
    """Save a tiny encoder with its tokenizer; the head of a task will be fresh.

    Args:
        folder: Where to.

    Returns:
        The same.
    """
    tiny_model("bert", "encoder").save_pretrained(folder)
    tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece()).save_pretrained(folder)
    return folder


def write_tasks(data: Path) -> Path:
    """Write CoLA, MNLI, STS-B and WNLI.

    Args:
        data: The folder of data sets.

    Returns:
        The same.
    """
    for task in ("CoLA", *HEADERS):
        folder = data / "glue" / task
        folder.mkdir(parents=True)
        matched = ("_matched", "_mismatched") if task == "MNLI" else ("",)
        _write(folder / "train.tsv", task, TRAIN_ROWS)
        for end in matched:
            _write(folder / f"dev{end}.tsv", task, DEV_ROWS)
            _write(folder / f"test{end}.tsv", task, TEST_ROWS, labelled=False)
    return data


def _write(path: Path, task: str, rows: int, *, labelled: bool = True) -> None:
    """Write one split; the rows of each length are other pairs of sentences."""
    pairs = zip(
        islice(cycle(SENTENCES), rows), islice(cycle(SENTENCES[::-1]), rows, 2 * rows), strict=True
    )
    header = (
        HEADERS.get(task)
        if labelled
        else HEADERS.get(task, "index\tsentence\t").rpartition("\t")[0]
    )
    lines = [] if header is None else [header]
    for number, (first, second) in enumerate(pairs):
        label = _label(task, number)
        if task == "CoLA":
            lines.append(f"own\t{label}\t\t{first}" if labelled else f"{number}\t{first}")
        else:
            genre = "\tnews" if task == "STS-B" else ""
            end = f"\t{label}" if labelled else ""
            lines.append(f"{number}{genre}\t{first}\t{second}{end}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _label(task: str, number: int) -> str:
    if task == "MNLI":
        return MNLI_LABELS[number % 3]
    return f"{number % 6 * 0.9:.3f}" if task == "STS-B" else str(number % 2)
