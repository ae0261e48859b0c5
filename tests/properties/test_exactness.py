"""Training with E′ is training with E: every loss, gradient norm and weight, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import subvocab as sv
from subvocab.model.shrink import partial_embeddings
from tests.models import (
    COMBINATIONS,
    CONFIGS,
    HEADS_WITHOUT_VOCABULARY,
    random_batch,
    tiny_model,
)
from tests.reference import (
    OPTIMIZERS,
    assert_equal_states,
    copied,
    drawn_vocabulary,
    ids_of,
    train,
    unused_ids,
)

STEPS = 2


def compare(
    family: str,
    head: str,
    optimizer: Callable[[Any], torch.optim.Optimizer] = OPTIMIZERS["adamw-fused"],
    *,
    prepare: Callable[[Any], object] = lambda _: None,
    steps: int = STEPS,
    unused_rows_move: bool = False,
    **options: Any,
) -> None:
    """Train a model with E and its twin with E′, and compare all there is to compare."""
    vocabulary = drawn_vocabulary()
    full, shrunk = tiny_model(family, head), tiny_model(family, head)
    prepare(full)
    prepare(shrunk)
    before = copied(full.state_dict())
    token_ids = ids_of(vocabulary)
    batches = [random_batch(full, token_ids, head, seed=step) for step in range(steps)]

    sv.shrink(shrunk, vocabulary)
    names = [f"{name}.weight" for name in partial_embeddings(shrunk)]
    unused = unused_ids(sv.vocabulary_of(shrunk))
    run_of_full = train(full, batches, optimizer, **options)
    run_of_shrunk = train(shrunk, batches, optimizer, **options)
    saved = copied(shrunk.state_dict())
    sv.restore(shrunk)

    assert run_of_shrunk == run_of_full
    assert names
    expected = copied(full.state_dict())
    for name in names:
        assert not torch.equal(expected[name], before[name])
        assert torch.equal(shrunk.state_dict()[name][unused], before[name][unused])
        moved = not torch.equal(expected[name][unused], before[name][unused])
        assert moved == unused_rows_move
        if unused_rows_move:
            expected[name][unused] = before[name][unused]
    assert_equal_states(saved, expected)
    assert_equal_states(shrunk.state_dict(), expected)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("family", "head"), COMBINATIONS)
def test_training_is_bitwise_equal(family: str, head: str, optimizer: str) -> None:
    """Every family, head and optimizer, with dropout and with clipping active."""
    compare(family, head, OPTIMIZERS[optimizer])


def test_every_family_has_a_head_to_compare() -> None:
    """The table of combinations cannot shrink unseen."""
    assert {family for family, _ in COMBINATIONS} == set(CONFIGS)
    assert {head for _, head in COMBINATIONS} == set(HEADS_WITHOUT_VOCABULARY)
    assert len(COMBINATIONS) == 66


@pytest.mark.parametrize("family", CONFIGS)
def test_training_in_bfloat16_is_bitwise_equal(family: str) -> None:
    """Weights, gradients and moments in bfloat16."""
    compare(family, "sequence", prepare=lambda model: model.to(torch.bfloat16))


@pytest.mark.parametrize("family", ["bert", "t5", "gemma3"])
def test_training_under_autocast_is_bitwise_equal(family: str) -> None:
    """Weights in float32, products in bfloat16."""
    compare(family, "sequence", autocast=True)


@pytest.mark.parametrize("family", ["bert", "bart", "llama"])
def test_gradient_accumulation_is_bitwise_equal(family: str) -> None:
    """Gradients of several batches add up in the same order."""
    compare(family, "sequence", accumulate=2, steps=4)


@pytest.mark.parametrize("family", ["bert", "bart", "llama"])
def test_gradient_checkpointing_is_bitwise_equal(family: str) -> None:
    """The backward pass runs the forward pass anew."""
    compare(family, "sequence", prepare=lambda model: model.activation_checkpointing_enable())


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1, fused=True),
        lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.1),
    ],
    ids=["decoupled", "l2"],
)
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_weight_decay_differs_in_unused_rows_only(
    family: str, optimizer: Callable[[Any], torch.optim.Optimizer]
) -> None:
    """Full training decays the rows that nothing uses; all else is equal."""
    compare(family, "sequence", optimizer, unused_rows_move=True)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Compute on so many threads for the length of a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_clipping_is_bitwise_equal_for_thousands_of_rows() -> None:
    """The norm is summed in blocks and by threads: the rows' order keeps its bits."""

    def widen(model: Any) -> None:
        torch.manual_seed(3)
        table = model.get_input_embeddings()
        table.weight = torch.nn.Parameter(torch.randn(20_000, table.embedding_dim))
        table.num_embeddings = 20_000

    full, shrunk = tiny_model("bert"), tiny_model("bert")
    widen(full)
    widen(shrunk)
    generator = torch.Generator().manual_seed(0)
    used = torch.randperm(20_000, generator=generator)[:3000].sort().values
    batches = [random_batch(full, used, seed=step) for step in range(5)]
    sv.shrink(shrunk, sv.PartialVocabulary(used.numpy(), 20_000))

    assert train(shrunk, batches) == train(full, batches)
    assert_equal_states(copied(shrunk.state_dict()), full.state_dict())
