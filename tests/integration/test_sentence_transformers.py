"""sentence-transformers: the one line in a script changes nothing but the memory it takes."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sentence_transformers")

import numpy as np
import sentence_transformers as st
import torch
from sentence_transformers.cross_encoder import losses as rerank
from sentence_transformers.sentence_transformer import losses as embed
from sentence_transformers.sentence_transformer.modules import Router
from sentence_transformers.sparse_encoder import losses as sparse
from torch import nn

import subvocab as sv
from subvocab import PartialVocabulary
from subvocab.errors import CheckpointError, UnsupportedModelError
from subvocab.model.shrink import partial_embeddings
from tests import tiny_tokenizers
from tests.models import DIM, FULL_VOCAB_SIZE, tiny_language_model
from tests.pages import python_blocks, run_block
from tests.reference import assert_equal_states, copied, drawn_vocabulary
from tests.sentence_runs import (
    LISTS,
    PAIRS,
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
UNSEEN = ["日本語 and 中文", "a b c d e", "the dog didn't sit on Paulo's 345 mats"]


def routed(folder: Path) -> Any:
    """Make a model that embeds questions by a bag, and answers by an encoder."""
    routes = Router.for_query_document([static(folder)[0]], list(embedder(folder)))
    return st.SentenceTransformer(modules=[routes], device="cpu")


SCORED = {**PAIRS, "score": [1.0, 0.2, 0.0, 0.9, 0.4, 0.6]}
ROUTES = {"router_mapping": {"question": "query", "answer": "document"}}
"""Which part of a routed model a column goes to."""

CASES: dict[str, tuple[Build, dict[str, Any], Loss]] = {
    "MNRL": (embedder, PAIRS, embed.MultipleNegativesRankingLoss),
    "cached MNRL": (
        embedder,
        TRIPLETS,
        lambda m: embed.CachedMultipleNegativesRankingLoss(m, mini_batch_size=2),
    ),
    "CoSENT": (embedder, SCORED, embed.CoSENTLoss),
    "triplet": (embedder, TRIPLETS, embed.TripletLoss),
    "contrastive": (embedder, SORTED, embed.OnlineContrastiveLoss),
    "classes": (embedder, SORTED, lambda m: embed.SoftmaxLoss(m, 32, num_labels=2)),
    "Matryoshka": (
        embedder,
        PAIRS,
        lambda m: embed.MatryoshkaLoss(m, embed.MultipleNegativesRankingLoss(m), [32, 8]),
    ),
    "guided": (embedder, PAIRS, lambda m: embed.GISTEmbedLoss(m, guide=copy.deepcopy(m))),
    "static, MNRL": (static, PAIRS, embed.MultipleNegativesRankingLoss),
    "static, CoSENT": (static, SCORED, embed.CoSENTLoss),
    "routes": (routed, PAIRS, embed.MultipleNegativesRankingLoss),
    "pairs": (reranker, SORTED, rerank.BinaryCrossEntropyLoss),
    "pairs in a batch": (
        reranker,
        TRIPLETS,
        lambda m: rerank.MultipleNegativesRankingLoss(m, num_negatives=2),
    ),
    "lists": (reranker, LISTS, rerank.LambdaLoss),
}


def history(trainer: Any) -> list[tuple[float, float]]:
    """Give loss and gradient norm of every step."""
    log = trainer.state.log_history
    return [(entry["loss"], entry["grad_norm"]) for entry in log if "loss" in entry]


def outputs(model: Any) -> Any:
    """Give what a model makes of texts it was not trained on."""
    if isinstance(model, st.CrossEncoder):
        return model.predict([(text, UNSEEN[0]) for text in UNSEEN])
    if isinstance(model[0], Router):
        return np.concatenate([model.encode_query(UNSEEN), model.encode_document(UNSEEN)])
    return model.encode(UNSEEN)


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_equal(name: str, folder: Path, tmp_path: Path) -> None:
    """Losses, gradient norms, weights, and what comes of unseen texts, bit for bit."""
    build, data, loss = CASES[name]
    options: Any = ROUTES if build is routed else {}
    runs: list[Any] = []
    for shrinks in (False, True):
        trainer = trainer_of(build(folder), data, loss, tmp_path, **options)
        if shrinks:
            sv.shrink_trainer(trainer)
            assert len(sv.vocabulary_of(trainer.model)) < FULL_VOCAB_SIZE / 2
        trainer.train()
        runs.append((history(trainer), outputs(trainer.model), copied(trainer.model.state_dict())))

    assert len(runs[0][0]) == 6
    assert runs[1][0] == runs[0][0]
    assert np.array_equal(runs[1][1], runs[0][1])
    assert_equal_states(runs[1][2], runs[0][2])


@pytest.mark.parametrize("build", [embedder, static, reranker, routed])
def test_a_saved_model_is_whole(build: Build, folder: Path, tmp_path: Path) -> None:
    """The plain library loads it, on texts never seen too."""
    model = build(folder)
    sv.shrink(model, drawn_vocabulary())
    with torch.no_grad():
        for embedding in partial_embeddings(model).values():
            embedding.weight.add_(0.1)
    expected = outputs(model)

    model.save_pretrained(str(tmp_path / "saved"))

    loaded = type(model)(str(tmp_path / "saved"), device="cpu")
    assert np.array_equal(outputs(loaded), expected)
    assert np.array_equal(outputs(sv.restore(model)), expected)


def test_a_compact_encoder_is_merged_into_the_folder_of_its_model(
    folder: Path, tmp_path: Path
) -> None:
    """The encoder is what has rows; its model's other files come from the base."""
    embedder(folder).save_pretrained(str(tmp_path / "base"))
    model = st.SentenceTransformer(str(tmp_path / "base"), device="cpu")
    sv.shrink(model, drawn_vocabulary())
    with torch.no_grad():
        next(iter(partial_embeddings(model).values())).weight.add_(0.1)

    sv.save_compact(model[0].auto_model, tmp_path / "small")
    sv.merge(tmp_path / "small", base=tmp_path / "base", out=tmp_path / "final", progress=False)

    loaded = st.SentenceTransformer(str(tmp_path / "final"), device="cpu")
    assert np.array_equal(outputs(loaded), outputs(model))
    with pytest.raises(CheckpointError, match="Save the model whole"):
        sv.save_compact(model, tmp_path / "other")


def test_a_resumed_run_is_equal(folder: Path, tmp_path: Path) -> None:
    """The library makes a whole model of a checkpoint, and loads its weights into the small one."""
    loss: Loss = embed.MultipleNegativesRankingLoss
    weights = []
    for resumes in (None, str(tmp_path / "checkpoint-4")):
        options = {"save_strategy": "steps", "save_steps": 2}
        trainer = trainer_of(embedder(folder), PAIRS, loss, tmp_path, **options)
        sv.shrink_trainer(trainer)
        trainer.train(resume_from_checkpoint=resumes)
        weights.append(copied(trainer.model.state_dict()))

    assert_equal_states(weights[1], weights[0])


def test_a_model_of_sparse_embeddings_trains_as_a_language_model(tmp_path: Path) -> None:
    """Its head predicts all of V: the loss is that of the whole, other rows share one shift."""
    path = tmp_path / "model"
    tiny_language_model("bert").save_pretrained(path)
    tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece()).save_pretrained(path)
    losses = []
    for shrinks in (False, True):
        model = st.SparseEncoder(str(path), device="cpu")
        loss: Loss = lambda m: sparse.SpladeLoss(  # noqa: E731
            m, sparse.SparseMultipleNegativesRankingLoss(m), 3e-3, 5e-3
        )
        trainer = trainer_of(model, PAIRS, loss, tmp_path)
        if shrinks:
            sv.shrink_trainer(trainer)
        trainer.train()
        losses.append([loss for loss, _ in history(trainer)])
        model.save_pretrained(str(tmp_path / f"saved-{shrinks}"))
        saved = st.SparseEncoder(str(tmp_path / f"saved-{shrinks}"), device="cpu")
        assert torch.equal(saved.encode(UNSEEN).to_dense(), model.encode(UNSEEN).to_dense())

    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-6)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_loss_that_shares_the_matrix_is_refused(folder: Path, tmp_path: Path) -> None:
    """It would go on training the whole one, out of step with the model."""
    embedder(folder).save_pretrained(str(tmp_path / "base"))
    model = st.SentenceTransformer(str(tmp_path / "base"), device="cpu")
    trainer = trainer_of(model, PAIRS, embed.DenoisingAutoEncoderLoss, tmp_path)

    with pytest.raises(UnsupportedModelError, match="`DenoisingAutoEncoderLoss` shares the model"):
        sv.shrink_trainer(trainer)

    assert not partial_embeddings(model)


def test_two_vocabularies_in_one_model_are_refused(folder: Path, tmp_path: Path) -> None:
    """Their ids mean different tokens."""
    model = routed(folder)
    bag = model[0].sub_modules["query"][0].embedding
    bag.weight, bag.num_embeddings = nn.Parameter(torch.randn(200, DIM)), 200
    loss: Loss = embed.MultipleNegativesRankingLoss
    trainer = trainer_of(model, PAIRS, loss, tmp_path, **ROUTES)
    message = (
        "`SentenceTransformer` has embedding tables of 200, 300 rows, expected one size for all. "
        "Scan the texts of each vocabulary with its own tokenizer, and call "
        '`subvocab.shrink(model, {"query": …, "document": …})` with the names of the routes.'
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.shrink_trainer(trainer)

    small = PartialVocabulary(np.arange(30), 200)
    sv.shrink(model, {"query": small, "document": drawn_vocabulary()})
    assert [len(m.weight) for m in partial_embeddings(model).values()] == [30, 40]


def test_the_page_holds(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snippets run as they stand, one after another."""
    monkeypatch.chdir(tmp_path)
    embedder(folder).half().save_pretrained("base")
    model = st.SentenceTransformer("base", device="cpu")
    trainer = trainer_of(model, PAIRS, embed.MultipleNegativesRankingLoss, tmp_path / "runs")
    names: dict[str, Any] = {
        "SentenceTransformer": st.SentenceTransformer,
        "SentenceTransformerTrainer": st.SentenceTransformerTrainer,
        "model": model.float(),
        "folder": "base",
        "args": trainer.args,
        "dataset": trainer.train_dataset,
        "loss": trainer.loss,
        "make_loss": embed.MultipleNegativesRankingLoss,
    }

    for block in python_blocks("docs/sentence_transformers.md"):
        run_block(block, names)

    first = st.SentenceTransformer("out", device="cpu")
    last = st.SentenceTransformer("final", device="cpu")
    assert np.array_equal(outputs(first), outputs(model))
    assert np.array_equal(outputs(last), outputs(names["model"]))
    assert np.array_equal(outputs(last), outputs(first))
