"""The promise, tried out: a model trained both ways on its own data, and compared bit for bit.

What may differ, and why, is the table of what is exact (see README, "When it is exact"); here
it is looked up for the setting at hand, and every number is compared all the same.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from subvocab.integrations.finetuning import (
    count_tokens,
    load_model,
    local_job,
    make_trainer,
    training_arguments,
)
from subvocab.integrations.job import FineTuning, Task
from subvocab.integrations.optimizers import ROW_MIXING_OPTIMIZERS
from subvocab.model.shrink import partial_tables
from subvocab.storage import read_checkpoint
from subvocab.vocabulary import PartialVocabulary, TokenCounts

ROUNDING = 1e-5
"""How far a number may be off, of its own size, where only the order of sums differs."""
ROWS_AT_ONCE = 1 << 14
EXACT_WIDTH = 8
"""Sums over rows of so many numbers, or a multiple, come out alike with and without zero rows."""
BY_DESIGN = math.inf


@dataclass(frozen=True)
class Verdict:
    """How a group of numbers came out, trained both ways.

    Attributes:
        group: What they are.
        numbers: How many were compared.
        unequal: How many differ in any bit.
        largest_difference: The largest distance between two of them.
        relative_difference: The same, beside the largest number of the group.
        promised: How large that may be: 0 where all bits are promised to be equal,
            infinite where nothing is.
        reason: Why no equality is promised; empty where it is.
    """

    group: str
    numbers: int
    unequal: int
    largest_difference: float
    relative_difference: float
    promised: float
    reason: str

    @property
    def holds(self) -> bool:
        """Whether the promise holds."""
        if self.promised == 0:
            return self.unequal == 0
        return self.promised == BY_DESIGN or self.relative_difference <= self.promised


@dataclass(frozen=True)
class Verification:
    """What came of training both ways.

    Attributes:
        verdicts: One a group.
        full_vocab_size: |V|.
        partial_vocab_size: |V′|.
    """

    verdicts: tuple[Verdict, ...]
    full_vocab_size: int
    partial_vocab_size: int

    @property
    def holds(self) -> bool:
        """Whether every promise for this setting holds."""
        return all(verdict.holds for verdict in self.verdicts)


@dataclass(frozen=True)
class _Trained:
    """One of the two runs: its numbers, its whole model on disk, and its matrices by V′."""

    losses: Tensor
    norms: Tensor
    folder: Path
    tables: dict[str, PartialVocabulary]
    width: int


def compare(job: FineTuning, prepare: Callable[[FineTuning], Task]) -> Verification:
    """Train a model some steps the ordinary way and with the rows of V′, and compare the two.

    Args:
        job: What to do; ``max_steps`` steps of it. Its ``evaluation`` and ``out`` are not
            used.
        prepare: Loads the data of the job's task; see `subvocab.integrations.tasks`.

    Returns:
        The verdicts: on every loss, gradient norm, used and unused row and other weight.

    Raises:
        CheckpointError: If the model is missing or damaged.
        DataError: If the data cannot be loaded.
        UnsupportedModelError: If the model cannot be shrunk.
    """
    job, folder, full_vocab_size = local_job(job)
    task = prepare(job)
    counts = count_tokens(job, task, full_vocab_size)
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is what the verdicts say
        partial, whole = (
            _train(replace(job, full=full), folder, task, counts, Path(scratch))
            for full in (False, True)  # what is refused is refused at once
        )
        promises = _promises(job, partial, predicts=job.task != "classification")
        verdicts = tuple(
            _verdict(group, pairs, *promises[group]) for group, pairs in _pairs(whole, partial)
        )
    sizes = {(v.full_vocab_size, len(v)) for v in partial.tables.values()}
    return Verification(verdicts, *max(sizes))


def _train(
    job: FineTuning, folder: Path, task: Task, counts: TokenCounts, scratch: Path
) -> _Trained:
    """Train one way, and save the whole model."""
    out = scratch / ("whole" if job.full else "partial")
    arguments = training_arguments(job, str(scratch / "logs"))
    model = load_model(job, folder, task, counts)
    trainer = make_trainer(job, arguments, model, task)
    # Random words in place of masked ones must be the same in both runs: those of V′.
    trainer.data_collator = task.collator(counts.partial_vocabulary())
    trainer.train()
    model.save_pretrained(out)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return _Trained(
        torch.tensor([entry["loss"] for entry in log], dtype=torch.float64),
        torch.tensor([entry["grad_norm"] for entry in log], dtype=torch.float64),
        out,
        _tables(model),
        cast("Tensor", model.get_input_embeddings().weight).shape[1],
    )


def _tables(model: PreTrainedModel) -> dict[str, PartialVocabulary]:
    """Name the matrices of which a model holds a part."""
    return {
        f"{name}.weight": module.table.vocabulary for name, module in partial_tables(model).items()
    }


def _promises(
    job: FineTuning, partial: _Trained, *, predicts: bool
) -> dict[str, tuple[float, str]]:
    """Say of each group how far it may be off in this setting, and why."""
    exact = (0.0, "")
    groups = ("first loss", "losses", "gradient norms", "used rows", "other weights", "unused rows")
    promises = dict.fromkeys(groups, exact)
    prunes = any(len(v) < v.full_vocab_size for v in partial.tables.values())
    if prunes and partial.width % EXACT_WIDTH:
        reason = f"Sums over rows of {partial.width} numbers, no multiple of {EXACT_WIDTH}, round"
        promises |= dict.fromkeys(groups[1:5], (ROUNDING, reason))
    if not job.use_cpu and torch.cuda.is_available():
        reason = "An accelerator sums in another order, so the clip coefficient rounds"
        promises |= dict.fromkeys(groups[:5], (ROUNDING, reason))
    if prunes and job.weight_decay:
        reason = "Full training lets weight decay shrink the unused rows"
        promises["unused rows"] = (BY_DESIGN, reason)
    if prunes and any(name.lower() in job.optimizer for name in (*ROW_MIXING_OPTIMIZERS, "8bit")):
        reason = f"`{job.optimizer}` steps a row by what stands in others"
        promises |= dict.fromkeys(groups[1:], (BY_DESIGN, reason))
    if prunes and predicts and job.head != "whole":
        reason = "Full training moves each unused row by its own gradient from the softmax"
        promises |= dict.fromkeys(groups[1:], (BY_DESIGN, reason))
        if job.head == "restricted":
            promises["first loss"] = (BY_DESIGN, "The restricted loss leaves unused tokens out")
        else:
            promises["first loss"] = (ROUNDING, "The loss is exact, summed in another order")
    return promises


Pairs = Iterator[tuple[Tensor, Tensor]]


def _pairs(whole: _Trained, partial: _Trained) -> Iterator[tuple[str, Pairs]]:
    """Give what is compared: group by group, pairs of tensors."""
    yield "first loss", iter([(whole.losses[:1], partial.losses[:1])])
    yield "losses", iter([(whole.losses, partial.losses)])
    yield "gradient norms", iter([(whole.norms, partial.norms)])
    names = set(read_checkpoint(whole.folder).tensors)
    tables = {name: v for name, v in partial.tables.items() if name in names}
    yield "used rows", _rows(whole.folder, partial.folder, tables, used=True)
    yield "other weights", _tensors(whole.folder, partial.folder, names - set(tables))
    yield "unused rows", _rows(whole.folder, partial.folder, tables, used=False)


def _tensors(whole: Path, partial: Path, names: set[str]) -> Pairs:
    """Read tensors of both checkpoints, one at a time."""
    places = [read_checkpoint(folder) for folder in (whole, partial)]
    for name in sorted(names):
        pair = []
        for checkpoint in places:
            with safe_open(checkpoint.find_tensor(name).path, "pt") as file:
                pair.append(file.get_tensor(name))
        yield pair[0], pair[1]


def _rows(
    whole: Path, partial: Path, tables: Mapping[str, PartialVocabulary], *, used: bool
) -> Pairs:
    """Read the rows of V′ of each matrix, or all others, some at a time."""
    for name, vocabulary in tables.items():
        mask = np.zeros(vocabulary.full_vocab_size, dtype=bool)
        mask[vocabulary.token_ids] = True
        rows = torch.from_numpy(np.flatnonzero(mask == used))
        for ours, theirs in _tensors(whole, partial, {name}):
            for part in rows.split(ROWS_AT_ONCE):
                yield ours[part], theirs[part]


def _verdict(group: str, pairs: Pairs, promised: float, reason: str) -> Verdict:
    """Compare the numbers of a group."""
    numbers = unequal = 0
    largest = scale = 0.0
    for one, other in pairs:
        numbers += one.numel()
        if not one.numel():
            continue
        bits = (one.contiguous().view(torch.uint8) != other.contiguous().view(torch.uint8)).view(
            one.numel(), -1
        )
        unequal += int(bits.any(1).sum())
        distance = (one.double() - other.double()).abs()
        largest = max(largest, float(distance.nan_to_num(math.inf, math.inf).max()))
        scale = max(scale, float(one.double().abs().max()))
    if not unequal:  # equal bits, of NaN too
        largest = 0.0
    relative = largest / scale if scale else largest
    return Verdict(group, numbers, unequal, largest, relative, promised, reason)
