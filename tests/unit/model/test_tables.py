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
def test_find_tables_finds_output_heads(family: str, head: str) -> None:
    """By the interface of transformers, and by identity what they are tied to."""
    model = tiny_model(family, head)

    *_, table = find_tables(model, FULL_VOCAB_SIZE)

    assert list(table.heads.values()) == [model.get_output_embeddings()]
    assert model.get_output_embeddings() not in table.owners.values()


def test_find_tables_finds_an_untied_head() -> None:
    """A table of its own, in which nothing is looked up."""
    model = tiny_model("llama", "causal-lm", tie_word_embeddings=False)

    lookup, head = find_tables(model, FULL_VOCAB_SIZE)

    assert (set(lookup.owners), lookup.heads) == ({"model.embed_tokens"}, {})
    assert (head.owners, head.heads) == ({}, {"lm_head": model.lm_head})
    assert head.name == "lm_head.weight"


def test_find_tables_leaves_an_untied_head_whole() -> None:
    """If told to."""
    model = tiny_model("llama", "causal-lm", tie_word_embeddings=False)

    (table,) = find_tables(model, FULL_VOCAB_SIZE, head="whole")

    assert not table.heads


def test_find_tables_refuses_to_leave_a_tied_head_whole() -> None:
    """The reason, and the way out."""
    message = (
        "`lm_head` of `GPT2LMHeadModel` shares the embedding matrix, so it cannot stay whole. Use "
        '`head="exact"`, or `head="restricted"`.'
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        find_tables(tiny_model("gpt2", "causal-lm"), FULL_VOCAB_SIZE, head="whole")


def test_find_tables_finds_a_functional_tie() -> None:
    """DeBERTa-v2's newer head shares no Parameter: it transposes the matrix when called."""
    model = tiny_model("deberta-v2", "masked-lm", legacy=False)

    (table,) = find_tables(model, FULL_VOCAB_SIZE)

    assert set(table.heads) == {"lm_predictions.lm_head"}
    assert table.module_names == ["deberta.embeddings.word_embeddings"]


def test_find_tables_finds_a_head_inside_a_parent_module() -> None:
    """Wrapping a language model does not hide its head."""
    parent = nn.ModuleDict({"model": tiny_model("gpt2", "causal-lm")})

    (table,) = find_tables(parent, FULL_VOCAB_SIZE)

    assert set(table.heads) == {"model.lm_head"}


def test_find_tables_refuses_a_tied_linear() -> None:
    """A plain module may tie its head by hand; what it does with the logits is not known."""
    model = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 50, bias=False))
    model[1].weight = model[0].weight
    message = (
        "`1` (`Linear`) of `Sequential` shares the embedding matrix, but is neither an "
        "`nn.Embedding` nor the model's output head, so it is not known what it does with the "
        "rows. Untie it first."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        find_tables(model, 50)


def test_find_tables_refuses_a_head_of_another_width() -> None:
    """The rows of the two would not belong to the same tokens."""
    model = tiny_model("llama", "causal-lm", tie_word_embeddings=False)
    model.lm_head = nn.Linear(32, FULL_VOCAB_SIZE + 8, bias=False)
    message = (
        "The output head `lm_head` of `LlamaForCausalLM` has 308 rows, expected 300, one for each "
        "token of the vocabulary. Use a model whose head and embedding are of one size."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        find_tables(model, FULL_VOCAB_SIZE)


def test_find_tables_refuses_another_kind_of_head() -> None:
    """Whatever it computes besides."""

    class Doubled(nn.Linear):
        def forward(self, hidden: Any) -> Any:
            return 2 * super().forward(hidden)

    model = tiny_model("llama", "causal-lm", tie_word_embeddings=False)
    model.lm_head = Doubled(32, FULL_VOCAB_SIZE, bias=False)
    message = (
        "The output head `lm_head` of `LlamaForCausalLM` is a `Doubled`, expected an `nn.Linear` "
        "over the vocabulary. Train a model without it, such as a classifier."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        find_tables(model, FULL_VOCAB_SIZE)


@pytest.mark.parametrize("shape", [(FULL_VOCAB_SIZE,), (1, FULL_VOCAB_SIZE), (8, FULL_VOCAB_SIZE)])
def test_find_tables_refuses_what_nobody_knows(shape: tuple[int, ...]) -> None:
    """A parameter over the vocabulary would go out of step with the head."""
    model = tiny_model("llama", "causal-lm")
    model.model.register_parameter("token_prior", nn.Parameter(torch.zeros(shape)))
    message = (
        f"`model.token_prior` of `LlamaForCausalLM` has shape {shape}, so something for each "
        "token, of which it is not known what the model does with it. Use "
        '`head="whole"` if the output head is not tied.'
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        find_tables(model, FULL_VOCAB_SIZE)


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
