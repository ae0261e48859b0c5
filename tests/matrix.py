"""The exactness matrix: every family and head that builds here, every optimizer, every precision.

``python -m tests.matrix`` trains each pair of models and writes ``benchmarks/results/matrix.csv``.
A cell holds a sign for float32, bfloat16 and autocast, or one where all three agree:

=   every loss, gradient norm, weight and row equal, bit for bit
d   the same but for unused rows, which full training moves
~   not bit for bit, but the first loss is that of full training, to rounding
x   not even that
!   refused
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch import Tensor

import subvocab as sv
from benchmarks.harness import RESULTS, save_rows
from subvocab.model.shrink import partial_tables
from tests.models import (
    COMBINATIONS,
    HEADS_WITHOUT_VOCABULARY,
    LANGUAGE_MODELS,
    language_batch,
    random_batch,
    tiny_language_model,
    tiny_model,
)
from tests.reference import OPTIMIZERS, Run, copied, drawn_vocabulary, ids_of, train, unused_ids

TABLE = RESULTS / "matrix.csv"
STEPS = 2
PRECISIONS = ("fp32", "bf16", "autocast")
ROUNDING = {"fp32": 1e-5, "bf16": 2e-2, "autocast": 2e-2}
Optimizer = Callable[[Any], torch.optim.Optimizer]

ALL_OPTIMIZERS: dict[str, Optimizer] = OPTIMIZERS | {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0, amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3),
    "adadelta": torch.optim.Adadelta,
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "adamw-decay": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    "adam-l2": lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
}


def combinations() -> list[tuple[str, str]]:
    """Name every family and head: those without vocabulary, then language models."""
    return COMBINATIONS + [(name, head) for name, (head, _) in LANGUAGE_MODELS.items()]


def cell(family: str, head: str, optimizer: str) -> str:
    """Measure one family, head and optimizer at every precision."""
    signs = [sign(family, head, ALL_OPTIMIZERS[optimizer], precision) for precision in PRECISIONS]
    return signs[0] if len(set(signs)) == 1 else " ".join(signs)


def sign(family: str, head: str, optimizer: Optimizer, precision: str) -> str:
    """Train a model and its shrunk twin, and compare all there is to compare."""
    predicts = head not in HEADS_WITHOUT_VOCABULARY
    full, small = (_model(family, head, precision, predicts=predicts) for _ in range(2))
    vocabulary = drawn_vocabulary()
    try:
        sv.shrink(small, vocabulary)
    except sv.SubvocabError:
        return "!"
    token_ids = ids_of(vocabulary)
    batches = [
        language_batch(family, token_ids, seed=step)
        if predicts
        else random_batch(full, token_ids, head, seed=step)
        for step in range(STEPS)
    ]
    before = copied(full.state_dict())
    names = {f"{name}.weight" for name in partial_tables(small)}
    unused = unused_ids(sv.vocabulary_of(small))
    runs = [
        train(one, batches, optimizer, autocast=precision == "autocast") for one in (full, small)
    ]
    ours, theirs = copied(small.state_dict()), copied(full.state_dict())
    if runs[0] == runs[1]:
        if _equal(ours, theirs):
            return "="
        for name in names & theirs.keys():
            theirs[name][unused] = before[name][unused]
        if _equal(ours, theirs):
            return "d"
    return "~" if _first_losses_agree(runs, ROUNDING[precision]) else "x"


def _model(family: str, head: str, precision: str, *, predicts: bool) -> Any:
    model = tiny_language_model(family, dropout=True) if predicts else tiny_model(family, head)
    return model.to(torch.bfloat16) if precision == "bf16" else model


def _equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in theirs)


def _first_losses_agree(runs: list[Run], tolerance: float) -> bool:
    first, second = (run.losses[0] for run in runs)
    return abs(first - second) <= tolerance * abs(first)


def row(combination: tuple[str, str]) -> dict[str, str]:
    """Measure one family and head with every optimizer."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    family, head = combination
    cells = {name: cell(family, head, name) for name in ALL_OPTIMIZERS}
    return {"family": family, "head": head, **cells}


def main() -> None:
    """Measure every cell, and write the table."""
    with ProcessPoolExecutor(2) as pool:
        rows = []
        for one in pool.map(row, combinations()):
            rows.append(one)
            sys.stderr.write(" ".join(one.values()) + "\n")
    save_rows("matrix", rows)


if __name__ == "__main__":
    main()
