"""Small runs of the Hugging Face Trainer: with E as with E′."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

import subvocab as sv
from subvocab.model.shrink import partial_embeddings
from tests.models import FULL_VOCAB_SIZE, tiny_language_model, tiny_model
from tests.reference import drawn_vocabulary, ids_of

EOS = 1
VOCABULARY = drawn_vocabulary().union([EOS, 2])
IGNORED_WARNINGS = (
    "ignore:.*pin_memory.*:UserWarning",
    "ignore:.*activation_checkpointing.*:FutureWarning",
)


def rows(token_ids: torch.Tensor, *, count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Make a dataset whose rows end in one and the same token, for the families that pool there."""
    generator = torch.Generator().manual_seed(seed)
    ids = token_ids[torch.randint(len(token_ids), (count, 8), generator=generator)]
    ids[ids == EOS] = token_ids[-1]
    ids[:, -1] = EOS
    return [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": i % 2}
        for i, row in enumerate(ids)
    ]


def predicted(dataset: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let a dataset's labels be its tokens, for language models."""
    return [row | {"labels": row["input_ids"].clone()} for row in dataset]


TRAINING = rows(ids_of(VOCABULARY))
UNSEEN = rows(torch.arange(FULL_VOCAB_SIZE), seed=1)


def arguments_of(folder: Path, **options: Any) -> TrainingArguments:
    """Make the arguments that everyone uses: two passes of six steps, clipping active."""
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "max_grad_norm": 0.05,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
        "save_strategy": "no",
    }
    return TrainingArguments(output_dir=str(folder), **usual | options)


def trainer_of(
    model: Any,
    folder: Path,
    *,
    callback: bool = True,
    watch: dict[str, Any] | None = None,
    kind: type[Trainer] = Trainer,
    dataset: list[dict[str, Any]] = TRAINING,
    **options: Any,
) -> Any:
    """Make a Trainer, with a callback for a shrunk model; ``watch`` is for the callback."""
    predicts = model.get_output_embeddings() is not None
    watched = partial_embeddings(model) and callback
    return kind(
        model=model,
        args=arguments_of(folder, **options),
        train_dataset=predicted(dataset) if predicts else dataset,
        eval_dataset=predicted(UNSEEN) if predicts else UNSEEN,
        callbacks=[sv.VocabularyCallback(model, **watch or {})] if watched else None,
    )


def whole(family: str = "bert") -> Any:
    """Make a classifier, or with a name such as ``gpt2 lm`` a language model."""
    if family.endswith(" lm"):
        return tiny_language_model(family.removesuffix(" lm"), dropout=True)
    return tiny_model(family, pad_token_id=0)


def shrunk(
    family: str = "bert", vocabulary: sv.PartialVocabulary = VOCABULARY, **options: Any
) -> Any:
    """Make the same model and shrink it."""
    model = whole(family)
    sv.shrink(model, vocabulary, **options)
    return model


def overlapping() -> sv.PartialVocabulary:
    """Give a vocabulary that has every other token of the usual one, and some more."""
    new = np.setdiff1d(np.arange(3, 60, 7), VOCABULARY.token_ids)
    kept = np.append(VOCABULARY.token_ids[::2], [0, EOS, 2])
    return sv.PartialVocabulary(np.union1d(kept, new), FULL_VOCAB_SIZE)


def larger() -> sv.PartialVocabulary:
    """Give a vocabulary that has all of the usual one, and more."""
    return VOCABULARY.union(overlapping().token_ids)


def history(trainer: Any) -> list[tuple[float, float]]:
    """Give loss and gradient norm of every step."""
    log = trainer.state.log_history
    return [(entry["loss"], entry["grad_norm"]) for entry in log if "loss" in entry]


def logits_of(trainer: Any, dataset: Any = UNSEEN) -> np.ndarray:
    """Predict."""
    predictions = trainer.predict(dataset).predictions
    logits: np.ndarray = predictions[0] if isinstance(predictions, tuple) else predictions
    return logits
