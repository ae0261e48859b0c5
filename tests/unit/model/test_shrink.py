"""Tests of shrinking a model in memory and restoring it."""

from __future__ import annotations

import gc
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import subvocab as sv
from subvocab.errors import UnsupportedModelError
from subvocab.model.shrink import partial_embeddings
from tests.models import CONFIGS, FULL_VOCAB_SIZE, tiny_config, tiny_model
from tests.reference import (
    OPTIMIZERS,
    assert_equal_states,
    copied,
    drawn_vocabulary,
    ids_of,
)

VOCABULARY = drawn_vocabulary()


@pytest.mark.parametrize("family", CONFIGS)
def test_shrink_leaves_only_the_rows_of_the_vocabulary(family: str) -> None:
    """E′[f(i)] = E[i], in one Parameter for all owners."""
    model = tiny_model(family)
    before = model.get_input_embeddings().weight

    handle = sv.shrink(model, VOCABULARY)

    assert handle.model is model
    weights = {id(m.weight): m.weight for m in partial_embeddings(model).values()}
    assert len(weights) == 1
    rows = ids_of(sv.vocabulary_of(model))
    assert torch.equal(model.get_input_embeddings().weight, before[rows])
    assert sum(p.numel() for p in model.parameters()) == model.num_parameters()


@pytest.mark.parametrize("family", CONFIGS)
def test_restore_undoes_shrink(family: str) -> None:
    """Every attribute of every module is as it was, but for the Parameter objects."""
    model = tiny_model(family)
    before, classes = copied(model.state_dict()), [type(m) for m in model.modules()]
    described = repr(model)
    attributes = [set(vars(m)) | set(m._buffers) for m in model.modules()]
    non_persistent = [set(m._non_persistent_buffers_set) for m in model.modules()]
    sv.shrink(model, VOCABULARY)

    assert sv.restore(model) is model

    assert_equal_states(model.state_dict(), before)
    assert [type(m) for m in model.modules()] == classes
    assert [set(vars(m)) | set(m._buffers) for m in model.modules()] == attributes
    assert [set(m._non_persistent_buffers_set) for m in model.modules()] == non_persistent
    assert repr(model) == described
    weights = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)
               and m.num_embeddings == FULL_VOCAB_SIZE}  # fmt: skip
    assert len(weights) == 1


def test_restore_keeps_what_was_learned() -> None:
    """The rows of V′ as they are now."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(3)

    sv.restore(model)

    learned = (model.get_input_embeddings().weight == 3).all(dim=1)
    assert np.array_equal(learned.nonzero()[:, 0].numpy(), _complete(model))


def _complete(model: Any) -> np.ndarray:
    return sv.vocabulary_of(sv.shrink(model, VOCABULARY).model).token_ids


def test_restore_gives_memory_of_its_own() -> None:
    """A restored model outlives its temporary file, and may be written to."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)
    sv.restore(model)

    weight = model.get_input_embeddings().weight

    assert weight.is_leaf
    with torch.no_grad():
        weight.zero_()


def test_shrink_again_after_restore() -> None:
    """With another vocabulary, too."""
    model = tiny_model("t5")
    before = copied(model.state_dict())
    for seed in range(3):
        sv.shrink(model, drawn_vocabulary(seed=seed))
        sv.restore(model)

    assert_equal_states(model.state_dict(), before)


def test_shrink_as_a_context_manager_restores() -> None:
    """The model inside is the model outside."""
    model = tiny_model("bert")

    with sv.shrink(model, VOCABULARY) as inside:
        assert inside is model
        assert partial_embeddings(model)

    assert not partial_embeddings(model)


def test_shrink_as_a_context_manager_allows_restoring_inside() -> None:
    """To save within the block, say."""
    model = tiny_model("bert")

    with sv.shrink(model, VOCABULARY):
        sv.restore(model)

    assert not partial_embeddings(model)


def test_shrink_adds_the_tokens_that_a_model_may_insert() -> None:
    """Every token that a configuration names, token 0 and the padding token."""
    config: Any = tiny_config("bert", pad_token_id=299, bos_token_id=298, eos_token_id=[296, 297])
    config.decoder_start_token_id = 295
    config.text_config = {"image_token_id": 294, "nothing_token_id": None, "far_token_id": 300_000}
    config.some_token_ids = [293]
    config.vision_start_token_id = True
    model = nn.Module()
    model.add_module("embedding", nn.Embedding(FULL_VOCAB_SIZE, 8, padding_idx=292))
    vars(model)["config"] = config

    sv.shrink(model, sv.PartialVocabulary(np.array([7]), FULL_VOCAB_SIZE))

    assert sv.vocabulary_of(model).token_ids.tolist() == [0, 7, *range(292, 300)]


def test_shrink_writes_its_file_where_it_is_told(tmp_path: Path) -> None:
    """And the file goes with the model."""
    model = tiny_model("bert")

    sv.shrink(model, VOCABULARY, spill_folder=tmp_path)

    assert len(list(tmp_path.iterdir())) == 1
    sv.restore(model)
    assert not list(tmp_path.iterdir())


def test_shrink_that_fails_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    """All that may fail comes first."""
    model = tiny_model("bert")
    described = repr(model)

    with pytest.raises(FileNotFoundError):
        sv.shrink(model, VOCABULARY, spill_folder=tmp_path / "missing")

    assert repr(model) == described


def test_shrink_refuses_a_shrunk_model() -> None:
    """The second vocabulary would be one of the first."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)
    message = (
        "`BertForSequenceClassification` is shrunk already. Call `subvocab.restore(model)` first."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.shrink(model, VOCABULARY)


def test_restore_refuses_a_whole_model() -> None:
    """Nothing to do is a mistake."""
    message = (
        "`BertForSequenceClassification` has no partial embedding, so there is nothing to restore. "
        "Was it restored already?"
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.restore(tiny_model("bert"))


def test_vocabulary_of_refuses_a_whole_model() -> None:
    """It has none."""
    with pytest.raises(
        UnsupportedModelError, match=r"^`BertForSequenceClassification` has no partial embedding\.$"
    ):
        sv.vocabulary_of(tiny_model("bert"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_shrink_refuses_a_model_that_an_optimizer_holds(name: str) -> None:
    """It would go on training the dead matrix."""
    model = tiny_model("bert")
    optimizer = OPTIMIZERS[name](model.parameters())
    message = (
        f"`{type(optimizer).__name__}` already holds the embedding matrix of "
        "`BertForSequenceClassification` and would go on training it. Make the optimizer after "
        "the model is shrunk."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.shrink(model, VOCABULARY)

    assert not partial_embeddings(model)


def test_shrink_allows_an_optimizer_of_something_else() -> None:
    """Of the other weights, or of another model."""
    model, other = tiny_model("bert"), tiny_model("bert")
    kept = [torch.optim.SGD(model.classifier.parameters()), torch.optim.SGD(other.parameters())]

    sv.shrink(model, VOCABULARY)

    assert len(kept) == 2


def test_shrink_allows_an_optimizer_that_is_gone() -> None:
    """Schedulers and optimizers hold each other, and go when the collector comes by."""
    model = tiny_model("bert")
    gc.disable()
    try:
        optimizer: Any = torch.optim.SGD(model.parameters())
        optimizer.itself = optimizer
        del optimizer

        sv.shrink(model, VOCABULARY)
    finally:
        gc.enable()

    assert partial_embeddings(model)


def test_shrink_warns_where_little_is_gained() -> None:
    """Right, but to no purpose."""
    message = (
        "The partial vocabulary holds 290 of 300 tokens (97%): the result is right, but little "
        "memory is saved."
    )

    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$") as warned:
        sv.shrink(tiny_model("gpt2"), sv.PartialVocabulary(np.arange(290), FULL_VOCAB_SIZE))

    assert warned[0].filename == __file__


def test_shrink_adds_no_buffer() -> None:
    """Data-parallel training sends every buffer to every rank at each step."""
    whole, model = tiny_model("t5"), tiny_model("t5")
    sv.shrink(model, VOCABULARY)

    assert dict(model.named_buffers()).keys() == dict(whole.named_buffers()).keys()


def test_shrink_keeps_one_look_up_a_device() -> None:
    """All modules over a table share it, and none but the ids decide where it lies."""
    model = tiny_model("t5")
    sv.shrink(model, VOCABULARY)
    (table,) = {module.table for module in partial_embeddings(model).values()}
    ids = ids_of(VOCABULARY)[None]
    on_cpu = table.lookup_on(ids.device)

    output = model.to("meta").transformer.encoder(ids.to("meta")).last_hidden_state

    assert output.is_meta
    assert output.shape == (1, len(VOCABULARY), model.config.d_model)
    assert table.lookup_on(ids.device) is on_cpu
    assert table.lookup_on(torch.device("meta")).is_meta


def test_shrink_may_be_followed_by_inference_alone() -> None:
    """What evaluation leaves behind serves training as well."""
    model = tiny_model("gpt2", "causal-lm")
    sv.shrink(model, VOCABULARY)
    ids = ids_of(VOCABULARY)[None]

    with torch.inference_mode():
        model.eval()(ids)
    model.train()(ids).logits.sum().backward()

    assert model.get_input_embeddings().weight.grad.any()


def test_shrink_serves_several_threads() -> None:
    """Evaluation with unseen ids does not disturb other threads."""
    torch.manual_seed(0)
    whole, partial = (nn.Embedding.from_pretrained(torch.randn(300, 8)) for _ in range(2))
    partial.weight = nn.Parameter(whole.weight.clone())
    sv.shrink(partial, VOCABULARY)
    partial.eval()
    failures = []

    def look() -> None:
        for _ in range(50):
            ids = torch.randint(300, (20,))
            if not torch.equal(partial(ids), whole(ids)):
                failures.append(ids)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
