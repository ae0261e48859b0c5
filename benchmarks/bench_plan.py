"""How far is the memory that `subvocab plan` foretells from the memory that training takes?

Batches of the encoder are tiny, so that activations, which are not foretold, hardly count.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    PreTrainedConfig,
    XLMRobertaConfig,
)
from transformers.optimization import Adafactor

import subvocab as sv
from benchmarks import encoder
from benchmarks.harness import Measured, in_child
from subvocab.analysis.savings import ModelShape, Training, estimate_savings
from subvocab.model.shape import model_shape

MUST = 0.05
STEPS = 3
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=1e-4),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=1e-4, momentum=0.9),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=1e-4, weight_decay=0, fused=True),
    "adafactor": lambda weights: Adafactor(
        weights, lr=1e-4, scale_parameter=False, relative_step=False
    ),
}
LAYERS = 4
FEW = 16
ENCODER_BATCH = (2, 8)
LANGUAGE_BATCH = (2, 256)
LANGUAGE_ROWS = 20_000
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
"""Makes glibc give back at once what is freed; what it would keep is not foretold."""


def run() -> list[Measured]:
    """Train in a process of its own for each setting, and compare with the plan.

    Returns:
        The errors, as shares of what was measured.
    """
    os.environ.update(MALLOC)
    measured = []
    for precision, dtype in DTYPES.items():
        with TemporaryDirectory(prefix="subvocab-bench-") as folder:
            in_child(__name__, "write_checkpoint", folder, dtype)
            for optimizer in OPTIMIZERS:
                measured += _classifier(folder, precision, optimizer)
    for tied in (False, True):
        for accumulation in (1, 2):
            measured.append(_language_model(tied=tied, accumulation=accumulation))
        for head in ("exact", "restricted"):
            measured.append(_language_model(tied=tied, head=head))
    return measured


def _classifier(folder: str, precision: str, optimizer: str) -> list[Measured]:
    """Compare for a classifier, whole and shrunk."""
    batch_size, length = ENCODER_BATCH
    training = Training(
        precision=precision, optimizer=optimizer, batch_size=batch_size, length=length
    )
    shape = model_shape(classifier_config())
    rows = len(encoder.vocabulary())
    found = []
    for way in ("full", "partial"):
        savings = estimate_savings(shape, rows, training)
        foretold = getattr(savings, way).total
        peak = in_child(__name__, "classifier_peak", folder, way, precision, optimizer)
        what = f"{precision}, {optimizer}, {'whole' if way == 'full' else f'{rows:,} rows'}"
        found.append(_compared(f"plan: classifier, {what}", foretold, peak, shape))
    return found


def _language_model(*, tied: bool, accumulation: int = 1, head: str = "") -> Measured:
    """Compare for a language model, trained whole or with a partial head."""
    batch_size, length = LANGUAGE_BATCH
    training = Training(
        batch_size=batch_size * accumulation,
        length=length,
        accumulation=accumulation,
        head=head or "exact",
    )
    shape = model_shape(language_config(tied=tied), task="causal-lm")
    savings = estimate_savings(shape, LANGUAGE_ROWS, training)
    foretold = savings.partial.total if head else savings.full.total
    peak = in_child(__name__, "language_peak", tied, accumulation, head)
    way = f"{LANGUAGE_ROWS:,} rows, {head}" if head else "whole"
    what = f"{'tied' if tied else 'untied'} head, {way}, {accumulation} part(s) a step"
    question = f"plan: language model, fp32, adamw, {what}"
    return _compared(question, foretold, peak, shape)


def _compared(question: str, foretold: int, peak: int, shape: ModelShape) -> Measured:
    """Give the error of a plan."""
    conditions = (
        f"{shape.model_parameters:,} parameters; foretold {foretold / 1e6:,.1f} MB, "
        f"measured {peak / 1e6:,.1f} MB"
    )
    error = abs(foretold / peak - 1)
    return Measured(question, error, "of the peak", MUST, "0", conditions)


def classifier_config(**changes: Any) -> PreTrainedConfig:
    """Describe XLM-RoBERTa with few layers.

    Args:
        **changes: To other sizes.

    Returns:
        The configuration.
    """
    sizes = {"vocab_size": encoder.FULL_VOCAB_SIZE, "type_vocab_size": 1}
    positions = {"max_position_embeddings": 514, "num_hidden_layers": LAYERS}
    return XLMRobertaConfig(**{**sizes, **positions, **changes})


def write_checkpoint(folder: str, dtype: str) -> None:
    """Save the classifier with random weights.

    Args:
        folder: Where.
        dtype: Of its weights, such as ``bfloat16``.
    """
    auto_class = AutoModelForSequenceClassification
    model = auto_class.from_config(classifier_config(), dtype=getattr(torch, dtype))
    model.save_pretrained(folder)


def language_config(*, tied: bool, vocab_size: int = 50_257) -> PreTrainedConfig:
    """Describe a small language model with a large vocabulary.

    Its table takes more than 32 MB: smaller blocks glibc may keep after they were freed.

    Args:
        tied: Whether its head is its table.
        vocab_size: Rows of both.

    Returns:
        The configuration.
    """
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )


def classifier_peak(folder: str, way: str, precision: str, optimizer: str) -> int:
    """Train a classifier a few steps and take the peak of private memory.

    Args:
        folder: The checkpoint.
        way: ``full`` or ``partial``.
        precision: ``fp32`` or ``bf16``.
        optimizer: One of `OPTIMIZERS`.

    Returns:
        Bytes beyond what was held before the model was made.
    """
    auto_class = AutoModelForSequenceClassification
    dtype = getattr(torch, DTYPES[precision])
    vocabulary = encoder.vocabulary()
    ids = torch.tensor(vocabulary.token_ids)
    drawn = ids[torch.randint(len(ids), ENCODER_BATCH)]
    batch = {"input_ids": drawn, "labels": torch.zeros(len(drawn), dtype=torch.long)}
    _warm_up(dtype, OPTIMIZERS[optimizer])
    with sv.PeakMemory() as memory:
        if way == "full":
            model = auto_class.from_config(classifier_config(), dtype=dtype)
        else:
            model = sv.from_pretrained(auto_class, folder, vocabulary, dtype=dtype)
        _train(model, OPTIMIZERS[optimizer], batch)
    return memory.peak_bytes


def _warm_up(dtype: torch.dtype, optimizer_of: Callable[[Any], torch.optim.Optimizer]) -> None:
    """Load and train one layer with few tokens: code and kernels are not what is measured."""
    auto_class = AutoModelForSequenceClassification
    few = classifier_config(vocab_size=FEW, num_hidden_layers=1)
    with TemporaryDirectory(prefix="subvocab-bench-") as folder:
        auto_class.from_config(few, dtype=dtype).save_pretrained(folder)
        vocabulary = sv.PartialVocabulary(np.arange(FEW // 2), FEW)
        model = sv.from_pretrained(auto_class, folder, vocabulary, dtype=dtype)
        drawn = torch.randint(FEW // 2, ENCODER_BATCH)
        labels = torch.zeros(len(drawn), dtype=torch.long)
        _train(model, optimizer_of, {"input_ids": drawn, "labels": labels})


def language_peak(tied: bool, accumulation: int, head: str) -> int:
    """Train a language model a few steps and take the peak of private memory.

    Args:
        tied: Whether its head is its table.
        accumulation: Parts of a batch.
        head: ``exact`` or ``restricted``; empty to train it whole.

    Returns:
        Bytes beyond what was held before the model was made.
    """
    drawn = torch.randint(500, LANGUAGE_BATCH)
    batch = {"input_ids": drawn, "labels": drawn}
    _train(_language_model_of(tied, 1000, 500, head), OPTIMIZERS["adamw"], batch)
    size = language_config(tied=tied).vocab_size
    with sv.PeakMemory() as memory:
        model = _language_model_of(tied, size, LANGUAGE_ROWS, head)
        _train(model, OPTIMIZERS["adamw"], batch, parts=accumulation)
    return memory.peak_bytes


def _language_model_of(tied: bool, size: int, rows: int, head: str) -> Any:
    """Make a model whole, or load it with few rows from a checkpoint that is soon gone."""
    model = AutoModelForCausalLM.from_config(language_config(tied=tied, vocab_size=size))
    if head:
        sv.shrink(model, sv.PartialVocabulary(np.arange(rows), size), head=head)  # type: ignore[arg-type]
    return model


def _train(
    model: Any,
    optimizer_of: Callable[[Any], torch.optim.Optimizer],
    batch: dict[str, torch.Tensor],
    *,
    parts: int = 1,
) -> None:
    """Train as the Trainer does: until moments exist, and gradients beside them."""
    model.train()
    optimizer = optimizer_of(model.parameters())
    for _ in range(STEPS):
        for _ in range(parts):
            (model(**batch).loss / parts).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
