"""Tests of the partial embedding bag: what the whole one gives, from fewer rows."""

from __future__ import annotations

import copy
import pickle
from functools import partial as with_options
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import subvocab as sv
from subvocab.errors import OutOfVocabularyError, UnsupportedModelError, VocabularyMismatchError
from subvocab.model.shrink import partial_embeddings
from tests.models import FULL_VOCAB_SIZE, tiny_model
from tests.reference import (
    CLIP,
    OPTIMIZERS,
    assert_equal_states,
    copied,
    drawn_vocabulary,
    ids_of,
    unused_ids,
)

PADDING = 299
"""The padding token of these bags; it is the last row of V, but not of V′ when others follow."""
VOCABULARY = drawn_vocabulary().union(np.array([PADDING - 1, PADDING]))
UNUSED = unused_ids(VOCABULARY)
DIM = 16

BAGS: dict[str, dict[str, Any]] = {
    "mean": {},
    "sum": {"mode": "sum"},
    "max": {"mode": "max"},
    "mean, padded": {"padding_idx": PADDING},
    "sum, padded": {"mode": "sum", "padding_idx": PADDING},
    "max, padded": {"mode": "max", "padding_idx": PADDING},
    "last offset": {"include_last_offset": True},
    "by frequency": {"mode": "sum", "scale_grad_by_freq": True},
    "sparse": {"mode": "sum", "sparse": True},
    "bfloat16": {"dtype": torch.bfloat16},
}


def plain(seed: int = 0, **options: Any) -> nn.EmbeddingBag:
    """Make a bag, the same for the same seed."""
    torch.manual_seed(seed)
    return nn.EmbeddingBag(FULL_VOCAB_SIZE, DIM, **options)


def pair(**options: Any) -> tuple[nn.EmbeddingBag, Any]:
    """Make the same bag twice, whole and partial."""
    whole, partial = plain(**options), plain(**options)
    sv.shrink(partial, VOCABULARY)
    return whole, partial


def drawn(ids: Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw 40 tokens in bags of different sizes, one of them empty, with padding among them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = ids[torch.randint(len(ids), (40,), generator=generator)]
    tokens[::7] = PADDING
    return tokens, torch.tensor([0, 3, 3, 17, 40])


def looked_up(bag: nn.EmbeddingBag, tokens: Tensor, ends: Tensor) -> Tensor:
    """Call a bag as its options want it."""
    output = bag(tokens, ends if bag.include_last_offset else ends[:-1])
    assert isinstance(output, Tensor)
    return output


@pytest.mark.parametrize("options", BAGS.values(), ids=BAGS)
def test_forward_equals_the_whole_bag(options: dict[str, Any]) -> None:
    """In training; and in evaluation, where half of the tokens are read from disk."""
    whole, partial = pair(**options)
    used, every = drawn(ids_of(VOCABULARY)), drawn(torch.arange(FULL_VOCAB_SIZE))

    assert torch.equal(looked_up(partial, *used), looked_up(whole, *used))
    assert torch.equal(looked_up(partial.eval(), *every), looked_up(whole.eval(), *every))
    assert torch.equal(partial.state_dict()["weight"], whole.weight)


@pytest.mark.parametrize("ids", [ids_of(VOCABULARY), UNUSED], ids=["used", "unused"])
def test_forward_takes_rows_of_bags_and_weights(ids: Tensor) -> None:
    """A matrix of ids is a bag a row; a weight goes with each id, by position or by name."""
    whole, partial = pair(mode="sum")
    bags = ids[torch.randint(len(ids), (5, 8))]
    weights = torch.rand(bags.shape)
    partial.eval()

    assert torch.equal(partial(bags), whole(bags))
    assert torch.equal(partial(bags, None, weights), whole(bags, None, weights))
    assert torch.equal(
        partial(bags.flatten(), offsets=torch.tensor([0, 9]), per_sample_weights=weights.flatten()),
        whole(bags.flatten(), offsets=torch.tensor([0, 9]), per_sample_weights=weights.flatten()),
    )


@pytest.mark.parametrize("name", [name for name in BAGS if name not in ("sparse", "bfloat16")])
@pytest.mark.parametrize("optimizer", ["adamw-fused", "adamw-foreach", "sgd-momentum"])
def test_training_equals_the_whole_bag(name: str, optimizer: str) -> None:
    """Losses, clipped norms, used rows and the layer behind, bit for bit; unused rows stay."""
    states, histories = [], []
    for shrinks in (False, True):
        model = nn.Sequential(plain(**BAGS[name]), nn.Linear(DIM, 4))
        if shrinks:
            sv.shrink(model, VOCABULARY)
        histories.append(trained(model, optimizer))
        states.append(copied(model.state_dict()))

    assert histories[0] == histories[1]
    assert_equal_states(states[1], states[0])
    assert torch.equal(states[1]["0.weight"][UNUSED], plain().weight[UNUSED])


def trained(model: nn.Sequential, optimizer: str) -> list[float]:
    """Train five clipped steps; give every loss and every norm."""
    made = OPTIMIZERS[optimizer](model.parameters())
    bag: Any = model[0]
    history = []
    for step in range(5):
        loss = model[1](looked_up(bag, *drawn(ids_of(VOCABULARY), seed=step))).pow(2).sum()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        made.step()
        made.zero_grad()
        history += [loss.item(), norm.item()]
    return history


def test_forward_in_training_refuses_unseen_ids() -> None:
    """A row that is not there cannot learn."""
    _, partial = pair()

    with pytest.raises(OutOfVocabularyError, match=r"^1 token id is not in the partial") as caught:
        partial(UNUSED[:1], torch.tensor([0]))

    assert caught.value.token_ids == (int(UNUSED[0]),)


@pytest.mark.parametrize("training", [True, False])
def test_forward_refuses_ids_that_are_no_tokens(*, training: bool) -> None:
    """No counting from the end."""
    _, partial = pair()

    with pytest.raises(OutOfVocabularyError, match="outside the vocabulary of 300"):
        partial.train(training)(torch.tensor([-1]), torch.tensor([0]))


def test_backward_through_a_row_from_disk_is_refused() -> None:
    """Training in evaluation mode would silently leave those tokens out."""
    _, partial = pair()

    output = partial.eval()(UNUSED[:3], torch.tensor([0]))

    with pytest.raises(OutOfVocabularyError, match=r"^3 token ids are not in the partial"):
        output.sum().backward()


@pytest.mark.parametrize("kind", [nn.Embedding, with_options(nn.EmbeddingBag, mode="sum")])
def test_frozen_rows_let_all_others_learn_as_in_the_whole(kind: Any) -> None:
    """And the padding token gets no gradient, beside rows from disk as without them."""
    whole, shrunk = (kind(FULL_VOCAB_SIZE, DIM, padding_idx=PADDING) for _ in range(2))
    shrunk.load_state_dict(whole.state_dict())
    sv.shrink(shrunk, VOCABULARY, out_of_vocabulary="frozen")
    rows = ids_of(VOCABULARY)
    tokens = torch.cat([rows, UNUSED[:9], rows]).view(3, -1)

    for module in (whole, shrunk):
        module(tokens).exp().sum().backward()

    assert torch.equal(shrunk.weight.grad, whole.weight.grad[rows])
    assert not shrunk.weight.grad[-1].any()


def test_state_dicts_are_those_of_the_whole_bag() -> None:
    """They load into one another; the rows of another V′ do not."""
    whole, partial = plain(1, padding_idx=PADDING), plain(padding_idx=PADDING)
    sv.shrink(partial, VOCABULARY)

    partial.load_state_dict(whole.state_dict())
    assert_equal_states(partial.state_dict(), whole.state_dict())

    other = plain(padding_idx=PADDING)
    sv.shrink(other, VOCABULARY.union(UNUSED[:1].numpy()))
    with pytest.raises(VocabularyMismatchError, match="another one of 43"):
        other.load_state_dict(sv.compact_state_dict(partial))


def test_restore_gives_the_whole_bag_back() -> None:
    """Its class, its options and its rows, the learned ones among them."""
    whole, partial = pair(padding_idx=PADDING)
    with torch.no_grad():
        for bag in (whole, partial):
            bag.weight[-1].add_(1)

    sv.restore(partial)

    assert type(partial) is nn.EmbeddingBag
    assert repr(partial) == repr(whole)
    assert torch.equal(partial.weight, whole.weight)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])  # noqa: S301
def test_copies_are_partial_bags(way: Any) -> None:
    """Data loaders and PEFT make copies."""
    whole, partial = pair()
    every = drawn(torch.arange(FULL_VOCAB_SIZE))

    made = way(partial).eval()

    assert type(made).__name__ == "PartialEmbeddingBag"
    assert torch.equal(looked_up(made, *every), looked_up(whole, *every))


def test_a_bag_beside_a_transformer_is_shrunk_with_it() -> None:
    """As where questions are embedded by a bag and answers by a transformer."""
    model = nn.ModuleDict({"query": plain(), "document": tiny_model("bert", "encoder")})

    sv.shrink(model, VOCABULARY)

    assert [type(module).__name__ for module in partial_embeddings(model).values()] == [
        "PartialEmbeddingBag",
        "PartialEmbedding",
    ]


def test_a_bag_of_another_size_is_left_alone() -> None:
    """It is looked up by something else than tokens."""
    model = nn.Sequential(nn.Embedding(FULL_VOCAB_SIZE, DIM), nn.EmbeddingBag(7, DIM))

    sv.shrink(model, VOCABULARY)

    assert list(partial_embeddings(model)) == ["0"]


def test_the_size_of_a_bag_is_named_where_it_does_not_fit() -> None:
    """As that of an embedding is."""
    with pytest.raises(VocabularyMismatchError, match="of `EmbeddingBag` has 7 rows, but the"):
        sv.shrink(nn.EmbeddingBag(7, DIM), VOCABULARY)


def test_a_bag_that_shares_its_matrix_with_a_layer_is_refused() -> None:
    """It is not known what that does with the rows."""
    model = nn.Sequential(plain(), nn.Linear(DIM, FULL_VOCAB_SIZE, bias=False))
    model[1].weight = model[0].weight

    with pytest.raises(UnsupportedModelError, match=r"is neither an `nn\.Embedding` nor"):
        sv.shrink(model, VOCABULARY)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compile_gives_one_graph_equal_to_the_whole_bag() -> None:
    """No graph break; the same bits from the same compiler."""
    torch.compiler.reset()
    used = drawn(ids_of(VOCABULARY))
    outputs = []
    for bag in pair():
        compiled: Any = torch.compile(bag, fullgraph=True, backend="aot_eager")
        outputs.append(compiled(used[0], used[1][:-1]))
        outputs[-1].pow(2).sum().backward()

    assert torch.equal(outputs[0], outputs[1])
