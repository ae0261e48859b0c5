"""Tests of the fused loss over a partial head: the same numbers as a softmax over all logits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import subvocab as sv
from subvocab.model import fused
from subvocab.model.fused import GIVES, PartialLogProbs
from subvocab.model.head import PartialHead
from subvocab.model.language_model import partial_heads
from tests.models import FULL_VOCAB_SIZE, tiny_language_model
from tests.reference import drawn_vocabulary, ids_of, unused_ids

VOCABULARY = drawn_vocabulary().union([1, 2])  # the tokens that models insert by themselves
TOKENS = 23
Setting = dict[str, Any]
SETTINGS: dict[str, Setting] = {
    "plain": {},
    "cap": {"final_logit_softcapping": 2.0},
    "scale and temperature": {"logit_scale": 0.3, "temperature": 0.7},
    "all": {"final_logit_softcapping": 2.0, "logit_scale": 0.3, "temperature": 0.7},
}


def setting(**given: Any) -> Setting:
    """Give what a fused forward hands over beside hidden states and targets."""
    defaults = {"temperature": 1.0, "final_logit_softcapping": None, "logit_scale": 1.0}
    return {**defaults, "outputs": ("log_probs", *GIVES), **given}


def heads(name: str = "llama (tied)", **options: Any) -> tuple[nn.Linear, Any]:
    """Make the output head of a model, whole and partial, in double precision."""
    model = tiny_language_model(name).double().train()
    whole = copy.deepcopy(model.get_output_embeddings())
    sv.shrink(model, VOCABULARY, **options)
    (head,) = partial_heads(model)
    with torch.no_grad():  # as if they had been trained
        for parameter in (head.rest_shift, head.rest_bias_shift):
            if parameter is not None:
                added = torch.randn(parameter.shape, dtype=torch.double)
                parameter.copy_(added)
                rest = unused_ids(VOCABULARY)
                (whole.weight if added.numel() > 1 else whole.bias)[rest] += added
    return whole, head


def drawn(head: Any, token_ids: Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw hidden states, and targets among some tokens."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, head.weight.shape[1], generator=generator, dtype=torch.double)
    return hidden, token_ids[torch.randint(len(token_ids), (TOKENS,), generator=generator)]


def scores(head: Any, hidden: Tensor, targets: Tensor, given: Setting) -> dict[str, Tensor | None]:
    """Score targets as a fused forward would."""
    named = {"hidden": hidden, "weight": head.weight, "bias": head.bias, "targets": targets}
    named |= {"chunk_size": 32768} | given
    made = PartialLogProbs(head).apply(*(named[name] for name in fused.TAKES))
    return dict(zip(("log_probs", *GIVES), made, strict=True))


def expected_scores(
    whole: nn.Linear, hidden: Tensor, targets: Tensor, given: Setting
) -> dict[str, Tensor]:
    """Compute the same from all logits."""
    logits = whole(hidden) * given["logit_scale"]
    cap = given["final_logit_softcapping"]
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    logits = logits / given["temperature"]
    log_probs = logits.log_softmax(-1)
    return {
        "log_probs": log_probs.gather(1, targets[:, None]).squeeze(1),
        "entropy": -(log_probs.exp() * log_probs).sum(1),
        "log_sum_sq_probs": (2 * log_probs).logsumexp(1),
        "mean_logits": logits.mean(1),
        "is_top1": logits.argmax(1) == targets,
    }


def assert_close(ours: dict[str, Any], theirs: dict[str, Tensor]) -> None:
    """Compare all scores."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        mine = ours[name].detach()
        torch.testing.assert_close(mine, value.detach(), rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("name", ["llama (tied)", "llama", "bert"])
@pytest.mark.parametrize("case", SETTINGS)
def test_scores_are_those_of_all_logits(name: str, case: str) -> None:
    """With untied heads, heads with biases, and whatever is done to logits."""
    whole, head = heads(name)
    hidden, targets = drawn(head, ids_of(VOCABULARY))
    given = setting(**SETTINGS[case])
    hidden.requires_grad_()
    weights = torch.linspace(-1, 1, TOKENS, dtype=torch.double)

    ours = scores(head, hidden, targets, given)
    theirs = expected_scores(whole, hidden, targets, given)

    assert_close(ours, theirs)
    log_probs: Any = ours["log_probs"]
    mine = torch.autograd.grad(log_probs @ weights, [hidden, head.weight, head.rest_shift])
    full = torch.autograd.grad(theirs["log_probs"] @ weights, [hidden, whole.weight])
    used, rest = full[1][ids_of(VOCABULARY)], full[1][unused_ids(VOCABULARY)].sum(0)
    torch.testing.assert_close(mine, (full[0], used, rest), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", SETTINGS)
def test_targets_outside_the_vocabulary_are_scored(case: str) -> None:
    """As evaluation needs it, and training on what a model writes."""
    whole, head = heads("bert")
    hidden, targets = drawn(head, torch.arange(FULL_VOCAB_SIZE))
    given = setting(**SETTINGS[case])
    hidden.requires_grad_()

    ours = scores(head, hidden, targets, given)
    theirs = expected_scores(whole, hidden, targets, given)

    assert_close(ours, theirs)
    log_probs: Any = ours["log_probs"]
    mine = torch.autograd.grad(log_probs.sum(), [hidden, head.weight, head.rest_shift])
    full = torch.autograd.grad(theirs["log_probs"].sum(), [hidden, whole.weight])
    used, rest = full[1][ids_of(VOCABULARY)], full[1][unused_ids(VOCABULARY)].sum(0)
    torch.testing.assert_close(mine, (full[0], used, rest), rtol=1e-9, atol=1e-10)


def test_the_likeliest_token_may_lie_outside_the_vocabulary() -> None:
    """Then the target is not the likeliest, whatever V′ says; nor the second of two alike."""
    whole, head = heads(rest_shift=False)
    first, second = ids_of(VOCABULARY)[3:5].tolist()
    other = next(i for i in unused_ids(VOCABULARY).tolist() if i > second)
    earlier = next(i for i in unused_ids(VOCABULARY).tolist() if 0 < i < first)
    hidden = whole.weight[[other, earlier, first]].detach() * 100

    def top(*targets: int) -> list[bool]:
        found: Any = scores(head, hidden, torch.tensor(targets), setting())["is_top1"]
        return list(found.tolist())

    assert top(other, earlier, first) == [True, True, True]
    assert top(first, second, second) == [False, False, False]
    with torch.no_grad():
        head.weight[[3, 4]] = whole.weight[other]  # three tokens alike
    assert top(first, 0, 0)[0]
    assert not top(second, 0, 0)[0]
    assert not top(other, 0, 0)[0]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many logits of V′ are computed at a time."""
    sizes: list[int] = []
    make: Callable[..., Tensor] = PartialHead.used_logits

    def used_logits(*args: Any) -> Tensor:
        logits = make(*args)
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(PartialHead, "used_logits", used_logits)
    return sizes


def test_no_more_logits_are_held_than_fit_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are computed again for the gradient, which stays the same."""
    _, head = heads()
    hidden, targets = drawn(head, ids_of(VOCABULARY))
    hidden.requires_grad_()
    leaves = [hidden, head.weight, head.rest_shift]
    at_once = scores(head, hidden, targets, setting())
    gradients = torch.autograd.grad(at_once["log_probs"].sum(), leaves)  # type: ignore[union-attr]
    sizes = counted(monkeypatch)
    monkeypatch.setattr(fused, "LARGE_TILE", 10 * len(VOCABULARY))

    in_parts = scores(head, hidden, targets, setting())
    again = torch.autograd.grad(in_parts["log_probs"].sum(), leaves)  # type: ignore[union-attr]

    assert max(sizes) == 10 * len(VOCABULARY)
    assert len(sizes) == 6
    assert_close(in_parts, at_once)  # type: ignore[arg-type]
    torch.testing.assert_close(again, gradients, rtol=1e-12, atol=1e-12)


def test_only_what_is_asked_for_is_computed() -> None:
    """The rest is None, as the fused forward expects it."""
    _, head = heads()

    made = scores(head, *drawn(head, ids_of(VOCABULARY)), setting(outputs=("log_probs",)))

    assert [name for name, value in made.items() if value is not None] == ["log_probs"]


def test_a_restricted_head_scores_by_its_own_softmax() -> None:
    """In evaluation by that over all of V."""
    whole, head = heads(head="restricted")
    hidden, targets = drawn(head, ids_of(VOCABULARY))
    small = nn.Linear(len(whole.weight[0]), len(VOCABULARY), bias=False)
    small.weight = nn.Parameter(whole.weight[ids_of(VOCABULARY)])
    columns = torch.searchsorted(ids_of(VOCABULARY), targets)

    restricted = scores(head, hidden, targets, setting())
    evaluated = scores(head.eval(), hidden, targets, setting())

    assert_close(restricted, expected_scores(small, hidden, columns, setting()))
    assert_close(evaluated, expected_scores(whole, hidden, targets, setting()))


def test_a_loss_on_the_entropy_is_refused() -> None:
    """It would have no gradient, silently."""
    _, head = heads()
    made: Any = scores(head, *drawn(head, ids_of(VOCABULARY)), setting())

    with pytest.raises(sv.UnsupportedModelError, match="A loss on the entropy"):
        (made["log_probs"].sum() - made["entropy"].sum()).backward()


def test_an_entropy_that_no_loss_depends_on_is_not_refused() -> None:
    """Compiled code sends a gradient of zeros for every tensor that might have had one."""
    _, head = heads()
    made: Any = scores(head, *drawn(head, ids_of(VOCABULARY)), setting())

    (made["log_probs"].sum() + 0 * made["entropy"].sum()).backward()

    assert head.weight.grad.any()


def test_another_matrix_than_that_of_the_head_is_refused() -> None:
    """Such as one that was gathered from shards, whose gradient would be lost."""
    _, head = heads()
    hidden, targets = drawn(head, ids_of(VOCABULARY))
    given = {"hidden": hidden, "weight": head.weight.clone(), "bias": None, "targets": targets}
    named = setting(**given, chunk_size=1)

    with pytest.raises(sv.UnsupportedModelError, match="not the weight of the partial head"):
        PartialLogProbs(head).apply(*(named[name] for name in fused.TAKES))
