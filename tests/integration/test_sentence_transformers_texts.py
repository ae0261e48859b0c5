"""What is scanned for a trainer of sentence-transformers is what its model gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sentence_transformers")

import numpy as np
from datasets import Dataset
from sentence_transformers.cross_encoder import losses as rerank
from sentence_transformers.sentence_transformer import losses as embed

import subvocab as sv
from subvocab.errors import OutOfVocabularyError, UnsupportedModelError
from subvocab.integrations.sentence_transformers import scan_trainer
from subvocab.model.tables import find_lookups
from tests.models import FULL_VOCAB_SIZE
from tests.sentence_runs import (
    ANSWERS,
    LISTS,
    OTHERS,
    PAIRS,
    QUESTIONS,
    SORTED,
    TRIPLETS,
    Build,
    Loss,
    embedder,
    reranker,
    static,
    trainer_of,
)
from tests.trainer_runs import IGNORED_WARNINGS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(*IGNORED_WARNINGS),
]
PAD = 0
QUERY, DOCUMENT = "query: ", "passage - "


def several(**columns: Any) -> dict[str, Dataset]:
    """Make two datasets, with columns of the same names and other texts."""
    turned = {name: values[::-1] for name, values in columns.items()}
    turned["question"] = OTHERS
    return {"one": Dataset.from_dict(columns), "two": Dataset.from_dict(turned)}


FEEDS: dict[str, tuple[Any, Any]] = {
    "no prompts": (PAIRS, None),
    "a prompt for all": (PAIRS, QUERY),
    "a prompt a column": (PAIRS, {"question": QUERY, "answer": DOCUMENT}),
    "several datasets": (several(**PAIRS), None),
    "a prompt a dataset": (several(**PAIRS), {"one": QUERY, "two": DOCUMENT}),
    "a prompt a dataset and column": (
        several(**PAIRS),
        {"one": {"question": QUERY}, "two": {"answer": DOCUMENT}},
    ),
    "a stream": (Dataset.from_dict(PAIRS).to_iterable_dataset(), {"answer": DOCUMENT}),
}


@pytest.mark.parametrize(
    ("feed", "build"),
    # Of streams, `accelerate` cuts batches by rows, which a bag's ids side by side are not.
    [(feed, embedder) for feed in FEEDS] + [(feed, static) for feed in FEEDS if feed != "a stream"],
)
def test_what_is_counted_is_what_the_model_gets(
    feed: str, build: Build, folder: Path, tmp_path: Path
) -> None:
    """Every prompt, every dataset, cut where training cuts: no token less, and none more."""
    data, prompts = FEEDS[feed]
    options = {"max_steps": 8 if feed == "a stream" else -1, "prompts": prompts}
    loss: Loss = embed.MultipleNegativesRankingLoss
    trainer = trainer_of(build(folder), data, loss, tmp_path, num_train_epochs=1, **options)
    counts = scan_trainer(trainer, tokenizer=trainer.processing_class)
    seen = ids_looked_up(trainer.model)

    trainer.train()

    assert seen
    assert set(np.flatnonzero(counts.counts)) == seen - {PAD}
    assert counts.total_tokens > len(seen)


@pytest.mark.parametrize("data", [SORTED, TRIPLETS, LISTS], ids=["pairs", "triplets", "lists"])
def test_a_reranker_may_pair_any_texts_of_a_batch(
    data: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """One that is cut beside a long text is longer beside a short one."""
    loss: Loss = {"labels": rerank.LambdaLoss, "label": rerank.BinaryCrossEntropyLoss}.get(
        [*data][-1], rerank.MultipleNegativesRankingLoss
    )
    trainer = trainer_of(reranker(folder), data, loss, tmp_path, prompts=QUERY)
    vocabulary = scan_trainer(trainer, tokenizer=trainer.processing_class).partial_vocabulary()
    seen = ids_looked_up(trainer.model)

    trainer.train()

    assert seen <= set(vocabulary.token_ids)
    alone = trainer.model.preprocess([("", ANSWERS[0])])["input_ids"]
    assert vocabulary.contains(alone.numpy()).all()


def ids_looked_up(model: Any) -> set[int]:
    """Note every id that is looked up from now on."""
    seen: set[int] = set()
    for module in find_lookups(model):
        module.register_forward_pre_hook(lambda _, given: seen.update(given[0].flatten().tolist()))
    return seen


def test_a_prompt_that_was_not_scanned_is_refused(folder: Path, tmp_path: Path) -> None:
    """The texts alone are not what the model gets."""
    model = embedder(folder)
    texts = sv.scan(QUESTIONS + ANSWERS, tokenizer=model.tokenizer, full_vocab_size=FULL_VOCAB_SIZE)
    loss: Loss = embed.MultipleNegativesRankingLoss
    trainer = trainer_of(model, PAIRS, loss, tmp_path, prompts="naive: ")

    sv.shrink_trainer(trainer, texts.partial_vocabulary())

    with pytest.raises(OutOfVocabularyError, match="not in the partial vocabulary"):
        trainer.train()


def test_a_trainer_without_data_is_refused(folder: Path, tmp_path: Path) -> None:
    """There is nothing to scan."""
    loss: Loss = embed.MultipleNegativesRankingLoss
    trainer = trainer_of(embedder(folder), None, loss, tmp_path)

    with pytest.raises(UnsupportedModelError, match="has no `train_dataset` to scan"):
        sv.shrink_trainer(trainer)
