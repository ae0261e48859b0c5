"""Which tokens a data set uses, counted as the paper counted them, and what that saves.

Truncated to 128 tokens, special tokens around each text or pair, filled up with the pad token;
training, validation and test rows together (`--splits paper`) or training rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa

from paper import _glue, _models, _xnli
from paper._cells import CannotRunError, Measure, Printed
from subvocab.analysis.savings import estimate_savings
from subvocab.data import scan, scan_growth
from subvocab.vocabulary import TokenCounts, VocabularyGrowth

MAX_LENGTH = 128
COLUMNS = ("first", "second")
TRAIN = "train"
MEAN = "mean"
ALL_LANGUAGES = "all languages"
EMBEDDING_REDUCTION = "embedding_reduction_percent"
MODEL_REDUCTION = "model_reduction_percent"


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        data: The folder of data sets, or None for the Hub.
        train_only: Whether training rows alone are counted.
    """

    data: Path | None
    train_only: bool = False

    def chosen(self, splits: Iterable[str]) -> list[str]:
        """Choose splits.

        Args:
            splits: All that there are.

        Returns:
            Those that are counted.
        """
        return [split for split in splits if split == TRAIN or not self.train_only]


def _table(data: Path | None, task: str, split: str) -> pa.Table:
    """Put texts of a task of GLUE, or of a language of XNLI, into a column or two."""
    reader = _xnli.read_split if task in _xnli.LANGUAGES else _glue.read_split
    sides = list(zip(*reader(data, task, split).texts, strict=True))
    return pa.table({name: pa.array(side, pa.string()) for name, side in zip(COLUMNS, sides)})  # noqa: B905  one text or two


@cache
def _count(hub: str, size: int, data: Path | None, task: str, split: str) -> TokenCounts:
    """Scan one split with one tokenizer, once for all models that share it."""
    tokenizer = _models.tokenizer(hub, data)
    table = _table(data, task, split)
    return scan(
        table,
        tokenizer=tokenizer,
        full_vocab_size=size,
        text_columns=table.column_names,
        max_length=MAX_LENGTH,
    )


def _splits(task: str) -> tuple[str, ...]:
    return _xnli.SPLITS if task in _xnli.LANGUAGES else _glue.TASKS[task].splits


def token_counts(request: Request, model: str, task: str) -> TokenCounts:
    """Count the tokens of a data set, padding included.

    Args:
        request: Where it is, and which rows of it.
        model: The model whose tokenizer reads it.
        task: A task of GLUE, or a language of XNLI.

    Returns:
        The counts over the rows of the model's matrix. The pad token is among the tokens
        seen, with a count of one if it was in no text: how often it fills up is not counted.

    Raises:
        CannotRunError: If data or tokenizer are not at hand.
        DataError: If a file is not as its publisher ships it.
    """
    hub = _models.MODELS[model].tokenizer
    size = _models.full_vocab_size(model)
    splits = request.chosen(_splits(task))
    total = _sum(_count(hub, size, request.data, task, split) for split in splits)
    counts = total.counts.copy()
    pad = _models.pad_token_id(model)
    counts[pad] = max(1, counts[pad])
    return TokenCounts(counts, total.special_token_ids)


def _sum(parts: Iterable[TokenCounts]) -> TokenCounts:
    first, *others = parts
    for other in others:
        first += other
    return first


def token_growth(request: Request, model: str, task: str) -> VocabularyGrowth:
    """Measure how the vocabulary grows over the rows of all splits; padding is not counted.

    Args:
        request: Where the data are, and which rows of them.
        model: The model whose tokenizer reads them.
        task: A task of GLUE.

    Returns:
        The growth, over the rows of the model's matrix.

    Raises:
        CannotRunError: If data or tokenizer are not at hand.
        DataError: If a file is not as its publisher ships it.
    """
    tokenizer = _models.tokenizer(_models.MODELS[model].tokenizer, request.data)
    tables = [_table(request.data, task, split) for split in request.chosen(_splits(task))]
    return scan_growth(
        pa.concat_tables(tables),
        tokenizer=tokenizer,
        full_vocab_size=_models.full_vocab_size(model),
        text_columns=tables[0].column_names,
        max_length=MAX_LENGTH,
    )


def reductions(request: Request) -> Measure:
    """Measure what a data set saves, in per cent of E's or of all parameters.

    Args:
        request: Where the data are, and which rows of them.

    Returns:
        Gives the figure of a cell; that of ``mean`` only if all nine tasks can be run.
    """

    def measure(cell: Printed) -> float:
        if cell.task == MEAN:
            return _mean(measure, cell)
        if cell.task == ALL_LANGUAGES:
            counts = _sum(token_counts(request, cell.model, name) for name in _xnli.LANGUAGES)
            return _percent(cell, counts, _xnli.NUM_LABELS)
        counts = token_counts(request, cell.model, cell.task)
        glue = _glue.TASKS.get(cell.task)
        return _percent(cell, counts, glue.num_labels if glue else _xnli.NUM_LABELS)

    return measure


def _percent(cell: Printed, counts: TokenCounts, num_labels: int) -> float:
    """Tell what the rows of unseen tokens are worth."""
    shape = _models.shape(cell.model, num_labels)
    parameters = estimate_savings(shape, counts.unique_tokens).parameters
    whole = cell.quantity == MODEL_REDUCTION
    return 100 * (parameters.model_reduction if whole else parameters.embedding_reduction)


def _mean(measure: Callable[[Printed], float], cell: Printed) -> float:
    """Average over all tasks, or tell which are missing."""
    figures = []
    missing = []
    for task in _glue.TASKS:
        try:
            figures.append(measure(Printed(cell.model, task, cell.quantity)))
        except CannotRunError as error:
            missing.append((task, str(error)))
    if missing:
        names = ", ".join(name for name, _ in missing)
        reasons = {reason for _, reason in missing}
        why = f" ({reasons.pop()})" if len(reasons) == 1 else ""
        raise CannotRunError(
            f"the mean needs all nine tasks, and {len(missing)} cannot be run: {names}{why}"
        )
    return sum(figures) / len(figures)
