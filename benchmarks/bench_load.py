"""How much memory does loading five per cent of the rows take, beside the small model's own?"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

import subvocab as sv
from benchmarks import encoder
from benchmarks.harness import Measured, in_child

MUST = 1.1
FEW = 16
WANTED = {"float32": "float32", "bfloat16": "float32"}
"""The dtype in the file, and the one wanted in memory."""


def run() -> list[Measured]:
    """Measure each pair of dtypes in processes of their own.

    Returns:
        Peak private memory and peak resident memory, as shares of the small model's bytes.
    """
    measured = []
    for stored, wanted in WANTED.items():
        with TemporaryDirectory(prefix="subvocab-bench-") as folder:
            in_child("benchmarks.encoder", "write_checkpoint", folder, stored)
            ours = in_child(__name__, "load_partial", folder, wanted)
            whole = in_child(__name__, "load_whole", folder, wanted)
        megabytes = ours["model_bytes"] / 1e6
        conditions = (
            f"{encoder.FULL_VOCAB_SIZE:,} × {encoder.DIM}, {encoder.PARTIAL_VOCAB_SIZE:,} rows; "
            f"small model {megabytes:.0f} MB, loaded in {ours['seconds']:.2f} s"
        )
        for kind, must, aim in (("private", MUST, "1 ×"), ("resident", None, f"{MUST} ×")):
            share = ours[f"{kind}_bytes"] / ours["model_bytes"]
            beside = f"; the whole model: {whole[f'{kind}_bytes'] / 1e6:,.0f} MB"
            question = f"from_pretrained, {stored} → {wanted}: peak {kind} memory"
            measured.append(Measured(question, share, "×", must, aim, conditions + beside))
    return measured


def load_partial(folder: str, dtype: str) -> dict[str, float]:
    """Load the rows of V′ and measure.

    Args:
        folder: The checkpoint.
        dtype: Wanted in memory.

    Returns:
        Bytes and seconds.
    """
    vocabulary = encoder.vocabulary()
    return _measure(
        lambda: sv.from_pretrained(
            AutoModelForSequenceClassification, folder, vocabulary, dtype=getattr(torch, dtype)
        )
    )


def load_whole(folder: str, dtype: str) -> dict[str, float]:
    """Load the whole model and measure.

    Args:
        folder: The checkpoint.
        dtype: Wanted in memory.

    Returns:
        Bytes and seconds.
    """
    auto_class = AutoModelForSequenceClassification
    return _measure(lambda: auto_class.from_pretrained(folder, dtype=getattr(torch, dtype)))


def _warm_up() -> None:
    """Load a tiny model once: the code that loading imports is not what is measured."""
    with TemporaryDirectory(prefix="subvocab-bench-") as folder:
        tiny = encoder.config(FEW, hidden_size=8, num_attention_heads=1, intermediate_size=8)
        BertForSequenceClassification(tiny).save_pretrained(folder)
        vocabulary = sv.PartialVocabulary(np.arange(2), FEW)
        sv.from_pretrained(AutoModelForSequenceClassification, folder, vocabulary)


def _measure(load: object) -> dict[str, float]:
    """Load once, reading every weight, and take the peaks beyond what was held before."""
    _warm_up()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # start the peak anew
    resident = psutil.Process().memory_info().rss
    start = time.perf_counter()
    with sv.PeakMemory() as memory:
        model = load()  # type: ignore[operator]
        seconds = time.perf_counter() - start
        for parameter in model.parameters():
            parameter.sum()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "private_bytes": memory.peak_bytes,
        "resident_bytes": peak * 1024 - resident,
        "model_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "seconds": seconds,
    }
