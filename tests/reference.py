"""The slow, obvious versions: what training must come out as, with nothing clever in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subvocab.vocabulary import PartialVocabulary
from tests.models import FULL_VOCAB_SIZE

CLIP = 0.05
"""Small enough to be active at every step of these tests."""


class Lion(torch.optim.Optimizer):
    """The published sign-of-momentum update, one tensor at a time."""

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter by the sign of its interpolated momentum."""
        assert closure is None
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                update = momentum.lerp(parameter.grad, 1 - first).sign()
                parameter.add_(update, alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - second)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0, fused=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0, foreach=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "lion": Lion,
}


@dataclass
class Run:
    """What a training loop saw: exact numbers, to be compared with ``==``."""

    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    optimizer: Callable[[Any], torch.optim.Optimizer] = OPTIMIZERS["adamw-fused"],
    *,
    accumulate: int = 1,
    autocast: bool = False,
    seed: int = 1,
) -> Run:
    """Train as every tutorial does: forward, backward, clip, step."""
    made = optimizer([p for p in model.parameters() if p.requires_grad])
    model.train()
    torch.manual_seed(seed)  # dropout
    run = Run()
    for number, batch in enumerate(batches, start=1):
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            loss = loss_of(model(**batch))
        loss.backward()
        run.losses.append(loss.item())
        if number % accumulate == 0:
            norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            run.gradient_norms.append(norm.item())
            made.step()
            made.zero_grad()
    assert min(run.gradient_norms) > CLIP, "clipping was not active: nothing was proved about it"
    return run


def loss_of(output: Any) -> Tensor:
    """Give a model's loss; one without a head is trained towards zero."""
    loss = getattr(output, "loss", None)
    if loss is None:
        loss = output.last_hidden_state.float().pow(2).sum()
    assert isinstance(loss, Tensor)
    return loss


def drawn_vocabulary(size: int = 40, *, seed: int = 0) -> PartialVocabulary:
    """Draw some token ids, spread over V; 0 is among them, so that shrinking adds none."""
    ids = np.random.default_rng(seed).choice(np.arange(1, FULL_VOCAB_SIZE), size - 1, replace=False)
    return PartialVocabulary(np.append(0, np.sort(ids)), FULL_VOCAB_SIZE)


def ids_of(vocabulary: PartialVocabulary) -> Tensor:
    """Give V′ as a tensor."""
    return torch.tensor(vocabulary.token_ids)


def unused_ids(vocabulary: PartialVocabulary) -> Tensor:
    """Give the ids of V that are not in V′."""
    return torch.tensor(np.setdiff1d(np.arange(vocabulary.full_vocab_size), vocabulary.token_ids))


def copied(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep a state dict as it is now."""
    return {name: value.detach().clone() for name, value in state_dict.items()}


def assert_equal_states(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Compare names, dtypes and every bit."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name], value), name
