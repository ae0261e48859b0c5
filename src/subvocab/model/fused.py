"""A head that is fused with the loss, over V′: what the trainers of TRL put on a model.

Their forward hands hidden states, the head's matrix and labels to one function, which gives
log-probabilities and what is logged about the softmax. It would take rows of V′ for those of V. So
over a partial head their forward runs with another function in that one's place: the same numbers,
of a softmax over all of V, from E′ and the rest of the vocabulary.
"""

from __future__ import annotations

import inspect
import weakref
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from subvocab.errors import UnsupportedModelError
from subvocab.model.head import LossLogits, PartialHead
from subvocab.model.out_of_vocabulary import partial_ids_or_absent
from subvocab.model.rest import LARGE_TILE, RestStatistics, Transform
from subvocab.model.swap import module_of
from subvocab.vocabulary.partial import ABSENT

FUSED = "trl.trainer.utils"
KERNEL = "_ChunkedLogProbFunction"
"""The function that is handed the head's matrix, as a global name of that module."""
TAKES = (
    "hidden",
    "weight",
    "bias",
    "targets",
    "temperature",
    "chunk_size",
    "final_logit_softcapping",
    "logit_scale",
    "outputs",
)
"""What it takes, after the context of an autograd function."""
LOG_PROBS = "log_probs"
GIVES = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""What it returns on demand, after the log-probabilities."""


def is_fused(forward: Any) -> bool:
    """Tell whether a forward is one whose function can be put in another's place.

    Args:
        forward: What shall be a model's forward.

    Returns:
        Whether it is TRL's, and calls what it is known to call.
    """
    function = getattr(forward, "__func__", forward)
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    if module_of(forward) != FUSED or KERNEL not in names:
        return False
    kernel = function.__globals__[KERNEL]
    return tuple(inspect.signature(kernel.forward).parameters)[1:] == TAKES


def over_partial_head(function: FunctionType, head: PartialHead) -> FunctionType:
    """Give a fused forward that computes with a partial head.

    Args:
        function: The forward, `is_fused`.
        head: The head of the model.

    Returns:
        A copy of it, in which one global name means something else. Keep it: compilers know a
        function by its code, and this one has its own.
    """
    names = function.__globals__ | {KERNEL: PartialLogProbs(head)}
    # Sharing a code object, it would be run as what was compiled for another head.
    code, closure = function.__code__.replace(), function.__closure__
    twin = FunctionType(code, names, function.__name__, function.__defaults__, closure)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


class PartialLogProbs:
    """Stands where a fused forward looks for its function.

    Args:
        head: A partial head with rows outside V′. Not kept alive by what stands for it.
    """

    def __init__(self, head: PartialHead) -> None:
        self._head = weakref.ref(head)

    @property
    def head(self) -> PartialHead:
        """The partial head, for as long as its model is there."""
        head = self._head()
        assert head is not None  # noqa: S101 - the model that calls holds it
        return head

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def apply(self, *args: Any) -> tuple[Tensor | None, ...]:
        """Score targets by a softmax over V.

        Args:
            *args: As `TAKES` names them: hidden states ``(tokens, dim)``, the head's weight
                and bias, targets ``(tokens,)`` of V, the temperature, a width that is not
                needed here, what the model does to logits, and which of `GIVES` to give.

        Returns:
            Log-probabilities ``(tokens,)``, with gradients; then `GIVES`, each ``(tokens,)``
            without a gradient, or None where it was not asked for. Cost: of logits no more
            than `LARGE_TILE` are held at a time.

        Raises:
            UnsupportedModelError: If the weight is not that of the head.
        """
        given = dict(zip(TAKES, args, strict=True))
        if given["weight"] is not self.head.weight:
            raise UnsupportedModelError(
                "The fused loss multiplies by a matrix that is not the weight of the partial head: "
                f"a `{type(given['weight']).__name__}` of shape {tuple(given['weight'].shape)}, "
                "sharded or wrapped by an adapter. Leave the head out of the adapter, and train "
                "with DDP rather than FSDP."
            )
        cap, scale = given["final_logit_softcapping"], 1.0 / given["temperature"]
        # cap · tanh(z / cap) / temperature, as one transform
        transform = Transform(scale * given["logit_scale"], None if cap is None else cap * scale)
        wanted = frozenset(given["outputs"]) & {*GIVES}
        size = max(1, LARGE_TILE // self.head.out_features)
        parts = list(zip(given["hidden"].split(size), given["targets"].split(size), strict=True))
        scores = [self._score(*part, transform, wanted, again=len(parts) > 1) for part in parts]
        joined = {name: torch.cat([score[name] for score in scores]) for name in scores[0]}
        if "entropy" in joined and joined[LOG_PROBS].requires_grad:
            joined["entropy"].requires_grad_().register_hook(_refuse_gradient)
        return joined[LOG_PROBS], *map(joined.get, GIVES)

    def _score(
        self,
        hidden: Tensor,
        targets: Tensor,
        transform: Transform,
        outputs: frozenset[str],
        *,
        again: bool,
    ) -> dict[str, Tensor]:
        """Score some tokens; ``again``: compute the logits of V′ anew for the gradient."""
        head, wanted = self.head, LossLogits(transform)
        rest, statistics = None, RestStatistics()
        if head.mode == "exact" or not head.training:
            rest = head.rest_logits(hidden, wanted, statistics if outputs else None)
        partial_ids, absent = partial_ids_or_absent(targets, head.token_lookup)
        columns = partial_ids.long().clamp(min=0)[:, None]

        def look(hidden: Tensor, rest: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
            used = head.used_logits(hidden, wanted)
            used = used.to(torch.promote_types(used.dtype, torch.float32))
            total = used.logsumexp(1)
            total = total if rest is None else torch.logaddexp(total, rest)
            return used.gather(1, columns).squeeze(1), total, used.detach()

        picked, total, used = (
            checkpoint(look, hidden, rest, use_reentrant=False) if again else look(hidden, rest)
        )
        if absent is not None:
            outside = _logits_outside(head, hidden[absent], targets[absent], transform)
            picked = picked.masked_scatter(absent, outside.to(picked.dtype))
        scores = {LOG_PROBS: picked - total}
        with torch.no_grad():
            softmax = _Softmax(used, total, rest, statistics)
            for name in outputs:
                scores[name] = getattr(softmax, name)(head.token_lookup, targets)
        return scores


class _Softmax(NamedTuple):
    """A softmax over V, of which tokens outside V′ are known only by their statistics."""

    used: Tensor
    total: Tensor
    rest: Tensor | None
    statistics: RestStatistics

    def entropy(self, *_: Tensor) -> Tensor:
        """Give log Z − Σ p · logit."""
        mean = ((self.used - self.total[:, None]).exp_() * self.used).sum(1)
        if self.rest is not None:
            mean += (self.rest - self.total).exp() * self.statistics.mean
        return self.total - mean

    def log_sum_sq_probs(self, *_: Tensor) -> Tensor:
        """Give log Σ p²."""
        squares = (2 * self.used).logsumexp(1)
        if self.rest is not None:
            squares = torch.logaddexp(squares, self.statistics.log_squares)
        return squares - 2 * self.total

    def mean_logits(self, *_: Tensor) -> Tensor:
        """Give the mean over all tokens."""
        if self.rest is None:
            return self.used.mean(1)
        total = self.used.sum(1) + self.statistics.total
        return total / (self.used.shape[1] + self.statistics.rows)

    def is_top1(self, lookup: Tensor, targets: Tensor) -> Tensor:
        """Tell whether a target is the likeliest token; of several, the first of V."""
        highest, column = self.used.max(1)
        token_ids = (lookup != ABSENT).nonzero().squeeze(1)[column]
        if self.rest is not None:
            others = (lookup == ABSENT).nonzero().squeeze(1)[self.statistics.highest_row]
            higher = self.statistics.highest > highest
            higher |= (self.statistics.highest == highest) & (others < token_ids)
            token_ids = torch.where(higher, others, token_ids)
        return token_ids == targets


def _logits_outside(
    head: PartialHead, hidden: Tensor, token_ids: Tensor, transform: Transform
) -> Tensor:
    """Give the logit of a token outside V′ for each hidden state."""
    table = head.frozen.table
    rows = table.read_rows(token_ids, like=head.weight)
    shift, bias_shift = head.shifts()
    logits = (hidden.to(rows.dtype) * (rows if shift is None else rows + shift)).sum(1)
    if head.partial_bias is not None:
        logits = logits + head.partial_bias.whole.to(logits.device)[token_ids]
    if bias_shift is not None:
        logits = logits + bias_shift
    return transform(logits)


def _refuse_gradient(gradient: Tensor) -> None:
    """Say that a loss on the entropy is not known here."""
    if not gradient.any():  # compiled code sends zeros for what no loss depends on
        return
    raise UnsupportedModelError(
        "A loss on the entropy of a partial head has no gradient here, expected one on "
        "log-probabilities alone. Set `entropy_coef=0` and `use_adaptive_entropy=False`, or call "
        "`subvocab.restore(model)` first."
    )
