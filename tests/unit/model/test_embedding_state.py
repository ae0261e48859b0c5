"""Tests of the partial embedding's state: what it gives is whole, and what it takes may be."""

from __future__ import annotations

import gc
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import subvocab as sv
from subvocab.errors import CheckpointError, VocabularyMismatchError
from subvocab.model.shrink import partial_embeddings
from tests.models import FULL_VOCAB_SIZE, tiny_model
from tests.reference import assert_equal_states, copied, drawn_vocabulary, ids_of
from tests.unit.model.embeddings import EVERY_ID, UNUSED, VOCABULARY, pair, plain


def test_state_dict_is_that_of_the_whole_module() -> None:
    """Names, shapes and bits."""
    whole, partial = pair()

    assert_equal_states(partial.state_dict(), whole.state_dict())


def test_state_dict_holds_the_learned_rows() -> None:
    """What training changed, and nothing else."""
    whole, partial = pair()
    rows = ids_of(sv.vocabulary_of(partial))

    with torch.no_grad():
        partial.weight.mul_(2)
        whole.weight[rows] *= 2

    assert torch.equal(partial.state_dict()["weight"], whole.weight)


def test_state_dict_is_a_snapshot() -> None:
    """Training on does not change what was taken, nor the other way round."""
    whole, partial = pair()
    taken = partial.state_dict()["weight"]

    with torch.no_grad():
        partial.weight.zero_()

    assert torch.equal(taken, whole.weight)
    taken.fill_(7)
    assert (partial.weight == 0).all()
    assert torch.equal(partial.state_dict()["weight"][UNUSED[1:]], whole.weight[UNUSED[1:]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_state_dict_follows_a_cast(dtype: torch.dtype) -> None:
    """A cast after shrinking casts the rows on disk too."""
    whole, partial = pair()

    assert_equal_states(partial.to(dtype).state_dict(), whole.to(dtype).state_dict())


def test_state_dict_with_the_parameters_themselves_gives_the_rows() -> None:
    """`keep_vars` asks for what the optimizer holds."""
    _, partial = pair()

    assert partial.state_dict(keep_vars=True)["weight"] is partial.weight


def test_state_dict_takes_a_prefix() -> None:
    """The names are those below any parent."""
    parent = nn.ModuleDict({"inner": nn.ModuleDict({"embedding": plain()})})
    names = list(parent.state_dict())

    sv.shrink(parent, VOCABULARY)

    assert list(parent.state_dict()) == names
    assert parent.state_dict()["inner.embedding.weight"].shape == (FULL_VOCAB_SIZE, 8)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_state_dict_keeps_ties(family: str) -> None:
    """Three names, one tensor: else a tied model would be saved as three."""
    model = tiny_model(family)
    sv.shrink(model, VOCABULARY)

    state = model.state_dict()

    pointers = {state[f"{name}.weight"].data_ptr() for name in partial_embeddings(model)}
    assert len(partial_embeddings(model)) == 3
    assert len(pointers) == 1


def test_state_dict_is_saved_by_torch_as_the_whole_one(tmp_path: Any) -> None:
    """No trace of E′ in the file, neither bytes nor marks."""
    whole, partial = pair()

    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    torch.save(partial.state_dict(), tmp_path / "partial.pt")

    sizes = [(tmp_path / name).stat().st_size for name in ("whole.pt", "partial.pt")]
    assert abs(sizes[0] - sizes[1]) < 100
    loaded = torch.load(tmp_path / "partial.pt", weights_only=True)["weight"]
    assert torch.equal(loaded, whole.weight)
    assert not vars(loaded)


def test_load_state_dict_takes_the_whole_matrix() -> None:
    """The rows of V′ are taken from it."""
    whole, partial = pair()
    nn.init.normal_(whole.weight)

    partial.load_state_dict(whole.state_dict())

    assert torch.equal(partial.weight, whole.weight[ids_of(sv.vocabulary_of(partial))])


def test_load_state_dict_adopts_other_unused_rows() -> None:
    """Another base, or full training with weight decay: the whole matrix counts."""
    whole, partial = pair()
    nn.init.normal_(whole.weight)

    partial.load_state_dict(whole.state_dict())

    assert torch.equal(partial.state_dict()["weight"], whole.weight)
    assert torch.equal(partial.eval()(EVERY_ID), whole(EVERY_ID))
    sv.restore(partial)
    assert torch.equal(partial.weight, whole.weight)


def test_load_state_dict_adopts_a_single_other_row() -> None:
    """One bit is enough."""
    whole, partial = pair()
    row = int(UNUSED[-1])
    with torch.no_grad():
        whole.weight[row, 0] += 1e-3

    partial.load_state_dict(whole.state_dict())

    assert torch.equal(partial.state_dict()["weight"], whole.weight)


def test_load_state_dict_keeps_the_matrix_on_disk_where_it_agrees() -> None:
    """No copy is spilled for nothing."""
    whole, partial = pair()
    matrix = partial.table.matrix
    with torch.no_grad():
        whole.weight[ids_of(VOCABULARY)] += 1

    partial.load_state_dict(whole.state_dict())

    assert partial.table.matrix is matrix


def test_load_state_dict_leaves_the_given_dict_alone() -> None:
    """It may be loaded again, elsewhere."""
    whole, partial = pair()
    state = dict(whole.state_dict())
    compact = sv.compact_state_dict(partial)
    names = list(compact)

    partial.load_state_dict(state)
    partial.load_state_dict(compact)

    assert state["weight"].shape[0] == FULL_VOCAB_SIZE
    assert list(compact) == names


def test_load_state_dict_casts_as_loading_does() -> None:
    """A float32 checkpoint into a bfloat16 model, unused rows too."""
    whole, partial = pair()
    partial.bfloat16()
    nn.init.normal_(whole.weight)

    partial.load_state_dict(whole.state_dict())

    assert torch.equal(partial.state_dict()["weight"], whole.weight.bfloat16())


def test_load_state_dict_takes_a_compact_one_of_the_same_vocabulary() -> None:
    """Rows and their tokens go together."""
    _, source = pair()
    _, target = pair()
    nn.init.normal_(source.weight)

    target.load_state_dict(sv.compact_state_dict(source))

    assert torch.equal(target.weight, source.weight)


@pytest.mark.parametrize("size", [40, 30])
def test_load_state_dict_refuses_a_compact_one_of_another_vocabulary(size: int) -> None:
    """Of the same size too: its rows are other tokens'."""
    _, target = pair()
    source = plain()
    sv.shrink(source, drawn_vocabulary(size, seed=5))
    theirs, ours = len(sv.vocabulary_of(source)), len(sv.vocabulary_of(target))
    assert (theirs, ours) == (size, 40)
    before = target.weight.detach().clone()
    message = (
        f"`weight` holds rows of a partial vocabulary of {theirs} tokens, but this model has "
        f"another one of {ours}. Merge the checkpoint with `subvocab merge` and load the whole "
        "model, or shrink the model with the same vocabulary."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        target.load_state_dict(sv.compact_state_dict(source))

    assert torch.equal(target.weight, before)


@pytest.mark.parametrize(
    "shape", [(40, 8), (41, 8), (FULL_VOCAB_SIZE, 9), (301, 8), (8,), ()], ids=str
)
def test_load_state_dict_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    """Rows without their token ids are nobody's, even if there are as many as in V′."""
    _, partial = pair()
    message = (
        f"`weight` has shape {shape}, expected the whole matrix of (300, 8), or a compact one "
        "with its token ids beside it. Load a checkpoint that the whole model, or this library, "
        "has saved."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        partial.load_state_dict({"weight": torch.zeros(shape)})


def test_load_state_dict_without_the_matrix_leaves_it_alone() -> None:
    """As for any module, `strict=False` allows it."""
    _, partial = pair()
    before = partial.weight.detach().clone()

    result = partial.load_state_dict({}, strict=False)

    assert result.missing_keys == ["weight"]
    assert torch.equal(partial.weight, before)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_load_state_dict_takes_a_tied_matrix_under_one_name(family: str, tmp_path: Any) -> None:
    """What `save_pretrained` writes of a tied model."""
    from safetensors.torch import load_file  # noqa: PLC0415 - of use here alone

    source = tiny_model(family, seed=1)
    source.save_pretrained(tmp_path)
    target = tiny_model(family)
    sv.shrink(target, VOCABULARY)
    state = load_file(tmp_path / "model.safetensors")

    result = target.load_state_dict(state, strict=False)

    assert len(result.missing_keys) == 2
    assert_equal_states(copied(target.state_dict()), source.state_dict())


def test_a_call_with_the_whole_state_dict_is_refused() -> None:
    """Its rows are those of V, among which ids of V′ would find other tokens."""
    whole, partial = pair()
    call: Any = torch.func.functional_call
    message = (
        f"The weight has {FULL_VOCAB_SIZE} rows, expected the 40 of the partial vocabulary: the "
        "whole state dict of a shrunk model is for files, not to compute with. Give "
        "`torch.func.functional_call` `dict(model.named_parameters())`, or load it by "
        "`load_state_dict`."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        call(partial, partial.state_dict(), (ids_of(VOCABULARY),))

    rows = call(partial, dict(partial.named_parameters()), (ids_of(VOCABULARY),))
    assert torch.equal(rows, whole(ids_of(VOCABULARY)))


def test_what_was_learned_outlives_the_process_that_shrank_the_model(tmp_path: Path) -> None:
    """A pickle knows its base by name; the unused rows went with the temporary file."""
    model = tiny_model("bert")
    model.save_pretrained(tmp_path / "base")
    sv.shrink(model, VOCABULARY)
    with torch.no_grad():
        model.get_input_embeddings().weight += 1
    expected, written = copied(model.state_dict()), pickle.dumps(model)
    del model
    gc.collect()  # as the end of the process would

    model = pickle.loads(written)  # noqa: S301 - our own

    sv.save_compact(model, tmp_path / "compact")
    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")
    assert_equal_states(type(model).from_pretrained(tmp_path / "out").state_dict(), expected)
    whole = type(model).from_pretrained(tmp_path / "base")
    sv.RowAdapter.of(model).apply(whole)
    assert_equal_states(whole.state_dict(), expected)
    with pytest.raises(CheckpointError, match=r"is gone: it held the unused rows, .* take it by"):
        model.state_dict()
