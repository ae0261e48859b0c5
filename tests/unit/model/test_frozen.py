"""Tests of the rows outside V′: wherever they stay, they are the same."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from subvocab.model.frozen import FrozenRows, RestDevice
from subvocab.model.table import PartialTable
from subvocab.model.tensors import spilled
from subvocab.vocabulary.partial import ABSENT
from tests.models import FULL_VOCAB_SIZE
from tests.reference import drawn_vocabulary

VOCABULARY = drawn_vocabulary()
MATRIX = torch.randn(FULL_VOCAB_SIZE, 8, generator=torch.Generator().manual_seed(0))
UNUSED = torch.tensor(VOCABULARY.lookup == ABSENT)


def made(place: RestDevice = None) -> FrozenRows:
    """Put the matrix on disk."""
    return FrozenRows(PartialTable(VOCABULARY, spilled(MATRIX)), place)


def pickled(frozen: FrozenRows) -> FrozenRows:
    """Send it through a file."""
    return pickle.loads(pickle.dumps(frozen))  # type: ignore[no-any-return]  # noqa: S301 - our own


def gathered(frozen: FrozenRows, rows: int, *, like: Tensor = MATRIX) -> Tensor:
    """Read all parts."""
    return torch.cat([part for part, _ in frozen.chunks(rows, None, like=like)])


def test_a_copy_holds_the_rows_no_second_time() -> None:
    """As the reference of a preference loss is one; but another dtype or matrix is another."""
    table = PartialTable(VOCABULARY, spilled(MATRIX))
    frozen, twin = FrozenRows(table), FrozenRows(copy.deepcopy(table))
    other = FrozenRows(PartialTable(VOCABULARY, spilled(MATRIX)))

    ours, theirs = (next(one.chunks(1000, None, like=MATRIX))[0] for one in (frozen, twin))
    apart = next(other.chunks(1000, None, like=MATRIX))[0]
    half = next(twin.chunks(1000, None, like=MATRIX.half()))[0]

    assert ours.data_ptr() == theirs.data_ptr() != apart.data_ptr()
    assert torch.equal(half, ours.half())
    assert torch.equal(next(frozen.chunks(1000, None, like=MATRIX))[0], MATRIX[UNUSED])


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("place", [None, "cpu", "disk"])
def test_chunks_gives_the_rows_in_order(place: RestDevice, rows: int) -> None:
    """However many at a time."""
    assert torch.equal(gathered(made(place), rows), MATRIX[UNUSED])
    assert len(made(place)) == int(UNUSED.sum())


@pytest.mark.parametrize("place", [None, "cpu", "disk"])
def test_chunks_casts_as_loading_would(place: RestDevice) -> None:
    """A model in half precision over a base in single."""
    like = MATRIX.to(torch.bfloat16)

    assert torch.equal(gathered(made(place), 50, like=like), like[UNUSED])


@pytest.mark.parametrize("place", [None, "disk"])
def test_chunks_divides_biases_alike(place: RestDevice) -> None:
    """One number a row."""
    bias = torch.arange(int(UNUSED.sum()), dtype=torch.float32)

    parts = list(made(place).chunks(64, bias, like=MATRIX))

    assert all(b is not None and len(b) == len(rows) for rows, b in parts)
    assert torch.equal(torch.cat([b for _, b in parts if b is not None]), bias)


def test_chunks_reads_the_disk_once_only() -> None:
    """Each step multiplies by the same rows."""
    frozen = made()
    first = next(frozen.chunks(1000, None, like=MATRIX))[0]

    assert next(frozen.chunks(1000, None, like=MATRIX))[0].data_ptr() == first.data_ptr()


def test_chunks_notices_another_matrix() -> None:
    """A state dict was loaded whose unused rows differ."""
    frozen = made()
    gathered(frozen, 100)

    assert frozen.table.adopt_unused_rows(MATRIX + 1, dtype=torch.float32)

    assert torch.equal(gathered(frozen, 100), (MATRIX + 1)[UNUSED])


def test_fill_gives_the_whole_matrix() -> None:
    """For evaluation; with what training added."""
    shift = torch.arange(8.0)
    whole = torch.empty_like(MATRIX)

    made().fill(whole, shift)
    assert torch.equal(whole, MATRIX + shift)

    made("disk").fill(whole, None)
    assert torch.equal(whole, MATRIX)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_leave_the_rows_behind(copied: Callable[[FrozenRows], FrozenRows]) -> None:
    """They are read again where they are needed."""
    frozen = made()
    gathered(frozen, 100)
    before = len(pickle.dumps(frozen))

    twin = copied(frozen)

    assert twin._rows is None
    assert torch.equal(gathered(twin, 100), MATRIX[UNUSED])
    assert len(pickle.dumps(frozen)) == before
