"""Tests of what cannot be loaded: each is refused with one message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import subvocab as sv
from subvocab.errors import CheckpointError, UnsupportedModelError, VocabularyMismatchError
from tests.models import tiny_model
from tests.reference import unused_ids
from tests.unit.model.loading import CLASSIFIER, VOCABULARY


def test_from_pretrained_refuses_a_tied_head_that_shall_stay_whole(tmp_path: Path) -> None:
    """Before any weight is read."""
    tiny_model("gpt2", "causal-lm").save_pretrained(tmp_path)

    with pytest.raises(UnsupportedModelError, match=r"^`lm_head` of `GPT2LMHeadModel` shares"):
        sv.from_pretrained(hf.AutoModelForCausalLM, tmp_path, VOCABULARY, head="whole")


def test_from_pretrained_refuses_another_vocabulary(tmp_path: Path) -> None:
    """The number of rows says which model a vocabulary is for."""
    tiny_model("bert").save_pretrained(tmp_path)

    with pytest.raises(VocabularyMismatchError, match="has 300 rows, but the partial vocabulary"):
        sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY.resized(301))


def test_from_pretrained_refuses_what_is_not_there(tmp_path: Path) -> None:
    """Neither a folder nor a name."""
    with pytest.raises(CheckpointError) as caught:
        sv.from_pretrained(CLASSIFIER, tmp_path / "missing", VOCABULARY)

    assert str(caught.value).startswith(
        f"`{tmp_path / 'missing'}` is no folder here, and could not be had from the Hub: "
    )
    assert str(caught.value).endswith("Give the path of a model folder, or a name on the Hub.")


def test_from_pretrained_refuses_a_checkpoint_without_the_matrix(tmp_path: Path) -> None:
    """Random rows would train, and be worth nothing."""
    tiny_model("bert").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["bert.embeddings.word_embeddings.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    message = (
        "The checkpoint has no matrix for `bert.embeddings.word_embeddings`: its rows would be "
        "random. Give a checkpoint that holds the embedding matrix."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY)


def test_from_pretrained_names_unseen_tokens(tmp_path: Path) -> None:
    """By the tokenizer that lies beside the model, if there is one; by number else."""
    tiny_model("bert").save_pretrained(tmp_path)
    partial = sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY)
    unseen = int(unused_ids(sv.vocabulary_of(partial))[-1])

    with pytest.raises(sv.OutOfVocabularyError, match=f": {unseen}\\."):
        partial.train()(torch.tensor([[unseen]]))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"variant": "fp16"}, r"`variant` is `fp16`, which cannot be done"),
        ({"output_loading_info": True}, r"`output_loading_info` is `True`, which cannot be done"),
        ({"load_in_8bit": True}, r"`load_in_8bit` is `True`, .* `subvocab.shrink`\.$"),
        ({"quantization_config": {"a": 1}}, r"`quantization_config` is `{'a': 1}`, which cannot"),
        ({"state_dict": {}}, r"`state_dict` is given, but weights are read from the checkpoint"),
        ({"use_safetensors": False}, r"`use_safetensors` is False, but only safetensors are read"),
        ({"dtype": {"": "float16"}}, r"`dtype` is `{'': 'float16'}`, expected one of torch's"),
        ({"dtype": None}, r"`dtype` is `None`, expected one of torch's, or `auto`"),
    ],
)
def test_from_pretrained_refuses_what_it_does_not_do(
    tmp_path: Path, option: dict[str, Any], message: str
) -> None:
    """Rather than load something else."""
    tiny_model("bert").save_pretrained(tmp_path)

    with pytest.raises(UnsupportedModelError, match=message):
        sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY, **option)


@pytest.mark.parametrize(
    "given", ["AutoModelForCausalLM", hf.AutoConfig, hf.AutoTokenizer, hf.BertConfig, None]
)
def test_from_pretrained_refuses_what_is_no_class_of_models(given: Any, tmp_path: Path) -> None:
    """Before the folder is looked at."""
    message = (
        f"`auto_class` is {given!r}, expected a class of transformers that makes models. Pass the "
        "class itself, such as `AutoModelForCausalLM`."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.from_pretrained(given, tmp_path, VOCABULARY)


def test_from_pretrained_refuses_a_class_that_does_not_fit(tmp_path: Path) -> None:
    """With what transformers says of it."""
    tiny_model("bert").save_pretrained(tmp_path)
    expected = "`AutoModelForSeq2SeqLM` makes no model of a `BertConfig`: Unrecognized config"

    with pytest.raises(UnsupportedModelError, match=expected):
        sv.from_pretrained(hf.AutoModelForSeq2SeqLM, tmp_path, VOCABULARY)


def test_from_pretrained_refuses_a_folder_with_an_adapter(tmp_path: Path) -> None:
    """Transformers would put it on the model, and this would leave it out."""
    model = tiny_model("bert")
    model.save_pretrained(tmp_path)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"])).save_pretrained(tmp_path)
    message = (
        f"{tmp_path} holds an adapter (`adapter_config.json`), which would be left out, though "
        "transformers puts it on the model. Load the model with transformers, then call "
        "`subvocab.shrink`."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY)


def test_from_pretrained_tells_a_compact_checkpoint(tmp_path: Path) -> None:
    """It has to be merged before."""
    tiny_model("bert").save_pretrained(tmp_path / "base")
    model = sv.from_pretrained(CLASSIFIER, tmp_path / "base", VOCABULARY)
    sv.save_compact(model, tmp_path / "compact")

    with pytest.raises(CheckpointError, match=r"compact is a compact checkpoint, .* `subvocab.me"):
        sv.from_pretrained(CLASSIFIER, tmp_path / "compact", VOCABULARY)


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "unheard"}'])
def test_from_pretrained_tells_a_broken_configuration(tmp_path: Path, content: str | None) -> None:
    """In one message of ours."""
    tiny_model("bert").save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    if content is not None:
        (tmp_path / "config.json").write_text(content)

    with pytest.raises(CheckpointError, match=r"The configuration in .* cannot be read: "):
        sv.from_pretrained(CLASSIFIER, tmp_path, VOCABULARY)
