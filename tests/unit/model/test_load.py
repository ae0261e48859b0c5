"""Tests of loading only the rows of V′: what plain loading gives, from fewer bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

import subvocab as sv
from subvocab.model.load import local_folder
from subvocab.model.shrink import partial_embeddings
from tests.models import CONFIGS, FULL_VOCAB_SIZE, HEADS, random_batch, tiny_config, tiny_model
from tests.reference import assert_equal_states, copied, ids_of, train
from tests.unit.model.loading import CLASSIFIER, VOCABULARY

EVERY_ID = torch.arange(FULL_VOCAB_SIZE)
CAUSAL = [
    family
    for family in CONFIGS
    if type(tiny_config(family)) in HEADS["causal-lm"]._model_mapping
    and not tiny_config(family).is_encoder_decoder  # half a model: see the test of its own
]


def both(
    auto_class: Any, folder: Path | str, *, same_draws: bool = True, **options: Any
) -> tuple[Any, Any]:
    """Load a model whole, and with the rows of V′, from the same random state."""
    torch.manual_seed(7)
    whole = auto_class.from_pretrained(folder, **options)
    drawn_by_whole = torch.get_rng_state()
    torch.manual_seed(7)
    partial = sv.from_pretrained(auto_class, folder, VOCABULARY, **options)
    assert torch.equal(torch.get_rng_state(), drawn_by_whole) or not same_draws
    return whole, partial


def assert_same_model(partial: Any, whole: Any) -> None:
    """Compare classes, modes, configs, weights and what evaluation gives."""
    assert type(partial) is type(whole)
    assert partial.training == whole.training
    assert partial.config.to_dict() == whole.config.to_dict()
    assert partial.config.name_or_path == whole.config.name_or_path
    assert partial.dtype == whole.dtype
    assert partial_embeddings(partial)
    for module in partial_embeddings(partial).values():
        assert module.weight.shape[0] == len(sv.vocabulary_of(partial))
        assert not module.weight.is_meta
    flags = [(name, p.requires_grad) for name, p in whole.named_parameters()]
    assert [(name, p.requires_grad) for name, p in partial.named_parameters()] == flags
    assert_equal_states(copied(partial.state_dict()), whole.state_dict())
    batch = random_batch(whole, EVERY_ID, "encoder")
    with torch.no_grad():
        assert torch.equal(partial(**batch)[0], whole(**batch)[0])


@pytest.mark.parametrize("family", CONFIGS)
def test_from_pretrained_equals_plain_loading(family: str, tmp_path: Path) -> None:
    """Every weight, bit for bit."""
    tiny_model(family).save_pretrained(tmp_path)

    whole, partial = both(CLASSIFIER, tmp_path)

    assert_same_model(partial, whole)


@pytest.mark.parametrize("family", CONFIGS)
def test_from_pretrained_draws_the_same_random_head(family: str, tmp_path: Path) -> None:
    """A base checkpoint has no head, and names its tensors without a prefix."""
    tiny_model(family, "encoder").save_pretrained(tmp_path)

    whole, partial = both(CLASSIFIER, tmp_path, num_labels=5)

    assert_same_model(partial, whole)


@pytest.mark.parametrize("family", CONFIGS)
def test_from_pretrained_takes_a_concrete_class(family: str, tmp_path: Path) -> None:
    """Not only an auto class; here the base of a classifier, whose prefix goes."""
    tiny_model(family).save_pretrained(tmp_path)

    whole, partial = both(type(tiny_model(family, "encoder")), tmp_path)

    assert_same_model(partial, whole)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("tied", [True, False])
def test_from_pretrained_drops_an_output_head(family: str, tmp_path: Path, *, tied: bool) -> None:
    """An untied head has the shape of E: the right one of the two must be taken."""
    changes = {"is_decoder": True} if family not in {"gpt2", "llama", "qwen3", "gemma3"} else {}
    model = tiny_model(family, "causal-lm", tie_word_embeddings=tied, **changes)
    model.save_pretrained(tmp_path)

    whole, partial = both(CLASSIFIER, tmp_path)

    assert_same_model(partial, whole)
    table = next(iter(partial_embeddings(partial).values())).table
    assert table.matrix.tensor.path == tmp_path / "model.safetensors"


def test_from_pretrained_takes_a_matrix_from_half_a_model(tmp_path: Path) -> None:
    """A decoder alone names its matrix by another owner than the whole model does."""
    tiny_model("bart", "causal-lm", is_decoder=True).save_pretrained(tmp_path)

    whole, partial = both(CLASSIFIER, tmp_path, same_draws=False)

    expected = whole.get_input_embeddings().weight
    assert torch.equal(partial.state_dict()["model.shared.weight"], expected)
    stored = load_file(tmp_path / "model.safetensors")["model.decoder.embed_tokens.weight"]
    assert torch.equal(expected, stored)


@pytest.mark.parametrize("family", ["bert", "t5", "llama"])
def test_from_pretrained_reads_shards(family: str, tmp_path: Path) -> None:
    """The matrix may lie in any of them."""
    tiny_model(family).save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1

    whole, partial = both(CLASSIFIER, tmp_path)

    assert_same_model(partial, whole)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("asked", ["auto", "float32", torch.float32, torch.bfloat16], ids=str)
def test_from_pretrained_casts_as_plain_loading(stored: Any, asked: Any, tmp_path: Path) -> None:
    """Rows that are read later, too."""
    tiny_model("bert").to(stored).save_pretrained(tmp_path)

    whole, partial = both(CLASSIFIER, tmp_path, dtype=asked)

    assert_same_model(partial, whole)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_from_pretrained_takes_the_dtype_of_the_tensors(stored: Any, tmp_path: Path) -> None:
    """Where neither the caller nor the config says one; plain loading does so by default too."""
    tiny_model("bert").to(stored).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(config))

    whole, partial = both(CLASSIFIER, tmp_path)

    assert partial.dtype == stored
    assert_equal_states(copied(partial.state_dict()), whole.state_dict())


@pytest.mark.parametrize(
    "options",
    [
        {"num_labels": 7},
        {"attn_implementation": "eager"},
        {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}},
        {"hidden_dropout_prob": 0.3},
        {"problem_type": "multi_label_classification"},
    ],
    ids=str,
)
def test_from_pretrained_passes_options_on(options: dict[str, Any], tmp_path: Path) -> None:
    """To the config and to the model, as plain loading does."""
    tiny_model("bert", "encoder").save_pretrained(tmp_path)

    whole, partial = both(CLASSIFIER, tmp_path, **options)

    assert_same_model(partial, whole)
    assert partial.config._attn_implementation == whole.config._attn_implementation


def test_from_pretrained_takes_a_config(tmp_path: Path) -> None:
    """Made by the caller, for a model whose head it changes."""
    tiny_model("bert", "encoder").save_pretrained(tmp_path)
    config = hf.AutoConfig.from_pretrained(tmp_path, num_labels=4)

    partial = sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY, config=config)

    assert partial.num_labels == 4


def test_from_pretrained_reads_a_subfolder(tmp_path: Path) -> None:
    """Repositories may hold several models."""
    tiny_model("bert").save_pretrained(tmp_path / "inner")

    partial = sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY, subfolder="inner")

    assert_equal_states(copied(partial.state_dict()), tiny_model("bert").state_dict())


def test_from_pretrained_tells_two_tables_apart(tmp_path: Path) -> None:
    """Untied towers have two matrices of one shape, each with its own rows on disk."""
    model = tiny_model("bart", "encoder", tie_word_embeddings=False)
    assert model.encoder.embed_tokens.weight is not model.decoder.embed_tokens.weight
    model.save_pretrained(tmp_path)

    whole, partial = both(hf.AutoModel, tmp_path)

    assert_same_model(partial, whole)


def test_from_pretrained_trains_as_shrink_does(tmp_path: Path) -> None:
    """Two ways to the same model."""
    source = tiny_model("roberta")
    source.save_pretrained(tmp_path)
    batches = [random_batch(source, ids_of(VOCABULARY), seed=step) for step in range(3)]

    loaded = sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY)
    sv.shrink(source, VOCABULARY)

    assert train(loaded, batches) == train(source, batches)
    assert_equal_states(copied(loaded.state_dict()), source.state_dict())


def test_from_pretrained_model_is_saved_whole(tmp_path: Path) -> None:
    """Loadable by anyone, with the same logits; the source keeps its bytes."""
    tiny_model("t5").save_pretrained(tmp_path / "base")
    before = (tmp_path / "base/model.safetensors").read_bytes()
    partial = sv.from_pretrained(CLASSIFIER, tmp_path / "base", VOCABULARY)
    with torch.no_grad():
        for parameter in partial.parameters():
            parameter.mul_(1.5)

    partial.save_pretrained(tmp_path / "out")

    whole = CLASSIFIER.from_pretrained(tmp_path / "out")
    batch = random_batch(whole, EVERY_ID)
    with torch.no_grad():
        assert torch.equal(whole(**batch).logits, partial(**batch).logits)
    assert (tmp_path / "base/model.safetensors").read_bytes() == before


def test_from_pretrained_model_is_restored(tmp_path: Path) -> None:
    """In memory of its own: the checkpoint is no longer needed."""
    source = tiny_model("bert")
    source.save_pretrained(tmp_path)
    partial = sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY)

    sv.restore(partial)
    shutil.rmtree(tmp_path)

    assert_equal_states(partial.state_dict(), source.state_dict())


def test_from_pretrained_leaves_the_class_alone(tmp_path: Path) -> None:
    """The next model of that class is whole."""
    tiny_model("bert").save_pretrained(tmp_path)

    sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY)

    assert not partial_embeddings(CLASSIFIER.from_pretrained(tmp_path))


def test_local_folder_gives_the_subfolder(tmp_path: Path) -> None:
    """Of a folder on this machine."""
    assert local_folder(tmp_path, subfolder="a") == tmp_path / "a"


def test_from_pretrained_leaves_positions_of_the_same_shape_alone(tmp_path: Path) -> None:
    """A small vocabulary may have as many tokens as there are positions."""
    hf.BertModel(tiny_config("bert", max_position_embeddings=FULL_VOCAB_SIZE)).save_pretrained(
        tmp_path
    )

    model = sv.from_pretrained(hf.AutoModel, tmp_path, VOCABULARY)

    assert model.embeddings.position_embeddings.weight.shape[0] == FULL_VOCAB_SIZE
    whole = hf.AutoModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(whole[key], value) for key, value in model.state_dict().items())
