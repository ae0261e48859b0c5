"""Does training a shrunk model cost what a natively small one costs?"""

from __future__ import annotations

import statistics
import time
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

import subvocab as sv
from benchmarks import encoder
from benchmarks.harness import Measured, in_child

MUST = 1.02
STEPS, WARM_UP = 30, 5
MEMORY_STEPS = 6


def run() -> list[Measured]:
    """Measure memory in processes of their own, time by turns in one.

    Returns:
        Ratios to the natively small model, and of both to full fine-tuning.
    """
    with TemporaryDirectory(prefix="subvocab-bench-") as folder:
        in_child("benchmarks.encoder", "write_checkpoint", folder, "float32")
        peaks = {
            way: statistics.median(in_child(__name__, "peak_bytes", folder, way) for _ in range(3))
            for way in ("partial", "native", "full")
        }
        times = in_child(__name__, "step_seconds", folder)
    rows, dim = encoder.PARTIAL_VOCAB_SIZE, encoder.DIM
    setting = f"AdamW, batch {encoder.BATCH[0]}×{encoder.BATCH[1]}, {rows:,} rows of {dim}"
    megabytes = {way: f"{peak / 1e6:,.0f} MB" for way, peak in peaks.items()}
    memory = f"{setting}; partial {megabytes['partial']}, native {megabytes['native']}"
    milliseconds = {way: f"{seconds * 1e3:,.0f} ms" for way, seconds in times.items()}
    speed = f"{setting}; partial {milliseconds['partial']}, native {milliseconds['native']}"
    full = (f"full {megabytes['full']}", f"full {milliseconds['full']}")
    ratios = {
        "peak memory": (peaks["partial"] / peaks["native"], memory),
        "step time": (times["partial"] / times["native"], speed),
    }
    against_full = {
        "peak memory": (peaks["partial"] / peaks["full"], full[0]),
        "step time": (times["partial"] / times["full"], full[1]),
    }
    return [
        Measured(f"training: {what} beside a natively small model", ratio, "×", MUST, "1 ×", how)
        for what, (ratio, how) in ratios.items()
    ] + [
        Measured(f"training: {what} beside full fine-tuning", ratio, "×", None, "", how)
        for what, (ratio, how) in against_full.items()
    ]


def peak_bytes(folder: str, way: str) -> int:
    """Train a few steps and take the peak of private memory.

    Args:
        folder: The checkpoint.
        way: ``partial``, ``native`` or ``full``.

    Returns:
        Bytes beyond what was held before the model was made.
    """
    batches = batches_for(way, MEMORY_STEPS)
    sv.from_pretrained  # noqa: B018 - import first, measure then
    with sv.PeakMemory() as memory:
        step = encoder.training_step(model_for(folder, way))
        for batch in batches:
            step(batch)
    return memory.peak_bytes


def step_seconds(folder: str) -> dict[str, float]:
    """Time steps of all ways by turns, so that a slow moment hits them all.

    Args:
        folder: The checkpoint.

    Returns:
        The median of a step, by way.
    """
    ways = ("partial", "native", "full")
    steps = {way: encoder.training_step(model_for(folder, way)) for way in ways}
    batches = {way: batches_for(way, STEPS + WARM_UP) for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(STEPS + WARM_UP):
        for way in ways:
            if way == "full" and number >= 2 * WARM_UP:
                continue
            start = time.perf_counter()
            steps[way](batches[way][number])
            if number >= WARM_UP:
                seconds[way].append(time.perf_counter() - start)
    return {way: statistics.median(taken) for way, taken in seconds.items()}


def batches_for(way: str, count: int) -> list[dict[str, Any]]:
    """Draw batches; for the natively small model they are renumbered beforehand.

    Args:
        way: ``partial``, ``native`` or ``full``.
        count: How many.

    Returns:
        Inputs with class labels.
    """
    drawn = encoder.batches(count)
    if way == "native":
        vocabulary = encoder.vocabulary()
        for batch in drawn:
            partial_ids = vocabulary.to_partial(batch["input_ids"].numpy())
            batch["input_ids"] = torch.tensor(partial_ids, dtype=torch.long)
    return drawn


def model_for(folder: str, way: str) -> Any:
    """Make a model.

    Args:
        folder: The checkpoint.
        way: ``partial``, ``native`` or ``full``.

    Returns:
        The encoder with a head for two classes.
    """
    if way == "partial":
        auto_class = AutoModelForSequenceClassification
        return sv.from_pretrained(auto_class, folder, encoder.vocabulary())
    if way == "native":
        return BertForSequenceClassification(encoder.config(encoder.PARTIAL_VOCAB_SIZE))
    return AutoModelForSequenceClassification.from_pretrained(folder)
