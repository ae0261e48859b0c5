"""Bytes that optimizers hold, by the shape of what they train: state, and what a step needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

FULL_BYTES = 4
"""Of a number that is kept in fp32 whatever the weight's dtype."""

FIXED_MOMENTS = {"sgd": 0, "momentum": 1, "adamw": 2}
"""Moments that have the weight's own shape and dtype, as torch keeps them."""

SMALLEST_8BIT = 4096
BLOCK = 256


def state_bytes(
    optimizer: str, shape: tuple[int, ...], weight_bytes: int, *, looked_up: bool = False
) -> int:
    """Give the bytes of an optimizer's state for one weight.

    Args:
        optimizer: One of `subvocab.analysis.savings.OPTIMIZERS`.
        shape: The weight's.
        weight_bytes: Bytes a number of it.
        looked_up: Whether an ``nn.Embedding`` holds it.

    Returns:
        The bytes, without single numbers such as the count of steps.

    Source:
        Moments in 8 bits: one byte a number and one fp32 maximum a block of 256; tensors
        of fewer than 4,096 numbers stay in fp32, and so do embeddings, as the Trainer of
        transformers tells bitsandbytes. Adafactor (the one in transformers, as its
        Trainer sets it, without a first moment): rows and columns of what has two
        dimensions or more, in fp32.

    Example:
        >>> state_bytes("adamw", (100, 64), 4), state_bytes("adafactor", (100, 64), 4)
        (51200, 656)
        >>> state_bytes("adamw-8bit", (100, 64), 4)
        13000
    """
    numbers = math.prod(shape)
    if optimizer == "adafactor":
        rows, columns = shape[:-1], shape[:-2] + shape[-1:]
        factored = math.prod(rows) + math.prod(columns)
        return FULL_BYTES * (factored if len(shape) > 1 else numbers)
    if optimizer == "adamw-8bit":
        if looked_up or numbers < SMALLEST_8BIT:
            return 2 * FULL_BYTES * numbers
        return 2 * (numbers + FULL_BYTES * math.ceil(numbers / BLOCK))
    return FIXED_MOMENTS[optimizer] * weight_bytes * numbers


def step_bytes(optimizer: str, sizes: Sequence[int], weight_bytes: int) -> int:
    """Give what an optimizer's step holds for a moment, beyond its state.

    Only Adafactor holds much: an update as large as the weight and one more of its size
    while it is computed, and the update of the weight before; where weights are not
    fp32, the weight and its gradient in fp32 too.

    Args:
        optimizer: One of `subvocab.analysis.savings.OPTIMIZERS`.
        sizes: Numbers in each weight, in the order they are trained in.
        weight_bytes: Bytes a number of the weights.

    Returns:
        The bytes at most; zero for those that compute in place.

    Example:
        >>> step_bytes("adafactor", [1000, 10], 4), step_bytes("adamw", [1000, 10], 4)
        (8000, 0)
    """
    if optimizer != "adafactor":
        return 0
    copies = 2 if weight_bytes == FULL_BYTES else 4
    before = (0, *sizes[:-1])
    return FULL_BYTES * max(
        (earlier + copies * size for earlier, size in zip(before, sizes, strict=True)), default=0
    )
