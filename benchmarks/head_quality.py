"""What do the partial heads cost in quality? A real language model, four ways, on real data.

This takes an hour, so it is not part of ``make bench``:

    python -m benchmarks.head_quality --model SMOLLM2 --data DATA --save OUT

Rows are appended to ``results/head_quality.csv`` as soon as they are measured, and what stands
there is not measured again: after an interruption the same command goes on. To begin anew, delete
the file.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import subvocab as sv
from benchmarks.harness import RESULTS, circumstances, in_child
from benchmarks.head_quality_data import (
    DATASETS,
    MAX_LENGTH,
    NO_LABEL,
    Data,
    read,
    utterance_prompt,
)

FILE = RESULTS / "head_quality.csv"
MODULE = "benchmarks.head_quality"
MODES: dict[str, dict[str, Any]] = {
    "full": {},
    "exact + shift": {"head": "exact", "rest_shift": True},
    "exact": {"head": "exact", "rest_shift": False},
    "restricted": {"head": "restricted"},
}
"""Ways to train, with the options of `subvocab.from_pretrained`; "full" is the ordinary model."""
LEARNING_RATES = {"adamw": 5e-5, "sgd": 3e-4, "adafactor": 5e-4}
"""By default; with SGD ten times as much makes ordinary training diverge."""
MOMENTUM = 0.9
BATCH_SIZE = {"tinyshakespeare": 2, "snips": 1}
"""Small, so that two cores do with it."""
MEASURED = (
    "steps",
    "validation_loss",
    "unused_mass",
    "mean_step_seconds",
    "median_step_seconds",
    "peak_memory_mb",
    "full_vocab_size",
    "partial_vocab_size",
)
LOOKS = (30, 100)
"""Steps after which the validation loss is taken; also before the first."""
VALIDATION_BATCH = 8
PROMPTS = {
    "tinyshakespeare": ("KING HENRY:\n", "ROMEO:\n", "My lord,", "First Citizen:\n", "To be"),
    "snips": ("play some jazz by Miles Davis", "will it rain in Paris tomorrow",
              "book a table for four at Noma", "rate this book five stars",
              "add this song to my Chill playlist"),
}  # fmt: skip
NEW_TOKENS = 40


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        dataset: Its name.
        mode: One of `MODES`.
        optimizer: Its name.
        seed: Of the order of batches.
        learning_rate: Its learning rate, which stays the same.
    """

    dataset: str
    mode: str
    optimizer: str
    seed: int
    learning_rate: float


def main() -> None:
    """Train all ways that are asked for, one after the other; then look at what they write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--data", required=True, help="folder with text/ and snips/")
    parser.add_argument("--save", help="where to save and sample the models of seed 0")
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--optimizers", nargs="+", default=["adamw"], choices=list(LEARNING_RATES))
    parser.add_argument("--learning-rate", type=float, help="by default by optimizer")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    wanted = product(asked.optimizers, asked.datasets, asked.seeds, asked.modes)
    for name, dataset, seed, mode in wanted:
        rate = asked.learning_rate or LEARNING_RATES[name]
        run = Run(dataset, mode, name, seed, rate)
        if run in _done():
            continue
        print(f"{run} ...", file=sys.stderr, flush=True)
        rows = []
        if (mode, name, seed) == ("full", "adamw", 0):  # before training all runs are alike
            rows = [in_child(MODULE, "before", asdict(run), asked.model, asked.data)]
        rows += in_child(MODULE, "train", asdict(run), asked.model, asked.data, asked.save)
        _append(run, rows)
    for dataset, mode in product(asked.datasets if asked.save else (), ("full", "exact + shift")):
        folder = _saved(asked.save, dataset, mode)
        if folder.exists():
            print(f"\n== {dataset}, {mode} ==")
            print("\n--\n".join(in_child(MODULE, "sample", str(folder), dataset)))


def before(run: dict[str, Any], model_folder: str, data_folder: str) -> dict[str, Any]:
    """Measure the model as it is.

    Args:
        run: A `Run`.
        model_folder: The checkpoint.
        data_folder: The data.

    Returns:
        A row of results.
    """
    data = read(run["dataset"], model_folder, data_folder)
    return {"steps": 0, **_evaluate(_load(run["mode"], model_folder, data), data), **_sizes(data)}


def train(
    run: dict[str, Any], model_folder: str, data_folder: str, save: str | None
) -> list[dict[str, Any]]:
    """Train, and measure on the way.

    Args:
        run: A `Run`.
        model_folder: The checkpoint.
        data_folder: The data.
        save: Where to save the whole model of seed 0, or None.

    Returns:
        Rows of results.
    """
    data = read(run["dataset"], model_folder, data_folder)
    order = np.random.default_rng(run["seed"]).permutation(len(data.train))
    size = BATCH_SIZE[run["dataset"]]
    picked = order[: size * LOOKS[-1]].reshape(-1, size)
    batches = [data.batch([data.train[i] for i in batch]) for batch in picked]
    seconds: list[float] = []
    rows = []
    with sv.PeakMemory() as memory:
        model = _load(run["mode"], model_folder, data)
        optimizer = _optimizer(run["optimizer"], model, run["learning_rate"])
        _train(model, optimizer, batches[: LOOKS[0]], seconds)
    for number, steps in enumerate(LOOKS):
        if number:
            _train(model, optimizer, batches[LOOKS[number - 1] : steps], seconds)
        found = {
            "steps": steps,
            **_evaluate(model, data),
            "mean_step_seconds": statistics.mean(seconds),
            "median_step_seconds": statistics.median(seconds),
            "peak_memory_mb": memory.peak_bytes / 1e6,
            **_sizes(data),
        }
        print(found, file=sys.stderr, flush=True)
        rows.append(found)
    if save and run["seed"] == 0 and run["optimizer"] == "adamw":
        folder = _saved(save, run["dataset"], run["mode"])
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    return rows


def sample(folder: str, dataset: str) -> list[str]:
    """Let a saved model, loaded as any other, go on from some prompts.

    Args:
        folder: The checkpoint.
        dataset: What it was trained on.

    Returns:
        Prompts with their greedy continuations.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    texts = []
    for prompt in PROMPTS[dataset]:
        text = utterance_prompt(prompt) if dataset == "snips" else prompt
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        texts.append(str(tokenizer.decode(output[0])))
    return texts


def _load(mode: str, folder: str, data: Data) -> Any:
    """Load the model, whole or with the rows of V′."""
    if mode == "full":
        return AutoModelForCausalLM.from_pretrained(folder)
    return sv.from_pretrained(AutoModelForCausalLM, folder, data.vocabulary, **MODES[mode])


def _optimizer(name: str, model: Any, rate: float) -> torch.optim.Optimizer:
    """Make an optimizer with the defaults of torch; fused, which is quicker on a CPU."""
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM)
    return torch.optim.Adafactor(model.parameters(), lr=rate)


def _train(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batches: list[dict[str, torch.Tensor]],
    seconds: list[float],
) -> None:
    """Take a step a batch, and note how long each takes."""
    model.train()
    for batch in batches:
        start = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)


@torch.no_grad()
def _evaluate(model: Any, data: Data) -> dict[str, float]:
    """Take the loss over the whole vocabulary, and the probability of all tokens outside V′."""
    model.eval()
    unused = torch.tensor(data.vocabulary.lookup < 0)
    loss = mass = tokens = 0.0
    for first in range(0, len(data.validation), VALIDATION_BATCH):
        batch = data.batch(data.validation[first : first + VALIDATION_BATCH])
        output = model(**batch)
        predicted = batch["labels"][:, 1:] != NO_LABEL
        count = int(predicted.sum())
        loss += float(output.loss) * count
        mass += float(output.logits[:, :-1][predicted].softmax(-1)[:, unused].sum())
        tokens += count
    return {"validation_loss": loss / tokens, "unused_mass": mass / tokens}


def _sizes(data: Data) -> dict[str, int]:
    """Tell how large the vocabularies are."""
    vocabulary = data.vocabulary
    return {"full_vocab_size": vocabulary.full_vocab_size, "partial_vocab_size": len(vocabulary)}


def _saved(save: str, dataset: str, mode: str) -> Path:
    """Give the folder in which a model is saved."""
    return Path(save) / f"{dataset}-{mode.replace(' + ', '-')}"


def _done() -> set[Run]:
    """Give what is measured already."""
    if not FILE.exists():
        return set()
    with FILE.open(newline="", encoding="utf-8") as file:
        return {
            Run(
                row["dataset"],
                row["mode"],
                row["optimizer"],
                int(row["seed"]),
                float(row["learning_rate"]),
            )
            for row in csv.DictReader(file)
        }


def _append(run: Run, rows: list[dict[str, Any]]) -> None:
    """Keep results, with the settings, the machine and the versions they hold for."""
    lines: list[dict[str, Any]] = [
        {
            **asdict(run),
            "batch": f"{BATCH_SIZE[run.dataset]}×{MAX_LENGTH[run.dataset]}",
            **{name: row.get(name, "") for name in MEASURED},
            **circumstances(),
        }
        for row in rows
    ]
    RESULTS.mkdir(exist_ok=True)
    begins = not FILE.exists()
    with FILE.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
