"""Tests of the rest column: a log-sum-exp in parts, and its gradient in the same pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from subvocab.model.rest import (
    FEWEST_ROWS,
    MOST_ROWS,
    RestStatistics,
    Transform,
    rest_column,
    rows_per_tile,
)

TOKENS, ROWS, DIM = 7, 101, 16
TRANSFORMS = [
    Transform(),
    Transform(scale=0.3),
    Transform(cap=5.0),
    Transform(scale=2.0, cap=5.0),
]


def drawn(dtype: torch.dtype = torch.float64, spread: float = 1.0) -> dict[str, Tensor]:
    """Draw hidden states, rows, biases and a shift."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    return {
        "hidden": draw(TOKENS, DIM).requires_grad_(),
        "shift": draw(TOKENS).requires_grad_(),
        "rows": draw(ROWS, DIM),
        "bias": draw(ROWS),
    }


@pytest.mark.parametrize("size", [1, 10, 101, 1000])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_rest_column_is_a_log_sum_exp(transform: Transform, size: int) -> None:
    """Value and gradients, however the rows are divided."""
    given = drawn()
    parts = zip(given["rows"].split(size), given["bias"].split(size), strict=True)
    leaves = (given["hidden"], given["shift"])

    column = rest_column(given["hidden"], parts, shift=given["shift"], transform=transform)

    logits = given["hidden"] @ given["rows"].T + given["bias"] + given["shift"][:, None]
    expected = transform(logits).logsumexp(dim=1)
    weights = torch.linspace(-1, 1, TOKENS, dtype=torch.float64)
    torch.testing.assert_close(column, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(column, leaves, weights),
        torch.autograd.grad(expected, leaves, weights),
        rtol=1e-10,
        atol=1e-12,
    )


def test_rest_column_needs_no_biases_and_no_shift() -> None:
    """As in most models."""
    given = drawn()

    column = rest_column(given["hidden"], [(given["rows"], None)])

    expected = (given["hidden"] @ given["rows"].T).logsumexp(dim=1)
    torch.testing.assert_close(column, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 10, 1000])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_statistics_are_those_of_all_logits(transform: Transform, size: int) -> None:
    """However the rows are divided; and the column stays as it is without them."""
    given = drawn()
    parts = list(zip(given["rows"].split(size), given["bias"].split(size), strict=True))
    statistics = RestStatistics()

    column = rest_column(
        given["hidden"], parts, shift=given["shift"], transform=transform, statistics=statistics
    )

    logits = given["hidden"] @ given["rows"].T + given["bias"] + given["shift"][:, None]
    logits = transform(logits.detach())
    expected = {
        "highest": logits.amax(1),
        "highest_row": logits.argmax(1),
        "total": logits.sum(1),
        "mean": (logits.softmax(1) * logits).sum(1),
        "log_squares": (2 * logits).logsumexp(1),
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(statistics, name), value, rtol=1e-10, atol=1e-10)
    assert statistics.rows == ROWS
    without = rest_column(given["hidden"], parts, shift=given["shift"], transform=transform)
    assert torch.equal(column, without)


def test_of_several_highest_logits_the_first_counts() -> None:
    """In one part of the rows, and in another."""
    rows = torch.tensor([[1.0], [2.0], [2.0], [0.0], [2.0]])
    statistics = RestStatistics()

    rest_column(torch.ones(1, 1), [(part, None) for part in rows.split(3)], statistics=statistics)

    assert statistics.highest_row.tolist() == [1]


def test_rest_column_does_not_overflow() -> None:
    """Logits of thousands; a sum of their exponentials is infinite."""
    given = drawn(torch.float32, spread=40)

    column = rest_column(given["hidden"], [(part, None) for part in given["rows"].split(9)])

    expected = (given["hidden"].double() @ given["rows"].double().T).logsumexp(dim=1)
    torch.testing.assert_close(column.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rest_column_sums_in_single_precision(dtype: torch.dtype) -> None:
    """The sum of 20,000 alike: in half precision it would stop growing after a few hundred."""
    hidden = torch.zeros(2, DIM, dtype=dtype, requires_grad=True)
    parts = [(torch.ones(200, DIM, dtype=dtype), None)] * 100

    column = rest_column(hidden, parts)
    column.sum().backward()

    assert column.dtype == torch.float32
    torch.testing.assert_close(column, torch.full((2,), 20_000.0).log(), rtol=1e-6, atol=0)
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, torch.ones(2, DIM, dtype=dtype), rtol=1e-2, atol=0)


def test_rest_column_computes_no_mean_without_gradients() -> None:
    """Half the work."""
    given = drawn()

    with torch.no_grad():
        column = rest_column(given["hidden"], [(given["rows"], None)])

    assert column.grad_fn is None


@pytest.mark.parametrize(
    ("tokens", "device", "rows"),
    [
        (1, "cpu", MOST_ROWS),
        (512, "cpu", 4096),
        (10**6, "cpu", FEWEST_ROWS),
        (4096, "cuda", 8192),
        (0, "cpu", MOST_ROWS),
    ],
)
def test_rows_per_tile_is_bounded(tokens: int, device: str, rows: int) -> None:
    """Neither so few that a product is slow, nor so many that they are the whole matrix."""
    assert rows_per_tile(tokens, torch.device(device)) == rows
