"""Tests of finding tables: by Parameter identity, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from subvocab.errors import UnsupportedModelError, VocabularyMismatchError
from subvocab.model.tables import find_tables
from tests.models import CONFIGS, FULL_VOCAB_SIZE, HEADS, tiny_config, tiny_model

OWNERS = {
    family: {
        f"{body}.{part}" for part in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    }
    for family, body in (("t5", "transformer"), ("bart", "model"))
}
LANGUAGE_MODELS = [
    (family, head)
    for family in CONFIGS
    for head in ("masked-lm", "causal-lm", "seq2seq-lm")
    if type(tiny_config(family)) in HEADS[head]._model_mapping
]


@pytest.mark.parametrize("family", CONFIGS)
def test_find_tables_finds_the_input_embeddings(family: str) -> None:
    """One table a family, and it is the one that the model names."""
    model = tiny_model(family)

    (table,) = find_tables(model, FULL_VOCAB_SIZE)

    assert table.parameter is model.get_input_embeddings().weight
    assert model.get_parameter(table.name) is table.parameter


@pytest.mark.parametrize("family", OWNERS)
def test_find_tables_finds_every_owner(family: str) -> None:
    """Encoder-decoders hold one Parameter in three modules."""
    (table,) = find_tables(tiny_model(family), FULL_VOCAB_SIZE)

    assert set(table.owners) == OWNERS[family]


def test_find_tables_finds_separate_tables() -> None:
    """Two towers over the same tokens: two matrices."""
    towers = nn.ModuleList([tiny_model("bert", "encoder"), tiny_model("bert", "encoder", seed=1)])

    tables = find_tables(towers, FULL_VOCAB_SIZE)

    assert [table.name for table in tables] == [
        "0.embeddings.word_embeddings.weight",
        "1.embeddings.word_embeddings.weight",
    ]


def test_find_tables_looks_into_plain_modules() -> None:
    """A model need not come from transformers."""
    model = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 50))

    (table,) = find_tables(model, 50)

    assert table.name == "0.weight"


def test_find_tables_names_a_bare_embedding() -> None:
    """An embedding may be the whole model."""
    (table,) = find_tables(nn.Embedding(50, 4), 50)

    assert table.name == "weight"


def test_find_tables_leaves_other_embeddings_alone() -> None:
    """Positions and segments are no tokens, whatever their number."""
    model = tiny_model("bert", max_position_embeddings=FULL_VOCAB_SIZE)

    (table,) = find_tables(model, FULL_VOCAB_SIZE)

    assert set(table.owners) == {"bert.embeddings.word_embeddings"}


@pytest.mark.parametrize(("family", "head"), LANGUAGE_MODELS)
def test_find_tables_refuses_output_heads(family: str, head: str) -> None:
    """A softmax over V gives every row a gradient."""
    with pytest.raises(UnsupportedModelError, match="has an output head"):
        find_tables(tiny_model(family, head), FULL_VOCAB_SIZE)


def test_find_tables_refuses_a_functional_tie() -> None:
    """DeBERTa-v2's newer head shares no Parameter: it transposes the matrix when called."""
    model = tiny_model("deberta-v2", "masked-lm", legacy=False)

    with pytest.raises(UnsupportedModelError, match="has an output head"):
        find_tables(model, FULL_VOCAB_SIZE)


def test_find_tables_says_which_head_it_refuses() -> None:
    """The reason, and the way out."""
    message = (
        "`GPT2LMHeadModel` has an output head (`Linear` over the vocabulary), whose softmax gives "
        "every row of the embedding matrix a gradient. Models with an output head are not "
        "supported yet: use a classification, question-answering or encoder class of this model."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        find_tables(tiny_model("gpt2", "causal-lm"), FULL_VOCAB_SIZE)


def test_find_tables_refuses_a_head_inside_a_parent_module() -> None:
    """Wrapping a language model does not hide its head."""
    with pytest.raises(UnsupportedModelError, match=r"^`GPT2LMHeadModel` has an output head"):
        find_tables(nn.ModuleDict({"model": tiny_model("gpt2", "causal-lm")}), FULL_VOCAB_SIZE)


def test_find_tables_refuses_a_tied_linear() -> None:
    """A plain module may tie its head by hand."""
    model = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 50, bias=False))
    model[1].weight = model[0].weight
    message = (
        "`1` (`Linear`) of `Sequential` shares the embedding matrix, so every row of it gets a "
        "gradient. Models with a tied output head are not supported yet."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        find_tables(model, 50)


def test_find_tables_refuses_another_kind_of_embedding() -> None:
    """An adapter on the embedding takes its place."""

    class Adapted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, token_ids: torch.Tensor) -> Any:
            return self.inner(token_ids)

    model = tiny_model("bert")
    model.set_input_embeddings(Adapted(model.get_input_embeddings()))
    message = (
        "The input embedding of `BertForSequenceClassification` is a `Adapted`, expected an "
        "`nn.Embedding`. If an adapter was put on it, leave the embedding out of the adapter's "
        "target modules."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        find_tables(model, FULL_VOCAB_SIZE)


def test_find_tables_refuses_another_vocabulary() -> None:
    """The number of rows says which tokenizer a model is for."""
    message = (
        "The embedding matrix of `BertForSequenceClassification` has 300 rows, but the partial "
        "vocabulary was taken from 250,002 tokens. If the model pads its matrix beyond its "
        "tokenizer, call `vocabulary.resized(rows)`; else scan with the model's own tokenizer."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        find_tables(tiny_model("bert"), 250_002)


def test_find_tables_refuses_a_model_without_tables() -> None:
    """Nothing takes tokens."""
    message = "The embedding matrix of `Linear` has no rows, but the partial vocabulary was taken"

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}"):
        find_tables(nn.Linear(2, 2), 50)


def test_find_tables_passes_over_parts_without_tokens() -> None:
    """A vision tower has input embeddings too, but of patches."""
    vision = hf.ViTModel(
        hf.ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
            image_size=8, patch_size=4,
        )
    )  # fmt: skip
    model = nn.ModuleDict({"vision": vision, "text": tiny_model("bert", "encoder")})

    (table,) = find_tables(model, FULL_VOCAB_SIZE)

    assert table.name == "text.embeddings.word_embeddings.weight"
