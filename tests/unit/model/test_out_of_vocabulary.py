"""Tests of the look-up f on tensors."""

from __future__ import annotations

import re

import pytest
import torch

from subvocab.errors import OutOfVocabularyError
from subvocab.model.out_of_vocabulary import checked_partial_ids, partial_ids_or_absent

LOOKUP = torch.tensor([0, -1, 1, 2, -1], dtype=torch.int32)


def test_partial_ids_or_absent_applies_f() -> None:
    """Any shape in, the same shape out."""
    partial_ids, absent = partial_ids_or_absent(torch.tensor([[3, 0], [2, 2]]), LOOKUP)

    assert partial_ids.tolist() == [[2, 0], [1, 1]]
    assert absent is None


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1, 1)])
def test_partial_ids_or_absent_keeps_odd_shapes(shape: tuple[int, ...]) -> None:
    """A scalar and an empty batch are ids too."""
    partial_ids, absent = partial_ids_or_absent(torch.full(shape, 3), LOOKUP)

    assert partial_ids.shape == shape
    assert (partial_ids == 2).all()
    assert absent is None


def test_partial_ids_or_absent_takes_strided_ids() -> None:
    """A transposed batch is no contiguous one."""
    partial_ids, _ = partial_ids_or_absent(torch.tensor([[3, 0], [2, 2]]).T, LOOKUP)

    assert partial_ids.tolist() == [[2, 1], [0, 1]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_partial_ids_or_absent_takes_both_widths(dtype: torch.dtype) -> None:
    """`nn.Embedding` takes both."""
    partial_ids, _ = partial_ids_or_absent(torch.tensor([3], dtype=dtype), LOOKUP)

    assert partial_ids.tolist() == [2]


def test_partial_ids_or_absent_marks_what_is_absent() -> None:
    """Nothing is raised: what to do about it is the caller's business."""
    partial_ids, absent = partial_ids_or_absent(torch.tensor([0, 1, 4]), LOOKUP)

    assert partial_ids.tolist() == [0, -1, -1]
    assert absent is not None
    assert absent.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("token_ids", "named"), [([-1], "-1"), ([5], "5"), ([-100, 2, 9], "-100, 9")]
)
@pytest.mark.parametrize("function", [partial_ids_or_absent, checked_partial_ids])
def test_ids_that_are_no_tokens_are_refused(
    function: object, token_ids: list[int], named: str
) -> None:
    """A negative id must not count from the end."""
    message = (
        f"Token ids {named} lie outside the vocabulary of 5. Was the text encoded with another "
        "model's tokenizer, or are labels being looked up?"
    )
    assert callable(function)

    with pytest.raises(OutOfVocabularyError, match=f"^{re.escape(message)}$") as caught:
        function(torch.tensor(token_ids), LOOKUP)

    assert caught.value.token_ids == tuple(i for i in token_ids if i != 2)


def test_checked_partial_ids_applies_f() -> None:
    """The operator for compiled graphs gives what the plain function gives."""
    ids = torch.tensor([[3, 0], [2, 2]])

    assert checked_partial_ids(ids, LOOKUP).tolist() == [[2, 0], [1, 1]]


@pytest.mark.parametrize(
    ("token_ids", "start"), [([1, 1, 0], "1 token id is not"), ([4, 1], "2 token ids are not")]
)
def test_checked_partial_ids_refuses_absent_ids(token_ids: list[int], start: str) -> None:
    """A compiled graph cannot read rows from disk."""
    named = ", ".join(map(str, sorted({i for i in token_ids if i})))
    message = (
        f"{start} in the partial vocabulary of this compiled model: {named}. Scan every split the "
        "model will train on; to evaluate on other text, call the model without `torch.compile`."
    )

    with pytest.raises(OutOfVocabularyError, match=f"^{re.escape(message)}$"):
        checked_partial_ids(torch.tensor(token_ids), LOOKUP)


def test_checked_partial_ids_is_a_proper_operator() -> None:
    """Its fake gives the shapes, strides and dtypes that it gives."""
    torch.library.opcheck(checked_partial_ids, (torch.tensor([[3, 0], [2, 2]]).T, LOOKUP))
