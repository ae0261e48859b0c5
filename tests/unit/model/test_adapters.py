"""What PEFT wraps, and which of the modules that stand in one place runs."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
from torch import nn

from subvocab.model.adapters import (
    LAYER,
    MODEL,
    TRAINED_COPY,
    candidates,
    is_a,
    is_adapter,
    kind_of,
    plain_name,
    running_modules,
)
from tests.models import tiny_model

CONFIG = peft.LoraConfig(
    task_type="SEQ_CLS", target_modules=["query"], modules_to_save=["word_embeddings"]
)


@pytest.fixture
def adapted() -> Any:
    """Give a model with LoRA on a layer and a trained copy of its embedding."""
    return peft.get_peft_model(tiny_model("bert"), copy.deepcopy(CONFIG))


def test_kinds_are_told_apart(adapted: Any) -> None:
    """A copy that is trained computes as the module does; a layer of LoRA's does not."""
    embedding = adapted.get_input_embeddings()
    layer = adapted.base_model.model.bert.encoder.layer[0].attention.self.query

    assert is_a(adapted, MODEL)
    assert is_a(embedding, TRAINED_COPY)
    assert not is_adapter(embedding)
    assert is_a(layer, LAYER)
    assert is_adapter(layer)
    assert kind_of(layer) == "`Linear` of PEFT"
    assert kind_of(layer.base_layer) == "`Linear`"


def test_candidates_are_the_module_and_its_copies(adapted: Any) -> None:
    """Anything else is alone in its place."""
    embedding = adapted.get_input_embeddings()
    copied = embedding.modules_to_save["default"]

    assert candidates(embedding) == [embedding.original_module, copied]
    assert candidates(copied) == [copied]
    assert candidates(None) == [None]


def running(model: Any) -> list[str]:
    """Name the embeddings of tokens that run."""
    names = [name for name, m in running_modules(model) if isinstance(m, nn.Embedding)]
    return [name.removeprefix("base_model.model.") for name in names if "word" in name]


def test_the_active_copy_runs(adapted: Any) -> None:
    """Or, where adapters are switched off or another one is active, the module itself."""
    place = "bert.embeddings.word_embeddings"
    adapted.add_adapter("without", peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))

    assert running(adapted) == [f"{place}.modules_to_save.default"]
    with adapted.disable_adapter():
        assert running(adapted) == [f"{place}.original_module"]
    adapted.set_adapter("without")
    assert running(adapted) == [f"{place}.original_module"]
    assert running(tiny_model("bert")) == [place]


def test_a_copy_of_a_part_hides_all_of_the_original() -> None:
    """Modules inside modules."""
    config = peft.LoraConfig(
        task_type="SEQ_CLS", target_modules=["query"], modules_to_save=["bert.embeddings"]
    )
    model = peft.get_peft_model(tiny_model("bert"), config)

    assert running(model) == ["bert.embeddings.modules_to_save.default.word_embeddings"]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("bert.embeddings", "bert.embeddings"),
        ("bert.embeddings.original_module.word_embeddings", "bert.embeddings.word_embeddings"),
        ("cls.modules_to_save.my_adapter.decoder", "cls.decoder"),
        ("query.base_layer", "query"),
        ("embed_tokens.token_adapter.base_layer", "embed_tokens"),
        ("", ""),
    ],
)
def test_plain_name_leaves_out_what_wraps(name: str, plain: str) -> None:
    """So that a row adapter fits the model without adapters."""
    assert plain_name(name) == plain
