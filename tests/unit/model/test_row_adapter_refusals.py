"""What a row adapter cannot do is refused before a row is touched."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import transformers as hf

import subvocab as sv
from subvocab.model.row_adapter import RowAdapter
from tests.models import tiny_model
from tests.unit.model.row_adapters import BASE, MATRIX, VOCABULARY, matrix_of


def test_another_base_is_refused(learned: dict[str, RowAdapter]) -> None:
    """By fingerprint, before a row is touched."""
    other = tiny_model("bert", seed=1)
    before = matrix_of(other)

    with pytest.raises(sv.VocabularyMismatchError) as caught:
        learned["low"].apply(other)

    assert str(caught.value) == (
        f"`{MATRIX}` of `BertForSequenceClassification` is not the matrix that the adapter was "
        "learned from. Load the model that training began from; if another adapter was merged "
        "into its file, or it was cast to a narrower dtype, pass `check=False`."
    )
    assert torch.equal(matrix_of(other), before)


def test_another_family_is_refused(learned: dict[str, RowAdapter]) -> None:
    """There is nowhere to put the rows."""
    with pytest.raises(sv.VocabularyMismatchError) as caught:
        learned["low"].apply(tiny_model("albert"))

    assert str(caught.value) == (
        f"`AlbertForSequenceClassification` has no matrices that may be `{MATRIX}`, of 300 rows of "
        "32 numbers, expected one. Apply the adapter to the model that training began from."
    )


def test_a_model_with_a_merged_adapter_is_taken_on_request(
    added: dict[str, RowAdapter], tmp_path: Path
) -> None:
    """Only the user knows that it was the base before."""
    model = tiny_model("bert")
    added["low"].apply(model)
    model.save_pretrained(tmp_path)
    expected = copy.deepcopy(model)
    added["high"].apply(expected)
    again = hf.BertForSequenceClassification.from_pretrained(tmp_path)

    with pytest.raises(sv.VocabularyMismatchError, match="check=False"):
        added["high"].apply(again)
    added["high"].apply(again, check=False)

    assert torch.equal(matrix_of(again), matrix_of(expected))


def test_differences_are_subtracted_from_a_saved_model(
    added: dict[str, RowAdapter], learned: dict[str, RowAdapter], tmp_path: Path
) -> None:
    """The base comes out to the last bit; learned rows tell nothing of it."""
    model = tiny_model("bert")
    added["low"].apply(model)
    model.save_pretrained(tmp_path)
    one, other = (hf.BertForSequenceClassification.from_pretrained(tmp_path) for _ in range(2))

    added["low"].remove(one)

    assert torch.equal(matrix_of(one), BASE)
    with pytest.raises(sv.UnsupportedModelError, match="Load the base anew"):
        learned["low"].remove(other)


@pytest.mark.parametrize("change", ["never applied", "trained since", "another applied"])
def test_what_is_not_there_is_not_taken_out(
    change: str, learned: dict[str, RowAdapter], added: dict[str, RowAdapter]
) -> None:
    """Rows that were trained since would be lost."""
    model = tiny_model("bert")
    if change == "trained since":
        added["low"].apply(model)
        with torch.no_grad():
            model.get_input_embeddings().weight[7] += 1
    elif change == "another applied":
        learned["high"].apply(model)
    before = matrix_of(model)

    with pytest.raises(sv.UnsupportedModelError) as caught:
        added["low"].remove(model)

    assert str(caught.value) == (
        f"The rows of `{MATRIX}` are not those of the base with this adapter applied: it never "
        "was, or they were trained or loaded since. Load the base anew, and apply what shall stay."
    )
    assert torch.equal(matrix_of(model), before)


def test_a_whole_model_has_no_learned_rows() -> None:
    """Which of its rows were learned is not known."""
    with pytest.raises(sv.UnsupportedModelError) as caught:
        RowAdapter.of(tiny_model("bert"))

    assert str(caught.value) == (
        "`BertForSequenceClassification` is not shrunk, so which of its rows were learned is not "
        "known. Take the adapter before `subvocab.restore`."
    )


def test_numbers_that_no_difference_gives_back_are_refused() -> None:
    """A number that shrank to nothing beside what it was."""
    model = tiny_model("bert")
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(1.0)
    sv.shrink(model, VOCABULARY)
    with torch.no_grad():
        model.get_input_embeddings().weight[3] = 1.2345e-20

    with pytest.raises(sv.UnsupportedModelError) as caught:
        RowAdapter.of(model, differences=True)

    assert str(caught.value) == (
        f"1 rows of `{MATRIX}` differ so much from the base that no difference gives them back to "
        "the last bit. Keep the learned rows: `RowAdapter.of(model)`."
    )
