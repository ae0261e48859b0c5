"""Tests of what the modules over one table share."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch

from subvocab.model.table import PartialTable
from subvocab.model.tensors import spilled
from subvocab.vocabulary import PartialVocabulary

VOCABULARY = PartialVocabulary(np.array([1, 3, 4]), 6)
MATRIX = torch.arange(12.0).view(6, 2)


class Words:
    """A tokenizer, as far as messages need one."""

    def convert_ids_to_tokens(self, token_ids: list[int]) -> list[str]:
        """Name tokens."""
        return [f"▁word{i}" for i in token_ids]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """Undo that."""
        return [int(token.removeprefix("▁word")) for token in tokens]


class Empty(Words):
    """A tokenizer that knows no word."""

    def convert_ids_to_tokens(self, token_ids: list[int]) -> list[str]:
        """Name nothing."""
        return ["▁word1" for _ in token_ids]


class Broken:
    """A tokenizer of another library."""

    def convert_ids_to_tokens(self, token_ids: list[int]) -> list[str]:
        """Fail."""
        raise OverflowError(token_ids)


def made(tokenizer: object = None, matrix: torch.Tensor = MATRIX) -> PartialTable:
    """Make a table."""
    return PartialTable(VOCABULARY, spilled(matrix), tokenizer)


def test_whole_tensor_puts_the_rows_in_their_places() -> None:
    """E[f⁻¹(j)] = E′[j], all other rows as they were."""
    whole = made().whole_tensor(torch.full((3, 2), -1.0))

    expected = MATRIX.clone()
    expected[[1, 3, 4]] = -1
    assert torch.equal(whole, expected)


def test_whole_tensor_gives_one_tensor_a_state_dict() -> None:
    """Modules that share E′ share E in a state dict."""
    table, weight = made(), torch.zeros(3, 2)
    state: dict[str, Any] = {"count": 3, "other": torch.zeros(6, 2)}

    state["first"] = table.whole_tensor(weight, state)

    assert table.whole_tensor(weight, state) is state["first"]


def test_whole_tensor_tells_weights_apart() -> None:
    """A copy of a module may share the table, but has its own rows."""
    table, weight = made(), torch.zeros(3, 2)

    state = {"first": table.whole_tensor(weight)}

    assert table.whole_tensor(weight + 1, state) is not state["first"]


def test_matrix_as_converts_once() -> None:
    """Every checkpoint after a cast would pay for it else."""
    table = made()

    assert table.matrix_as(torch.float16) is table.matrix_as(torch.float16)
    assert table.matrix_as(torch.float32) is table.matrix


def test_adopt_unused_rows_compares_bits() -> None:
    """NaN equals itself here, and -0 does not equal 0."""
    matrix = MATRIX.clone()
    matrix[0] = torch.tensor([float("nan"), 0.0])
    table = made(matrix=matrix)
    before = table.matrix

    table.adopt_unused_rows(matrix, dtype=torch.float32)
    assert table.matrix is before

    matrix[0, 1] = -0.0
    table.adopt_unused_rows(matrix, dtype=torch.float32)
    assert table.matrix is not before
    assert table.whole_tensor(matrix[[1, 3, 4]])[0, 1].signbit()


def test_put_back_takes_a_shift_out_of_the_rows() -> None:
    """Only where a matrix that was held gives them bit for bit with it."""
    table, shift = made(), torch.tensor([0.1, -0.3])
    before, weight = table.matrix, MATRIX[[1, 3, 4]]

    assert table.adopt_unused_rows(MATRIX + shift, dtype=torch.float32)
    assert table.adopted
    assert not table.put_back(weight, None, shift * 2)
    assert table.put_back(weight, None, shift)

    assert table.matrix is before
    assert not table.adopted


def test_the_first_and_the_latest_matrix_are_kept() -> None:
    """Loading again and again takes no more room on disk."""
    table = made()
    first = table.matrix

    for number in range(1, 5):
        latest = table.matrix
        assert table.adopt_unused_rows(MATRIX + number, dtype=torch.float32)
        assert table.replaced == ((first, latest) if number > 1 else (first,))

    assert table.base is first
    table.return_to_base()
    assert (table.matrix, table.replaced) == (first, ())


@pytest.mark.parametrize(
    ("tokenizer", "token_ids", "said"),
    [
        (None, [5], "1 token id is not in the partial vocabulary of 3: 5."),
        (None, [5, 0, 5], "2 token ids are not in the partial vocabulary of 3: 0, 5."),
        (Words(), [5], "1 token id is not in the partial vocabulary of 3: 5 '▁word5'."),
        (
            Words(),
            [0, 2, 5, 6, 7, 8, 9],
            (
                "7 token ids are not in the partial vocabulary of 3: 0 '▁word0', 2 '▁word2', "
                "5 '▁word5', 6 '▁word6', 7 '▁word7' and 2 more."
            ),
        ),
        (Empty(), [5], "1 token id is not in the partial vocabulary of 3: 5."),
        (Broken(), [5], "1 token id is not in the partial vocabulary of 3: 5."),
        (object(), [5], "1 token id is not in the partial vocabulary of 3: 5."),
        ("/no/such/tokenizer", [5], "1 token id is not in the partial vocabulary of 3: 5."),
    ],
)
def test_out_of_vocabulary_error_names_ids_and_tokens(
    tokenizer: object, token_ids: list[int], said: str
) -> None:
    """A tokenizer helps to read the message; a bad one must not hide it."""
    error = made(tokenizer).out_of_vocabulary_error(torch.tensor(token_ids))

    advice = " Scan every split the model will train on, and what the collator adds."
    assert re.fullmatch(re.escape(said + advice), str(error))
    assert error.token_ids == tuple(sorted(set(token_ids)))


def test_deepcopy_goes_its_own_way() -> None:
    """Loading into a copy of a model leaves the model alone."""
    table = made()
    twin = copy.deepcopy(table)

    twin.adopt_unused_rows(MATRIX + 1, dtype=torch.float32)
    twin.compact = True

    assert not table.compact
    assert torch.equal(table.whole_tensor(MATRIX[[1, 3, 4]]), MATRIX)
