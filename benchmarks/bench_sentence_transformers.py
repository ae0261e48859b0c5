"""Does multilingual-e5-small train the same, on a fraction of the memory, where people train it?

Through sentence-transformers on questions and answers in several languages, and through the
Trainer on SNIPS. The folder of the encoder is named by ``SUBVOCAB_E5``, that of SNIPS and of
XLM-RoBERTa's tokenizer by ``SUBVOCAB_DATA``; the pairs come with the package `chatterbot_corpus`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

import subvocab as sv
from benchmarks.harness import Measured, in_child
from benchmarks.texts import conversations, snips

LANGUAGES = ("english", "french", "german", "italian", "portuguese", "russian", "spanish")
PAIRS_A_LANGUAGE = 1_000
STEPS, BATCH, LENGTH = 30, 16, 32
PROMPTS = {"question": "query: ", "answer": "passage: "}
MUST = 0.5
"""Of the memory of full fine-tuning; the table is 82 % of this model's parameters."""


def run() -> list[Measured]:
    """Train both ways, each in a process of its own.

    Returns:
        How many losses and tensors differ, and the ratios of memory and time.
    """
    folder = os.environ.get("SUBVOCAB_E5")
    data = os.environ.get("SUBVOCAB_DATA")
    if not folder or not data:
        sys.exit("Name the folder of multilingual-e5-small in SUBVOCAB_E5, data in SUBVOCAB_DATA.")
    with TemporaryDirectory(prefix="subvocab-bench-") as whole:
        _put_together(Path(folder), Path(data), Path(whole))
        return [
            *_compared("pairs", "sentence-transformers, MultipleNegativesRanking", whole, data),
            *_compared("intents", "Trainer, SNIPS", whole, data),
        ]


def _put_together(encoder: Path, data: Path, folder: Path) -> None:
    """Make a folder of the encoder and its tokenizer."""
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to((encoder / name).resolve())
    file = data / "tokenizers" / "xlm-roberta" / "tokenizer.json"
    special = {"cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    roles = {f"{role}_token": token for role, token in special.items()}
    PreTrainedTokenizerFast(tokenizer_file=str(file), **roles).save_pretrained(folder)


def _compared(task: str, what: str, folder: str, data: str) -> list[Measured]:
    """Run a task with the whole matrix and without, and put the two side by side."""
    full, ours = (in_child(__name__, task, folder, data, way) for way in ("full", "partial"))
    losses = sum(one != other for one, other in zip(full["losses"], ours["losses"], strict=True))
    tensors = sum(full["weights"][name] != ours["weights"].get(name) for name in full["weights"])
    setting = (
        f"{STEPS} steps of AdamW, batch {BATCH}×{LENGTH}, {ours['rows']:,} of {full['rows']:,} rows"
    )
    megabytes = f"partial {ours['peak'] / 1e6:,.0f} MB, full {full['peak'] / 1e6:,.0f} MB"
    seconds = f"partial {ours['step'] * 1e3:,.0f} ms, full {full['step'] * 1e3:,.0f} ms"
    of = f"of {len(full['losses'])}, from {full['losses'][0]:.4f} to {full['losses'][-1]:.4f}"
    saved = f"{setting}; {megabytes}"
    return [
        Measured(f"{what}: losses that differ", losses, "", 0, "", f"{setting}; {of}"),
        Measured(f"{what}: tensors that differ", tensors, "", 0, "", f"of {len(full['weights'])}"),
        Measured(f"{what}: peak memory", ours["peak"] / full["peak"], "×", MUST, "", saved),
        Measured(
            f"{what}: processor time of a step", ours["step"] / full["step"], "×", 1, "", seconds
        ),
    ]


def pairs(folder: str, _data: str, way: str) -> dict[str, Any]:
    """Train a model of embeddings on questions and answers.

    Args:
        folder: The encoder.
        _data: Not needed here.
        way: ``partial`` or ``full``.

    Returns:
        Losses, digests of weights, peak memory in bytes, the processor's seconds a step, and
        rows trained.
    """
    from sentence_transformers import (  # noqa: PLC0415 - only where it is measured
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (  # noqa: PLC0415
        MultipleNegativesRankingLoss,
    )

    rows = _pairs()
    with TemporaryDirectory() as output:
        arguments = SentenceTransformerTrainingArguments(**_arguments(output), prompts=PROMPTS)
        # In the dtype of its file it is only mapped, and takes no memory until it is cast.
        model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": "auto"})
        model.max_seq_length = LENGTH
        loss = MultipleNegativesRankingLoss(model)
        trainer: Any = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=rows, loss=loss
        )
        with sv.PeakMemory() as memory:
            if way == "partial":
                sv.shrink_trainer(trainer)
            model.float()
            step = _trained(trainer)
    return _result(trainer, memory, step)


def intents(folder: str, data: str, way: str) -> dict[str, Any]:
    """Train a classifier of what people ask a device to do.

    Args:
        folder: The encoder.
        data: The folder of real data sets.
        way: ``partial`` or ``full``.

    Returns:
        As `pairs`.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    texts, labels = zip(*snips(Path(data)), strict=True)
    asked = [f"query: {text}" for text in texts]
    encoded = tokenizer(asked, truncation=True, max_length=LENGTH)["input_ids"]
    rows = Dataset.from_dict({"input_ids": encoded, "labels": list(labels)})
    counts = sv.scan(rows, tokenizer=tokenizer, full_vocab_size=_rows(folder), progress=False)
    auto_class = AutoModelForSequenceClassification
    options: dict[str, Any] = {"num_labels": max(labels) + 1, "dtype": torch.float32}
    with TemporaryDirectory() as output:
        arguments = TrainingArguments(**_arguments(output))
        with sv.PeakMemory() as memory:
            set_seed(0)
            model: Any = (
                sv.from_pretrained(auto_class, folder, counts.partial_vocabulary(), **options)
                if way == "partial"
                else auto_class.from_pretrained(folder, **options)
            )
            trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=rows,
                data_collator=DataCollatorWithPadding(tokenizer),
            )
            step = _trained(trainer)
    return _result(trainer, memory, step)


def _rows(folder: str) -> int:
    """Read |V|."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return int(config["vocab_size"])


def _arguments(output: str) -> dict[str, Any]:
    """Give the training arguments of both."""
    return {
        "output_dir": output,
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
    }


def _trained(trainer: Any) -> float:
    """Train; give the processor's seconds a step, since the two ways do not run by turns."""
    start = time.process_time()
    trainer.train()
    return (time.process_time() - start) / STEPS


def _result(trainer: Any, memory: sv.PeakMemory, step: float) -> dict[str, Any]:
    """Put together what `pairs` and `intents` give."""
    weights = {
        name: hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy()).hexdigest()
        for name, tensor in trainer.model.state_dict().items()
    }
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "weights": weights,
        "peak": memory.peak_bytes,
        "step": step,
        "rows": next(len(p) for n, p in trainer.model.named_parameters() if "word" in n),
    }


def _pairs() -> Dataset:
    """Give each line of a conversation with the one that answers it."""
    found: dict[str, list[str]] = {"question": [], "answer": []}
    for language in LANGUAGES:
        lines: list[tuple[str, str]] = []
        for one, _ in conversations(language):
            lines += pairwise(one)
        found["question"] += [question for question, _ in lines[:PAIRS_A_LANGUAGE]]
        found["answer"] += [answer for _, answer in lines[:PAIRS_A_LANGUAGE]]
    return Dataset.from_dict(found)
