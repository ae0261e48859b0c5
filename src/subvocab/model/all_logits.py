"""Logits over all of V, of whose rows only those of V′ and a shift of the others are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from subvocab.vocabulary.partial import ABSENT


class Trained(NamedTuple):
    """What of a head is trained.

    Attributes:
        weight: E′, ``(partial, dim)``.
        bias: The biases of V′, ``(partial,)``, or None.
        rest_shift: What is added to all other rows, ``(dim,)``, or None.
        rest_bias_shift: What is added to all other biases, ``(1,)``, or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    rest_shift: Tensor | None = None
    rest_bias_shift: Tensor | None = None


def all_logits(
    hidden: Tensor, trained: Trained, whole: Tensor, whole_bias: Tensor | None, lookup: Tensor
) -> Tensor:
    """Multiply hidden states by the whole matrix.

    Args:
        hidden: ``(..., dim)``.
        trained: What gradients go to.
        whole: The same as a whole matrix, ``(full, dim)``, without a gradient.
        whole_bias: The same as whole biases, ``(full,)``, or None.
        lookup: The mapping f, ``(full,)``; -1 outside V′.

    Returns:
        ``(..., full)``, bit for bit what a linear layer over ``whole`` gives.

    Example:
        >>> whole, lookup = torch.randn(3, 2), torch.tensor([-1, 0, -1])
        >>> rows = whole[1:2].clone().requires_grad_()
        >>> all_logits(torch.ones(1, 2), Trained(rows), whole, None, lookup).sum().backward()
        >>> rows.grad
        tensor([[1., 1.]])
    """
    return _apply(hidden, *trained, whole, whole_bias, lookup)


class _AllLogits(torch.autograd.Function):
    """The product with E, of which only E′ and the shifts are trained."""

    @staticmethod
    def forward(  # noqa: PLR0917 - the interface of a Function
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shift: Tensor | None,
        bias_shift: Tensor | None,
        whole: Tensor,
        whole_bias: Tensor | None,
        lookup: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(hidden, whole, lookup)
        ctx.has = (bias is not None, shift is not None, bias_shift is not None)
        ctx.dtype = weight.dtype
        return nn.functional.linear(hidden, whole, whole_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, whole, lookup = ctx.saved_tensors
        has_bias, has_shift, has_bias_shift = ctx.has
        for_hidden = (grad @ whole.to(grad.dtype)).to(hidden.dtype)
        flat = grad.reshape(-1, grad.shape[-1])
        states = hidden.reshape(-1, hidden.shape[-1]).to(flat.dtype)
        used = flat[:, lookup != ABSENT]
        rest = flat[:, lookup == ABSENT].sum(1)
        return (
            for_hidden,
            (used.T @ states).to(ctx.dtype),
            used.sum(0).to(ctx.dtype) if has_bias else None,
            (rest @ states).to(ctx.dtype) if has_shift else None,
            rest.sum().view(1).to(ctx.dtype) if has_bias_shift else None,
            None,
            None,
            None,
        )


_apply = cast("Callable[..., Tensor]", _AllLogits.apply)
