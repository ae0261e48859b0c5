"""Several row adapters on one model: differences add up, and come out in any order."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import subvocab as sv
from subvocab.model.row_adapter import RowAdapter
from tests.models import language_batch, tiny_language_model, tiny_model
from tests.reference import assert_equal_states, copied, ids_of
from tests.unit.model.row_adapters import BASE, MATRIX, OTHER, VOCABULARY, matrix_of, rows_trained


def test_differences_are_stacked_and_taken_out_in_any_order(
    models: dict[str, Any], added: dict[str, RowAdapter]
) -> None:
    """What stays is as if the others had never been there, to the last bit."""
    model, expected = tiny_model("bert"), tiny_model("bert")

    for name in ("low", "middle", "high"):
        added[name].apply(model)
    added["low"].remove(model)

    for name in ("middle", "high"):
        added[name].apply(expected)
    assert torch.equal(matrix_of(model), matrix_of(expected))
    added["high"].remove(model)
    assert torch.equal(matrix_of(model), matrix_of(models["middle"]))
    added["middle"].remove(model)
    assert torch.equal(matrix_of(model), BASE)


def test_stacked_differences_add_up(added: dict[str, RowAdapter]) -> None:
    """Where two were learned, the row moves by both."""
    model = tiny_model("bert")

    added["low"].apply(model)
    added["middle"].apply(model)

    both = [added[name].tables[MATRIX] for name in ("low", "middle")]
    moved = sum(t.values[t.token_ids == 50].double() for t in both)
    torch.testing.assert_close(matrix_of(model)[50].double(), (BASE[50].double() + moved)[0])


def test_learned_rows_of_other_tokens_are_stacked(
    models: dict[str, Any], learned: dict[str, RowAdapter]
) -> None:
    """Token 0 is in both, but the same in both."""
    model = tiny_model("bert")

    learned["low"].apply(model)
    learned["high"].apply(model)

    stacked = matrix_of(models["low"])
    stacked[100:160] = matrix_of(models["high"])[100:160]
    assert torch.equal(matrix_of(model), stacked)
    learned["low"].remove(model)
    assert torch.equal(matrix_of(model), matrix_of(models["high"]))


def test_learned_rows_do_not_add_up(
    learned: dict[str, RowAdapter], added: dict[str, RowAdapter]
) -> None:
    """The later would undo the earlier: refused, and nothing is touched."""
    model = tiny_model("bert")
    learned["middle"].apply(model)
    before = matrix_of(model)

    for adapter in (learned["low"], added["low"]):
        with pytest.raises(sv.UnsupportedModelError) as caught:
            adapter.apply(model)
        count, message = str(caught.value).split(" ", 1)
        assert 0 < int(count) <= 20
        assert message == (
            f"rows of `{MATRIX}` are changed by another adapter that is applied, and learned rows "
            "do not add up. Remove that one first, or save both as differences: "
            "`RowAdapter.of(model, differences=True)`."
        )
    assert torch.equal(matrix_of(model), before)


def test_a_shift_of_all_rows_is_stacked_with_differences_alone() -> None:
    """It moves what the other one learned."""
    adapters = {}
    for kept in (False, True):
        for vocabulary in (VOCABULARY, OTHER):
            model = tiny_language_model("gpt2")
            sv.shrink(model, vocabulary)
            rows_trained(model, [language_batch("gpt2", ids_of(vocabulary))])
            adapters[kept, len(vocabulary)] = RowAdapter.of(model, differences=kept)
    whole = tiny_language_model("gpt2")
    before = copied(whole.state_dict())
    (first, second, *added) = adapters.values()

    first.apply(whole)
    with pytest.raises(sv.UnsupportedModelError, match=r"rows of .* are changed by another"):
        second.apply(whole)
    first.remove(whole)
    for adapter in added:
        adapter.apply(whole)
    for adapter in added:
        adapter.remove(whole)

    assert_equal_states(whole.state_dict(), before)


def test_an_adapter_is_applied_once(added: dict[str, RowAdapter]) -> None:
    """Twice would add it twice."""
    model = tiny_model("bert")
    added["low"].apply(model)

    with pytest.raises(sv.UnsupportedModelError) as caught:
        added["low"].apply(model)

    assert str(caught.value) == (
        f"The adapter's rows of `{MATRIX}` are applied already. Call `remove` first."
    )


def test_what_was_applied_outlasts_copies_and_shrinking(
    added: dict[str, RowAdapter], learned: dict[str, RowAdapter]
) -> None:
    """The record goes with the module."""
    model = tiny_model("bert")
    added["low"].apply(model)
    twin, other = copy.deepcopy(model), pickle.loads(pickle.dumps(model))  # noqa: S301 - just written
    sv.shrink(model, OTHER)

    for one in (other, twin, model):  # a pickle needs the file of the one it was made from
        added["low"].remove(one)
        assert torch.equal(matrix_of(one), BASE)
        learned["high"].apply(one)
    sv.restore(model)
    learned["high"].remove(model)
    assert torch.equal(matrix_of(model), BASE)
