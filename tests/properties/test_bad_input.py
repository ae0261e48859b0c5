"""What cannot come out right is refused before the first step; what is harmless stays harmless."""

from __future__ import annotations

import copy
from typing import Any

import accelerate
import pytest
import torch

import subvocab as sv
from subvocab.model.shrink import partial_embeddings
from tests.models import FULL_VOCAB_SIZE, random_batch, tiny_model
from tests.reference import assert_equal_states, copied, drawn_vocabulary, ids_of, train

VOCABULARY = drawn_vocabulary()
USED = ids_of(VOCABULARY)
EVERY_ID = torch.arange(FULL_VOCAB_SIZE)


@pytest.fixture
def accelerator() -> accelerate.Accelerator:
    """Make the accelerator of a plain loop."""
    return accelerate.Accelerator(cpu=True)


def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Evaluate a model."""
    with torch.no_grad():
        return model.eval()(**batch).logits  # type: ignore[no-any-return]


def test_an_optimizer_that_accelerate_has_wrapped_is_found(
    accelerator: accelerate.Accelerator,
) -> None:
    """It would go on training the whole matrix, which the model no longer has."""
    model = tiny_model("bert")
    before = copied(model.state_dict())
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))

    with pytest.raises(sv.UnsupportedModelError, match="already holds the embedding matrix"):
        sv.shrink(prepared, VOCABULARY)

    assert not partial_embeddings(model)
    assert_equal_states(model.state_dict(), before)
    del optimizer


def test_a_model_that_accelerate_has_prepared_trains_as_the_whole_one() -> None:
    """Shrunk before `prepare` as the docs say, with the optimizer made from what is left."""
    whole = tiny_model("bert")
    batches = [random_batch(whole, USED, seed=seed) for seed in range(4)]
    model = copy.deepcopy(whole)
    sv.shrink(model, VOCABULARY)

    expected = train(whole, batches)
    found = train(accelerate.Accelerator(cpu=True).prepare(model), batches)

    assert found == expected
    assert_equal_states(model.state_dict(), whole.state_dict())


@pytest.mark.parametrize("head", ["sequence", "masked-lm"])
def test_a_model_that_was_dispatched_is_refused_untouched(head: str) -> None:
    """Its modules have forwards of accelerate's, which would not look renumbered ids up."""
    model = tiny_model("bert", head)
    before = copied(model.state_dict())
    accelerate.dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)

    with pytest.raises(sv.UnsupportedModelError) as caught:
        sv.shrink(model, VOCABULARY)

    assert str(caught.value) == (
        "The forward of `Embedding` was replaced by one of `accelerate.hooks`, which would pass by "
        "the partial vocabulary. Shrink the model first, then dispatch it over devices, wrap or "
        "patch it."
    )
    assert_equal_states(model.state_dict(), before)


def test_a_shrunk_model_may_be_dispatched() -> None:
    """Used and unused tokens get the rows they had."""
    whole = tiny_model("bert")
    batch = random_batch(whole, EVERY_ID)
    model = copy.deepcopy(whole)
    sv.shrink(model, VOCABULARY)

    accelerate.dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)

    assert torch.equal(logits_of(model, batch), logits_of(whole, batch))


@pytest.mark.parametrize("how", ["plain", "assign"])
def test_the_whole_checkpoint_of_another_base_replaces_all_of_this_one(how: str) -> None:
    """No row of the old base is left among the new ones, used or not."""
    model, other = tiny_model("bert"), tiny_model("bert", seed=1)
    batch = random_batch(other, EVERY_ID)
    sv.shrink(model, VOCABULARY)

    model.load_state_dict(other.state_dict(), assign=how == "assign")

    assert torch.equal(logits_of(model, batch), logits_of(other, batch))
    assert_equal_states(sv.restore(model).state_dict(), other.state_dict())


def test_the_checkpoint_of_a_base_of_another_size_is_refused() -> None:
    """As plain loading does, and before anything is changed."""
    model, other = tiny_model("bert"), tiny_model("bert", vocab_size=FULL_VOCAB_SIZE + 8)
    sv.shrink(model, VOCABULARY)
    before = copied(model.state_dict())

    with pytest.raises(sv.VocabularyMismatchError, match=r"has shape \(308, 32\), expected"):
        model.load_state_dict(other.state_dict())

    rows = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(model.state_dict()[rows], before[rows])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_cast_before_or_after_shrinking_is_the_same(dtype: torch.dtype) -> None:
    """`half()` and `to()` reach the rows of V′; those on disk follow when they are read."""
    whole = tiny_model("bert").to(dtype)
    batch = random_batch(whole, EVERY_ID)
    early, late = copy.deepcopy(whole), tiny_model("bert")
    sv.shrink(early, VOCABULARY)
    sv.shrink(late, VOCABULARY)
    late.to(dtype)

    expected = logits_of(whole, batch)

    assert torch.equal(logits_of(early, batch), expected)
    assert torch.equal(logits_of(late, batch), expected)
    assert_equal_states(late.state_dict(), whole.state_dict())


def test_compact_rows_of_another_base_are_refused() -> None:
    """They would stand among unused rows that they were never trained beside."""
    one, other = tiny_model("bert"), tiny_model("bert", seed=1)
    for model in (one, other):
        sv.shrink(model, VOCABULARY)
    before = copied(one.state_dict())

    with pytest.raises(sv.VocabularyMismatchError, match="trained from another base") as caught:
        one.load_state_dict(sv.compact_state_dict(other))

    assert "subvocab merge" in str(caught.value)
    assert_equal_states(one.state_dict(), before)


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float32,) * 2])
def test_compact_rows_of_the_same_base_load(dtypes: tuple[torch.dtype, ...]) -> None:
    """Also where one of the two was cast before it was shrunk, the other afterwards."""
    stored = tiny_model("bert").to(dtypes[0])
    one, other = copy.deepcopy(stored).to(dtypes[1]), stored
    for model in (one, other):
        sv.shrink(model, VOCABULARY)
    trained = sv.compact_state_dict(other)

    one.load_state_dict(trained)

    assert partial_embeddings(one)
