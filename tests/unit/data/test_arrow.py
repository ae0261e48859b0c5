"""Ids come out of every Arrow layout, in order and uncopied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from subvocab.data.arrow import as_array, as_batch, find_row, token_ids
from subvocab.errors import DataError

RAGGED = [[5, 6], None, [], [7], [8, 9, 10]]
LAYOUTS = {
    "list": pa.array(RAGGED, pa.list_(pa.int32())),
    "large_list": pa.array(RAGGED, pa.large_list(pa.int64())),
    "list_view": pa.array(RAGGED, pa.list_view(pa.int16())),
    "sliced": pa.array([[1, 2, 3], *RAGGED, [4]])[1:-1],
    "fixed": pa.array([[5, 6], None, [7, 8], [9, 10]], pa.list_(pa.int32(), 2)),
    "fixed_sliced": pa.array(
        [[1, 2], [5, 6], None, [7, 8], [9, 10], [3, 4]], pa.list_(pa.int8(), 2)
    )[1:-1],
    "nested": pa.array([[[5], [6, 7]], None, [], [[], [8, 9]], [[10]]]),
    "null_ids": pa.array([[5, None, 6], [None], [7, 8], [9, 10]]),
    "flat": pa.array([5, 6, None, 7, 8, 9, 10], pa.uint16()),
    "dictionary": pa.array([5, 6, 7, 8, 9, 10]).dictionary_encode(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_ids_reads_every_layout(layout: str) -> None:
    """The ids of a layout are those a person sees in it."""
    ids = token_ids(LAYOUTS[layout])

    assert ids.tolist() == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_find_row_names_the_row_that_holds_the_id(layout: str) -> None:
    """A position among the ids leads back to the row they came from."""
    array = LAYOUTS[layout]

    rows = [find_row(array, position) for position in range(6)]

    for row, token_id in zip(rows, [5, 6, 7, 8, 9, 10], strict=True):
        assert str(token_id) in str(array[row].as_py())


def test_token_ids_copies_nothing() -> None:
    """Ids of a slice share the memory of the whole buffer."""
    whole = pa.array(np.arange(12, dtype=np.int32))
    rows = pa.ListArray.from_arrays(pa.array([0, 4, 8, 12], pa.int32()), whole)

    ids = token_ids(rows[1:])

    assert np.shares_memory(ids, whole.to_numpy())


def test_token_ids_refuses_what_is_no_integer() -> None:
    """Fractions and texts are no ids."""
    with pytest.raises(DataError, match=r"holds `list<item: double>`, expected integers"):
        token_ids(pa.array([[0.5]]))


def test_token_ids_of_nothing_are_none() -> None:
    """A column of nulls has no type, and no ids."""
    assert token_ids(pa.array([None, None])).size == 0


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2], (3,), None],
        [np.array([1, 2]), [3]],
        np.array([[1, 2, 3]]),
        np.array([1, 2, 3], dtype=np.uint8),
        [np.array([[1, 2]]), np.array([3])],
        [[[1], [2]], [[3]]],
        [[np.array([1]), np.array([2])], [np.array([3])]],
        [np.int32(1), np.int32(2), np.int32(3)],
    ],
)
def test_as_array_takes_rows_of_any_kind(rows: Any) -> None:
    """Lists, tuples, arrays and their mixtures hold the same ids."""
    assert token_ids(as_array(rows)).tolist() == [1, 2, 3]


def test_as_array_takes_tensors() -> None:
    """A tensor of torch, alone or in a list, is an array."""
    import torch  # noqa: PLC0415

    tensor = torch.tensor([[1, 2], [3, 4]])

    assert token_ids(as_array(tensor)).tolist() == [1, 2, 3, 4]
    assert token_ids(as_array([tensor[0], tensor[1]])).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("rows", [[[1], ["a"]], [[2**70]], [[1], 2]])
def test_as_array_refuses_rows_of_no_one_type(rows: Any) -> None:
    """What Arrow cannot hold is an error of ours."""
    with pytest.raises(DataError, match="holds rows of no one type"):
        as_array(rows)


def test_as_batch_refuses_columns_of_different_length() -> None:
    """Every row has every column."""
    with pytest.raises(DataError, match="Columns a, b differ in length"):
        as_batch([("a", [[1]]), ("b", [[1], [2]])])
