"""A row adapter makes the merged model of any copy of the base, and the base of that again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

import subvocab as sv
from subvocab.model.row_adapter import RowAdapter
from tests.models import (
    LANGUAGE_MODELS,
    language_batch,
    random_batch,
    tiny_language_model,
    tiny_model,
)
from tests.reference import assert_equal_states, copied, ids_of
from tests.unit.model.row_adapters import (
    BASE,
    EVERY_ID,
    MATRIX,
    OTHER,
    VOCABULARY,
    matrix_of,
    rows_trained,
)

# --- one adapter


@pytest.mark.parametrize("differences", [False, True], ids=["rows", "differences"])
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_applying_gives_the_merged_model(name: str, differences: bool, tmp_path: Path) -> None:
    """Every table, bias and shift; on a whole copy, on one shrunk otherwise, and on disk."""
    model = tiny_language_model(name)
    sv.shrink(model, VOCABULARY)
    used = ids_of(VOCABULARY)
    rows_trained(model, [language_batch(name, used, seed=step) for step in range(2)])
    expected = copied(model.state_dict())
    whole, small = tiny_language_model(name), tiny_language_model(name)
    before = copied(whole.state_dict())
    sv.shrink(small, OTHER)
    whole.save_pretrained(tmp_path / "base")
    RowAdapter.of(model, differences=differences).save(tmp_path / "rows.safetensors")

    adapter = RowAdapter.load(tmp_path / "rows.safetensors")
    adapter.apply(whole)
    adapter.apply(small)
    adapter.merge(tmp_path / "base", tmp_path / "merged", progress=False)

    assert_equal_states(whole.state_dict(), expected)
    assert_equal_states(copied(small.state_dict()), expected)
    merged = type(tiny_language_model(name)).from_pretrained(tmp_path / "merged")
    assert_equal_states(merged.state_dict(), expected)
    adapter.remove(whole)
    adapter.remove(small)
    assert_equal_states(whole.state_dict(), before)
    assert_equal_states(copied(small.state_dict()), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("differences", [False, True], ids=["rows", "differences"])
def test_every_dtype_comes_out_bit_for_bit(dtype: torch.dtype, differences: bool) -> None:
    """Learned rows are bytes; differences are kept in a dtype that gives them back."""
    model, whole = (tiny_model("bert").to(dtype) for _ in range(2))
    before = copied(whole.state_dict())
    sv.shrink(model, VOCABULARY)
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        torch.manual_seed(0)
        weight.add_(torch.randn_like(weight) * 1e-3)

    adapter = RowAdapter.of(model, differences=differences)
    adapter.apply(whole)

    assert_equal_states(whole.state_dict(), copied(model.state_dict()))
    adapter.remove(whole)
    assert_equal_states(whole.state_dict(), before)


def test_the_parameter_stays_the_same_object(learned: dict[str, RowAdapter]) -> None:
    """So that optimizers and ties hold."""
    model = tiny_model("t5")
    sv.shrink(model, VOCABULARY)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    whole, other = tiny_model("t5"), tiny_model("bert")
    shared = whole.transformer.shared
    parameters = [shared.weight, other.get_input_embeddings().weight]

    RowAdapter.of(model).apply(whole)
    learned["low"].apply(other)

    assert shared.weight is whole.transformer.encoder.embed_tokens.weight is parameters[0]
    assert other.get_input_embeddings().weight is parameters[1]
    assert parameters[1].requires_grad
    assert not vars(parameters[1])


def test_a_shrunk_model_evaluates_what_was_applied(
    models: dict[str, Any], learned: dict[str, RowAdapter]
) -> None:
    """Rows in memory and rows on disk alike; after restoring too."""
    model = tiny_model("bert")
    sv.shrink(model, OTHER)
    batch = random_batch(model, EVERY_ID)

    learned["middle"].apply(model)

    with torch.no_grad():
        expected = models["middle"](**batch).logits
        assert torch.equal(model.eval()(**batch).logits, expected)
        assert torch.equal(sv.restore(model)(**batch).logits, expected)


def test_a_model_without_the_head_takes_the_rows(
    models: dict[str, Any], learned: dict[str, RowAdapter], tmp_path: Path
) -> None:
    """The matrix has a shorter name there."""
    tiny_model("bert").save_pretrained(tmp_path)
    body = hf.BertModel.from_pretrained(tmp_path)

    learned["low"].apply(body)

    assert torch.equal(body.get_input_embeddings().weight, matrix_of(models["low"]))


def test_a_matrix_of_another_name_is_found_by_its_rows(
    models: dict[str, Any], learned: dict[str, RowAdapter]
) -> None:
    """As in a program's own model."""
    table = nn.Embedding.from_pretrained(BASE.clone())
    model = nn.Sequential(table, nn.Linear(32, 2))

    learned["low"].apply(model)

    assert torch.equal(table.weight, matrix_of(models["low"]))


# --- on disk


def test_merging_copies_the_rest_of_the_base(
    models: dict[str, Any], learned: dict[str, RowAdapter], tmp_path: Path
) -> None:
    """Config and all; in shards too."""
    tiny_model("bert").save_pretrained(tmp_path / "base", max_shard_size="20KB")
    (tmp_path / "base" / "notes.txt").write_text("kept", encoding="utf-8")

    out = learned["low"].merge(tmp_path / "base", tmp_path / "out", progress=False)

    merged = hf.BertForSequenceClassification.from_pretrained(out)
    assert_equal_states(merged.state_dict(), copied(models["low"].state_dict()))
    assert (out / "notes.txt").read_text(encoding="utf-8") == "kept"
    assert len(list(out.glob("*.safetensors"))) > 1


def test_merging_into_another_base_is_refused(
    learned: dict[str, RowAdapter], tmp_path: Path
) -> None:
    """By content, whatever the matrix is called."""
    tiny_model("bert", seed=1).save_pretrained(tmp_path / "base")

    with pytest.raises(sv.VocabularyMismatchError) as caught:
        learned["low"].merge(tmp_path / "base", tmp_path / "out", progress=False)

    assert str(caught.value) == (
        f"No matrix in {tmp_path / 'base'} is `{MATRIX}` as the adapter was learned from it; of "
        f"its size there: `{MATRIX}`. Give as base the very model that training began from."
    )
    assert not (tmp_path / "out").exists()


def test_a_base_stored_in_another_dtype_is_known(tmp_path: Path) -> None:
    """Rows learned in single precision of a matrix stored in half of it."""
    base = tiny_model("bert").to(torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    model = sv.from_pretrained(
        hf.AutoModelForSequenceClassification, tmp_path / "base", VOCABULARY, dtype=torch.float32
    )
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.25)
    adapter = RowAdapter.of(model)
    whole = hf.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", dtype=torch.float32
    )

    adapter.apply(whole)
    adapter.merge(tmp_path / "base", tmp_path / "out", progress=False)

    assert_equal_states(whole.state_dict(), copied(model.state_dict()))
    merged = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(matrix_of(merged), matrix_of(model).to(torch.bfloat16))


# --- the file


def test_a_file_gives_back_what_was_saved(
    learned: dict[str, RowAdapter], added: dict[str, RowAdapter], tmp_path: Path
) -> None:
    """And it is small."""
    for number, adapter in enumerate((learned["low"], added["low"])):
        path = tmp_path / f"{number}.safetensors"
        adapter.save(path)

        again = RowAdapter.load(path)

        assert again.fingerprint == adapter.fingerprint
        assert repr(again) == repr(adapter)
        assert path.stat().st_size < 56 * (8 + 32 * 8) + 1500
    assert len({adapter.fingerprint for adapter in (*learned.values(), *added.values())}) == 6


def test_an_adapter_says_what_it_holds(learned: dict[str, RowAdapter]) -> None:
    """In a line."""
    assert repr(learned["low"]) == (
        f"RowAdapter(56 rows of `{MATRIX}`; fingerprint {learned['low'].fingerprint[:12]})"
    )
