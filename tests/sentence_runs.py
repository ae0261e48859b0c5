"""Small runs of sentence-transformers: models, data and trainers of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sentence_transformers")

import sentence_transformers as st
import torch
from datasets import Dataset
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from torch import nn
from transformers import set_seed

from tests import tiny_tokenizers
from tests.models import DIM, FULL_VOCAB_SIZE

LENGTH = 12
QUESTIONS = ["the cat", "a dog sat", "what is the end", "12 cups", "in one line", "on the mat"]
ANSWERS = ["the cat sat on the mat " * 3, "the dog didn't", "it", "345 grams", "the line", "a mat"]
OTHERS = ["a naive cafe", "the end of it", "cups of the cat", "Sao Paulo", "a dog", "in the cafe"]


def embedder(folder: Path) -> Any:
    """Load a model of embeddings."""
    transformer = Transformer(str(folder), max_seq_length=LENGTH)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    return st.SentenceTransformer(modules=[transformer, pooling], device="cpu")


def static(_: Path) -> Any:
    """Make a model that looks up and takes the mean."""
    set_seed(0)
    tokenizer = tiny_tokenizers.wordpiece()
    weights = torch.randn(FULL_VOCAB_SIZE, DIM)
    bag = StaticEmbedding(tokenizer, embedding_weights=weights)
    return st.SentenceTransformer(modules=[bag], device="cpu")


def reranker(folder: Path) -> Any:
    """Load a model that compares two texts."""
    set_seed(0)
    return st.CrossEncoder(str(folder), num_labels=1, max_length=LENGTH, device="cpu")


PAIRS = {"question": QUESTIONS, "answer": ANSWERS}
TRIPLETS = {**PAIRS, "negative": OTHERS}
SORTED = {**PAIRS, "label": [1, 0, 0, 1, 1, 0]}
LISTS = {
    "query": QUESTIONS,
    "docs": [list(both) for both in zip(ANSWERS, OTHERS, strict=True)],
    "labels": [[1, 0]] * 6,
}

Build = Callable[[Path], Any]
Loss = Callable[[Any], nn.Module]


def trainer_of(model: Any, data: Any, loss: Loss, output: Path, **options: Any) -> Any:
    """Make the trainer that a model's kind asks for."""
    name = type(model).__name__
    arguments = getattr(st, f"{name}TrainingArguments")(
        output_dir=str(output),
        per_device_train_batch_size=3,
        learning_rate=1e-3,
        max_grad_norm=0.05,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        **{"save_strategy": "no", "num_train_epochs": 3} | options,
    )
    if isinstance(data, dict) and not any(isinstance(part, Dataset) for part in data.values()):
        data = Dataset.from_dict(data)
    set_seed(1)  # some losses have weights of their own
    return getattr(st, f"{name}Trainer")(
        model=model, args=arguments, train_dataset=data, loss=loss(model)
    )
