"""What was learned of a table: compared with the obvious way to write it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from subvocab.model.table_rows import TableRows, differences, fingerprint_of

SIZE, DIM = 12, 4
TOKEN_IDS = torch.tensor([2, 3, 7])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Draw numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


BASE = drawn(SIZE, DIM)


def table(
    *, added: bool = False, shift: Tensor | None = None, values: Tensor | None = None
) -> TableRows:
    """Make rows of a table."""
    values = drawn(3, DIM, seed=1) if values is None else values
    dtype, fingerprint = fingerprint_of(BASE)
    return TableRows(("e",), SIZE, TOKEN_IDS, values, added, shift, dtype, fingerprint)


@pytest.mark.parametrize("shift", [None, drawn(DIM, seed=2)], ids=["no shift", "shift"])
@pytest.mark.parametrize("added", [False, True])
def test_applied_is_what_merging_writes(added: bool, shift: Tensor | None) -> None:
    """Learned rows replace or add; all others are shifted."""
    rows = table(added=added, shift=shift)
    expected = BASE.clone()
    for number, token in enumerate(TOKEN_IDS.tolist()):
        expected[token] = rows.values[number] + (BASE[token] if added else 0)
    for token in set(range(SIZE)) - set(TOKEN_IDS.tolist()):
        expected[token] += 0 if shift is None else shift

    whole = rows.applied(torch.arange(SIZE), BASE)
    some = rows.applied(torch.tensor([11, 7, 0]), BASE[[11, 7, 0]])

    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(some, whole[[11, 7, 0]])
    assert torch.equal(BASE, drawn(SIZE, DIM))


def test_touched_ids_are_those_that_change() -> None:
    """All, if there is a shift."""
    assert table().touched_ids.tolist() == [2, 3, 7]
    assert table(shift=torch.ones(DIM)).touched_ids.tolist() == list(range(SIZE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_differences_give_both_back(dtype: torch.dtype) -> None:
    """There and back, to the last bit, over many magnitudes."""
    magnitudes = torch.randint(-4, 3, (500, 8), generator=torch.Generator().manual_seed(2))
    base = (drawn(500, 8) * 10.0**magnitudes).to(dtype)
    scale = base.double().abs() if dtype == torch.float64 else 1  # nothing wider holds more
    learned = (base.double() + drawn(500, 8, seed=1).double() * 1e-3 * scale).to(dtype)

    added = differences(learned, base, "e").double()

    assert torch.equal((base.double() + added).to(dtype), learned)
    assert torch.equal((learned.double() - added).to(dtype), base)


def test_differences_are_kept_as_narrow_as_can_be() -> None:
    """Small steps fit into the dtype of the rows."""
    base = torch.full((2, 2), 1.0, dtype=torch.bfloat16)

    assert differences(base * 1.5, base, "e").dtype == torch.bfloat16
    assert differences(base * 0.001, base, "e").dtype == torch.float32


def test_the_base_is_known_in_a_wider_dtype() -> None:
    """Cast back, it is the matrix that was stored; another one is not."""
    half = BASE.to(torch.bfloat16)
    dtype, fingerprint = fingerprint_of(half)
    rows = TableRows(("e",), SIZE, TOKEN_IDS, drawn(3, DIM), False, None, dtype, fingerprint)

    assert rows.is_base(lambda token_ids: half.float()[token_ids])
    assert not rows.is_base(lambda token_ids: (half.float() + 1)[token_ids])


def test_every_part_counts_in_the_name() -> None:
    """Two adapters that would do different things have different fingerprints."""
    made = [
        table(),
        table(added=True),
        table(shift=torch.ones(DIM)),
        table(shift=torch.zeros(DIM)),
        table(values=drawn(3, DIM, seed=3)),
        table(values=drawn(3, DIM, seed=1).double()),
    ]

    assert len({one.fingerprint for one in made}) == len(made)
    assert table().fingerprint == made[0].fingerprint
