"""A row adapter makes the merged model of any copy of the base, and the base of that again."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import subvocab as sv
from subvocab.model.partial import PartialModule
from subvocab.model.row_adapter import RowAdapter
from tests.models import (
    FULL_VOCAB_SIZE,
    LANGUAGE_MODELS,
    language_batch,
    random_batch,
    tiny_language_model,
    tiny_model,
)
from tests.reference import assert_equal_states, copied, drawn_vocabulary, ids_of, train

VOCABULARY = drawn_vocabulary()
OTHER = drawn_vocabulary(60, seed=5)
EVERY_ID = torch.arange(FULL_VOCAB_SIZE)
MATRIX = "bert.embeddings.word_embeddings.weight"


def classifier(first: int, last: int, *, seed: int = 0) -> Any:
    """Train only the rows of some tokens of a classifier."""
    vocabulary = sv.PartialVocabulary(np.array([0, *range(first, last)]), FULL_VOCAB_SIZE)
    model = tiny_model("bert")
    sv.shrink(model, vocabulary)
    return rows_trained(
        model, [random_batch(model, ids_of(vocabulary), seed=seed + step) for step in range(3)]
    )


def rows_trained(model: Any, batches: list[dict[str, Tensor]]) -> Any:
    """Train what belongs to V′, and nothing else."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, PartialModule):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)
    train(model, batches, lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0))
    return model.eval()


def matrix_of(model: Any) -> Tensor:
    """Copy the whole matrix of a model."""
    value = model.state_dict()[MATRIX]
    assert isinstance(value, Tensor)
    return value.clone()


BASE = matrix_of(tiny_model("bert"))


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Give three trainings: of low, high and middling tokens."""
    ranges = {"low": (5, 60), "high": (100, 160), "middle": (40, 120)}
    return {name: classifier(*ids, seed=10 * ids[0]) for name, ids in ranges.items()}


@pytest.fixture(scope="module")
def learned(models: dict[str, Any]) -> dict[str, RowAdapter]:
    """Give their learned rows."""
    return {name: RowAdapter.of(model) for name, model in models.items()}


@pytest.fixture(scope="module")
def added(models: dict[str, Any]) -> dict[str, RowAdapter]:
    """Give their differences to the base."""
    return {name: RowAdapter.of(model, differences=True) for name, model in models.items()}


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


# --- several


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


# --- what cannot be done


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


# --- beside PEFT


def lora(**options: Any) -> peft.LoraConfig:
    """Put LoRA on the attention of a classifier."""
    return peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], **options)


@pytest.mark.parametrize("order", ["rows first", "LoRA first"])
def test_rows_and_lora_together_are_the_trained_model(order: str, tmp_path: Path) -> None:
    """Each in a small file of its own, on the whole base: the same logits, bit for bit."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)
    torch.manual_seed(0)
    trained: Any = peft.get_peft_model(model, lora())
    trained.get_input_embeddings().weight.requires_grad_(True)
    train(trained, [random_batch(model, ids_of(VOCABULARY), seed=step) for step in range(3)])
    trained.save_pretrained(tmp_path)
    RowAdapter.of(trained).save(tmp_path / "rows.safetensors")
    whole = tiny_model("bert")
    batch = random_batch(whole, EVERY_ID)

    rows = RowAdapter.load(tmp_path / "rows.safetensors")
    if order == "rows first":
        rows.apply(whole)
    again: Any = peft.PeftModel.from_pretrained(whole, tmp_path)
    if order == "LoRA first":
        rows.apply(again)

    with torch.no_grad():
        assert torch.equal(again.eval()(**batch).logits, trained.eval()(**batch).logits)
    rows.remove(again)
    assert torch.equal(whole.get_input_embeddings().weight, BASE)


def test_the_copy_that_peft_trains_is_taken() -> None:
    """Not the module it was copied from."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)
    trained: Any = peft.get_peft_model(model, lora(modules_to_save=["word_embeddings"]))
    train(trained, [random_batch(model, ids_of(VOCABULARY))])
    copied_rows = trained.get_input_embeddings().modules_to_save["default"].weight

    adapter = RowAdapter.of(trained)

    assert list(adapter.tables) == [MATRIX]
    assert torch.equal(adapter.tables[MATRIX].values, copied_rows)
    with trained.disable_adapter():
        unlearned = RowAdapter.of(trained)
    assert torch.equal(unlearned.tables[MATRIX].values, BASE[ids_of(VOCABULARY)])


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
