"""What does it cost to train embedding rows beside LoRA, and what without any adapter?"""

from __future__ import annotations

import statistics
import time
from tempfile import TemporaryDirectory
from typing import Any

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

import subvocab as sv
from benchmarks import encoder
from benchmarks.harness import Measured, in_child

FULL = "full fine-tuning"
SMALL = "subvocab full fine-tuning"
TOKENS = "LoRA + trainable_token_indices"
SAVED = "LoRA + modules_to_save"
SMALL_SAVED = "subvocab + LoRA + modules_to_save"
WAYS = (FULL, SMALL, TOKENS, SAVED, SMALL_SAVED)
TABLE = "word_embeddings"
STEPS, WARM_UP = 8, 2
REPEATS = 3


def run() -> list[Measured]:
    """Measure every way in processes of its own, by turns.

    Returns:
        Peak memory and step time, beside those of full fine-tuning.
    """
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with TemporaryDirectory(prefix="subvocab-bench-") as folder:
        in_child("benchmarks.encoder", "write_checkpoint", folder, "float32")
        for _ in range(REPEATS):
            for way in WAYS:
                taken[way].append(in_child(__name__, "measure", folder, way, STEPS))
    medians = {
        way: [statistics.median(one) for one in zip(*taken[way], strict=True)] for way in WAYS
    }
    rows, dim = encoder.PARTIAL_VOCAB_SIZE, encoder.DIM
    setting = (
        f"AdamW, batch {encoder.BATCH[0]}×{encoder.BATCH[1]}, one layer, {rows:,} of "
        f"{encoder.FULL_VOCAB_SIZE:,} rows of {dim}"
    )
    return [
        Measured(
            f"adapters: {what}, {way}, beside {FULL}",
            medians[way][at] / medians[FULL][at],
            "×",
            None,
            "",
            f"{setting}; {medians[way][at]:,.0f} {unit}, full {medians[FULL][at]:,.0f} {unit}",
        )
        for at, (what, unit) in enumerate((("peak memory", "MB"), ("step time", "ms")))
        for way in WAYS[1:]
    ]


def measure(folder: str, way: str, steps: int) -> tuple[float, float]:
    """Make a model, train it some steps, and take the peak of private memory.

    Args:
        folder: The checkpoint.
        way: One of ``WAYS``.
        steps: How many to time.

    Returns:
        Megabytes beyond what was held before the model was made; milliseconds, the median of
        a step.
    """
    batches = encoder.batches(steps + WARM_UP)
    sv.from_pretrained  # noqa: B018 - import first, measure then
    seconds = []
    with sv.PeakMemory() as memory:
        step = encoder.training_step(_model(folder, way))
        for batch in batches:
            start = time.perf_counter()
            step(batch)
            seconds.append(time.perf_counter() - start)
    return memory.peak_bytes / 1e6, statistics.median(seconds[WARM_UP:]) * 1e3


def _model(folder: str, way: str) -> Any:
    """Load the encoder as one way would have it."""
    auto_class = AutoModelForSequenceClassification
    small = way in (SMALL, SMALL_SAVED)
    model: Any = (
        sv.from_pretrained(auto_class, folder, encoder.vocabulary())
        if small
        else auto_class.from_pretrained(folder)
    )
    if way in (FULL, SMALL):
        return model
    rows: dict[str, Any] = {"modules_to_save": [TABLE]}
    if way == TOKENS:
        rows = {"trainable_token_indices": {TABLE: encoder.vocabulary().token_ids.tolist()}}
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], **rows)
    return get_peft_model(model, config)
