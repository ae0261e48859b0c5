"""Tests of compact checkpoints, and of making them whole again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

import subvocab as sv
from subvocab.errors import CheckpointError, UnsupportedModelError, VocabularyMismatchError
from subvocab.model.checkpoint import (
    DESCRIPTION_FILE,
    VOCABULARY_FILE,
    compact_state_dicts,
)
from subvocab.model.merge import read_description
from subvocab.model.shrink import partial_embeddings
from tests.models import CONFIGS, FULL_VOCAB_SIZE, random_batch, tiny_model
from tests.reference import assert_equal_states, copied, drawn_vocabulary, ids_of, train

VOCABULARY = drawn_vocabulary()
CLASSIFIER = hf.AutoModelForSequenceClassification
TABLE = "bert.embeddings.word_embeddings.weight"


def trained(family: str = "bert", *, dtype: torch.dtype = torch.float32, base: Path) -> Any:
    """Save a base model, and train one that was loaded from it for a step."""
    tiny_model(family).to(dtype).save_pretrained(base)
    model = sv.from_pretrained(CLASSIFIER, base, VOCABULARY)
    train(model, [random_batch(model, ids_of(VOCABULARY))])
    return model.eval()


@pytest.mark.parametrize("family", CONFIGS)
def test_merge_gives_what_save_pretrained_gives(family: str, tmp_path: Path) -> None:
    """Compact and back, on disk: the same tensors, the same config, the same logits."""
    model = trained(family, base=tmp_path / "base")
    model.save_pretrained(tmp_path / "direct")

    sv.save_compact(model, tmp_path / "compact")
    out = sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    assert out == tmp_path / "out"
    direct, merged = (load_file(tmp_path / f / "model.safetensors") for f in ("direct", "out"))
    assert_equal_states(merged, direct)
    configs = [(tmp_path / f / "config.json").read_text() for f in ("direct", "out")]
    assert configs[0] == configs[1]
    whole = CLASSIFIER.from_pretrained(out)
    batch = random_batch(whole, torch.arange(FULL_VOCAB_SIZE))
    with torch.no_grad():
        assert torch.equal(whole(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("family", ["bert", "t5", "bart"])
def test_save_compact_saves_no_row_outside_the_vocabulary(family: str, tmp_path: Path) -> None:
    """One matrix of |V′| rows, whatever the number of owners."""
    model = trained(family, base=tmp_path / "base")

    sv.save_compact(model, tmp_path / "compact")

    tensors = load_file(tmp_path / "compact/model.safetensors")
    assert not any(t.shape[:1] == (FULL_VOCAB_SIZE,) for t in tensors.values())
    rows = len(sv.vocabulary_of(model))
    names = {f"{name}.weight" for name in partial_embeddings(model)}
    assert [n for n in tensors if n in names and tensors[n].shape[0] == rows]
    assert len([n for n in tensors if n in names]) == 1
    assert sv.PartialVocabulary.load(tmp_path / "compact" / VOCABULARY_FILE) == sv.vocabulary_of(
        model
    )


def test_save_compact_writes_shards(tmp_path: Path) -> None:
    """Options go to `save_pretrained`, and merging reads what it wrote."""
    model = trained(base=tmp_path / "base")

    sv.save_compact(model, tmp_path / "compact", max_shard_size="20KB")
    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    assert len(list((tmp_path / "compact").glob("model-*.safetensors"))) > 1
    whole = CLASSIFIER.from_pretrained(tmp_path / "out")
    assert_equal_states(whole.state_dict(), model.state_dict())


def test_save_compact_leaves_the_model_saving_whole(tmp_path: Path) -> None:
    """Compact is for one call."""
    model = trained(base=tmp_path / "base")

    sv.save_compact(model, tmp_path / "compact")

    shape = model.state_dict()["bert.embeddings.word_embeddings.weight"].shape
    assert shape[0] == FULL_VOCAB_SIZE


def test_compact_state_dicts_end_with_an_error() -> None:
    """The model saves whole again, whatever happened."""
    model = tiny_model("bert")
    sv.shrink(model, VOCABULARY)

    with pytest.raises(KeyboardInterrupt), compact_state_dicts(model):
        raise KeyboardInterrupt

    assert not any(module.table.compact for module in partial_embeddings(model).values())


def test_compact_checkpoint_is_refused_by_plain_loading(tmp_path: Path) -> None:
    """Code that knows nothing of partial vocabularies fails loudly."""
    sv.save_compact(trained(base=tmp_path / "base"), tmp_path / "compact")

    with pytest.raises(RuntimeError, match=r"mismatch"):
        CLASSIFIER.from_pretrained(tmp_path / "compact")


def test_compact_state_dict_loads_into_a_twin(tmp_path: Path) -> None:
    """The same V′, so the same rows."""
    model = trained(base=tmp_path / "base")
    twin = sv.from_pretrained(CLASSIFIER, tmp_path / "base", VOCABULARY)

    twin.load_state_dict(sv.compact_state_dict(model))

    assert_equal_states(copied(twin.state_dict()), model.state_dict())


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_merge_casts_the_base(stored: Any, saved: Any, tmp_path: Path) -> None:
    """A model may be cast after loading: the whole one is in its last dtype."""
    model = trained(dtype=stored, base=tmp_path / "base").to(saved)

    sv.save_compact(model, tmp_path / "compact")
    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    merged = load_file(tmp_path / "out/model.safetensors")
    assert_equal_states(merged, dict(model.state_dict()))


def test_merge_finds_a_base_that_was_cast_before_shrinking(tmp_path: Path) -> None:
    """Then what was spilled is another dtype than what lies on disk."""
    tiny_model("bert").save_pretrained(tmp_path / "base")
    model = CLASSIFIER.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    sv.shrink(model, VOCABULARY)

    sv.save_compact(model, tmp_path / "compact")
    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    assert_equal_states(load_file(tmp_path / "out/model.safetensors"), dict(model.state_dict()))


def test_merge_finds_the_matrix_whatever_its_name(tmp_path: Path) -> None:
    """A base checkpoint names its tensors without the prefix of a classifier."""
    tiny_model("bert", "encoder").save_pretrained(tmp_path / "base")
    model = sv.from_pretrained(CLASSIFIER, tmp_path / "base", VOCABULARY)

    sv.save_compact(model, tmp_path / "compact")
    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    assert_equal_states(load_file(tmp_path / "out/model.safetensors"), dict(model.state_dict()))


def test_merge_takes_the_tokenizer_from_the_base(tmp_path: Path) -> None:
    """What the compact checkpoint lacks; nothing of this library is left in the result."""
    model = trained(base=tmp_path / "base")
    (tmp_path / "base/tokenizer.json").write_text("{}")
    sv.save_compact(model, tmp_path / "compact")

    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    assert not [n for n in load_file(tmp_path / "out/model.safetensors") if "token_ids" in n]


def test_merge_refuses_another_base(tmp_path: Path) -> None:
    """The unused rows would be another model's."""
    sv.save_compact(trained(base=tmp_path / "base"), tmp_path / "compact")
    tiny_model("bert", seed=1).save_pretrained(tmp_path / "other")
    message = (
        f"No matrix in {tmp_path / 'other'} is the one that was shrunk; of 300 rows there: "
        "`bert.embeddings.word_embeddings.weight`. Give as base the very model that training "
        "started from."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        sv.merge(tmp_path / "compact", base=tmp_path / "other", out=tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_merge_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    """Nothing is overwritten."""
    sv.save_compact(trained(base=tmp_path / "base"), tmp_path / "compact")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")

    with pytest.raises(CheckpointError, match="out"):
        sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_merge_refuses_a_whole_checkpoint(tmp_path: Path) -> None:
    """It needs no merging."""
    tiny_model("bert").save_pretrained(tmp_path)
    message = (
        f"{tmp_path} is no compact checkpoint: it has no subvocab.json. A whole checkpoint needs "
        "no merging; a compact one is written by `subvocab.save_compact`."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        sv.merge(tmp_path, base=tmp_path, out=tmp_path / "out")


def test_merge_goes_by_the_ids_beside_the_rows(tmp_path: Path) -> None:
    """A process may end between two files; the one with the rows was written all at once."""
    model = trained(base=tmp_path / "base")
    sv.save_compact(model, tmp_path / "compact")
    drawn_vocabulary(seed=9).save(tmp_path / "compact" / VOCABULARY_FILE)

    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert_equal_states(merged, {name: model.state_dict()[name] for name in merged})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is damaged (JSONDecodeError"),
        ("[]", "is damaged (TypeError"),
        ("{}", "is damaged (KeyError('format_version')). Save the model anew."),
        ('{"format_version": 2, "tables": []}', "is damaged (AttributeError"),
        (
            '{"format_version": 1, "matrices": {}}',
            "has format version 1, expected 2. Use the version of subvocab that wrote it.",
        ),
        (
            '{"format_version": 2, "tables": {"w": {"dtype": "F32", "base_dtype": "I8"}}}',
            "is damaged (KeyError('base_fingerprint')). Save the model anew.",
        ),
    ],
)
def test_read_description_refuses_what_is_none(content: str, said: str, tmp_path: Path) -> None:
    """Whatever a file may hold, one kind of error."""
    (tmp_path / DESCRIPTION_FILE).write_text(content)

    with pytest.raises(CheckpointError) as caught:
        read_description(tmp_path)

    assert str(caught.value).startswith(f"{tmp_path / DESCRIPTION_FILE} {said}")


def test_save_compact_describes_the_base(tmp_path: Path) -> None:
    """What merging needs to know."""
    model = trained(base=tmp_path / "base")

    sv.save_compact(model, tmp_path / "compact")

    matrix = next(iter(partial_embeddings(model).values())).table.matrix
    assert json.loads((tmp_path / "compact" / DESCRIPTION_FILE).read_text()) == {
        "format_version": 2,
        "base": str(tmp_path / "base"),
        "vocabulary_fingerprint": sv.vocabulary_of(model).fingerprint,
        "tables": {
            "bert.embeddings.word_embeddings.weight": {
                "dtype": "F32",
                "base_dtype": "F32",
                "base_fingerprint": matrix.fingerprint,
                "base_content": matrix.content,
                "full_vocab_size": FULL_VOCAB_SIZE,
                "token_ids": "bert.embeddings.word_embeddings.token_ids",
            }
        },
        "decays": [],
    }


def test_save_compact_refuses_a_plain_module(tmp_path: Path) -> None:
    """It has a state dict, though."""
    model: Any = nn.Sequential(nn.Embedding(FULL_VOCAB_SIZE, 8))
    sv.shrink(model, VOCABULARY)
    message = (
        "`Sequential` has no `save_pretrained`, expected a transformers model. Save "
        "`subvocab.compact_state_dict(model)` with torch instead."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.save_compact(model, tmp_path)

    compact = sv.compact_state_dict(model)
    assert list(compact) == ["0.weight", "0.token_ids", "0.base_fingerprint"]
    assert np.array_equal(compact["0.token_ids"], sv.vocabulary_of(model).token_ids)


@pytest.mark.parametrize("function", [sv.save_compact, sv.compact_state_dict])
def test_compact_refuses_a_whole_model(function: Any, tmp_path: Path) -> None:
    """It has no V′ to save."""
    arguments = (tmp_path / "out",) if function is sv.save_compact else ()

    with pytest.raises(UnsupportedModelError, match="has no partial embedding"):
        function(tiny_model("bert"), *arguments)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_accelerate_saves_and_loads_the_state(family: str, tmp_path: Path) -> None:
    """Whole on disk, small in memory, and the same training after."""
    accelerator = Accelerator(cpu=True)
    model = tiny_model(family)
    sv.shrink(model, VOCABULARY)
    batch = random_batch(model, ids_of(VOCABULARY))
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))

    def step() -> float:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.item())

    torch.manual_seed(0)
    step()
    accelerator.save_state(str(tmp_path))
    expected = [step(), step()]
    accelerator.load_state(str(tmp_path))

    assert [step(), step()] == expected
    saved = load_file(tmp_path / "model.safetensors")
    assert any(tensor.shape[0] == FULL_VOCAB_SIZE for tensor in saved.values())


def test_a_base_is_not_replaced_by_a_compact_checkpoint(tmp_path: Path) -> None:
    """Its unused rows would be nowhere."""
    model = trained(base=tmp_path / "base")
    (tmp_path / "link").symlink_to("base")
    before = (tmp_path / "base" / "model.safetensors").read_bytes()

    for folder in ("base", "link"):
        with pytest.raises(CheckpointError, match="from which the unused rows are read"):
            sv.save_compact(model, tmp_path / folder)

    assert (tmp_path / "base" / "model.safetensors").read_bytes() == before
    assert len(model.state_dict()[TABLE]) == FULL_VOCAB_SIZE


def test_a_base_that_differs_in_one_row_is_refused(tmp_path: Path) -> None:
    """As the model of an earlier run does, of which a sample of the rows would tell nothing."""
    size = 5000
    whole = tiny_model("bert", vocab_size=size)
    whole.save_pretrained(tmp_path / "first")
    with torch.no_grad():
        whole.get_input_embeddings().weight[7] += 1
    whole.save_pretrained(tmp_path / "second")
    vocabulary = sv.PartialVocabulary(np.array([0, 3, 9]), size)
    model = sv.from_pretrained(CLASSIFIER, tmp_path / "second", vocabulary)
    sv.save_compact(model, tmp_path / "compact")

    with pytest.raises(VocabularyMismatchError, match="is the one that was shrunk"):
        sv.merge(tmp_path / "compact", base=tmp_path / "first", out=tmp_path / "out")
    sv.merge(tmp_path / "compact", base=tmp_path / "second", out=tmp_path / "out")

    first, second = (sv.FullMatrix.open(tmp_path / f, TABLE) for f in ("first", "second"))
    assert first.fingerprint == second.fingerprint


def test_a_compact_checkpoint_outlives_its_base(tmp_path: Path) -> None:
    """It is saved when the base is gone; what it cannot note it is not asked for."""
    model = trained(base=tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "elsewhere")

    sv.save_compact(model, tmp_path / "compact")
    sv.merge(tmp_path / "compact", base=tmp_path / "elsewhere", out=tmp_path / "out")

    (table,) = read_description(tmp_path / "compact")["tables"].values()
    assert table["base_content"] is None


def test_compact_checkpoints_have_no_variants(tmp_path: Path) -> None:
    """Merging would look for other files."""
    model = trained(base=tmp_path / "base")

    with pytest.raises(CheckpointError, match="`variant` is `fp16`, but compact checkpoints have"):
        sv.save_compact(model, tmp_path / "compact", variant="fp16")

    assert not (tmp_path / "compact").exists()
