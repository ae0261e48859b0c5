"""sentence-transformers: the one line in a script changes nothing but the memory it takes."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import set_seed

import subvocab as sv
from subvocab import PartialVocabulary
from subvocab.errors import CheckpointError, OutOfVocabularyError, UnsupportedModelError
from subvocab.model.shrink import partial_embeddings
from subvocab.model.tables import find_lookups
from tests import tiny_tokenizers
from tests.models import DIM, FULL_VOCAB_SIZE, tiny_language_model, tiny_model
from tests.pages import python_blocks, run_block
from tests.reference import assert_equal_states, copied, drawn_vocabulary

st = pytest.importorskip("sentence_transformers")
from sentence_transformers.cross_encoder import losses as rerank  # noqa: E402
from sentence_transformers.sentence_transformer import losses as embed  # noqa: E402
from sentence_transformers.sentence_transformer.modules import (  # noqa: E402
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
)
from sentence_transformers.sparse_encoder import losses as sparse  # noqa: E402

from subvocab.integrations.sentence_transformers import scan_trainer  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:.*pin_memory.*:UserWarning", "ignore:.*activation_checkpointing.*:FutureWarning"
    ),
]
LENGTH = 12
PAD = 0
QUESTIONS = ["the cat", "a dog sat", "what is the end", "12 cups", "in one line", "on the mat"]
ANSWERS = ["the cat sat on the mat " * 3, "the dog didn't", "it", "345 grams", "the line", "a mat"]
OTHERS = ["a naive cafe", "the end of it", "cups of the cat", "Sao Paulo", "a dog", "in the cafe"]
UNSEEN = ["日本語 and 中文", "a b c d e", "the dog didn't sit on Paulo's 345 mats"]
QUERY, DOCUMENT = "query: ", "passage - "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny encoder with its tokenizer."""
    path = tmp_path_factory.mktemp("encoder")
    tiny_model("bert", "encoder").save_pretrained(path)
    tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece()).save_pretrained(path)
    return path


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


def routed(folder: Path) -> Any:
    """Make a model that embeds questions by a bag, and answers by an encoder."""
    routes = Router.for_query_document([static(folder)[0]], list(embedder(folder)))
    return st.SentenceTransformer(modules=[routes], device="cpu")


def reranker(folder: Path) -> Any:
    """Load a model that compares two texts."""
    set_seed(0)
    return st.CrossEncoder(str(folder), num_labels=1, max_length=LENGTH, device="cpu")


PAIRS = {"question": QUESTIONS, "answer": ANSWERS}
TRIPLETS = {**PAIRS, "negative": OTHERS}
SCORED = {**PAIRS, "score": [1.0, 0.2, 0.0, 0.9, 0.4, 0.6]}
SORTED = {**PAIRS, "label": [1, 0, 0, 1, 1, 0]}
LISTS = {
    "query": QUESTIONS,
    "docs": [list(both) for both in zip(ANSWERS, OTHERS, strict=True)],
    "labels": [[1, 0]] * 6,
}

Build = Callable[[Path], Any]
Loss = Callable[[Any], nn.Module]
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


def test_a_trainer_without_data_is_refused(folder: Path, tmp_path: Path) -> None:
    """There is nothing to scan."""
    loss: Loss = embed.MultipleNegativesRankingLoss
    trainer = trainer_of(embedder(folder), None, loss, tmp_path)

    with pytest.raises(UnsupportedModelError, match="has no `train_dataset` to scan"):
        sv.shrink_trainer(trainer)


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
