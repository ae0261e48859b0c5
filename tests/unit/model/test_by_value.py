"""Tests of models that search the matrix for an embedding."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import subvocab as sv

FULL, DIM = 300, 32


def gemma4(*, pad_token_id: int = 0) -> hf.Gemma4ForCausalLM:
    """Make a tiny model with a table for each layer."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": FULL,
        "vocab_size_per_layer_input": FULL,
        "hidden_size": DIM,
        "hidden_size_per_layer_input": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "global_head_dim": 16,
        "intermediate_size": 40,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "pad_token_id": pad_token_id,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return hf.Gemma4ForCausalLM(hf.Gemma4TextConfig(**settings))


def test_embeddings_alone_are_refused() -> None:
    """In E′ the search would find an id of V′, and the layers' rows of another token."""
    model = gemma4()
    sv.shrink(model, sv.PartialVocabulary(np.arange(5, 60), FULL))
    embeddings = model.get_input_embeddings()(torch.tensor([[7, 8]]))
    message = (
        "`Gemma4TextModel` was given `inputs_embeds` without `input_ids` and searches its "
        "embedding matrix for their tokens, but only the rows of the partial vocabulary are in "
        "it. Pass `input_ids`, or the per-layer inputs as well."
    )

    with pytest.raises(sv.UnsupportedModelError, match=f"^{re.escape(message)}$"):
        model(inputs_embeds=embeddings)

    model(input_ids=torch.tensor([[7, 8]]))


def test_a_restored_model_searches_again() -> None:
    """Its class is its own."""
    model = gemma4()
    sv.restore(sv.shrink(model, sv.PartialVocabulary(np.arange(5, 60), FULL)).model)
    embeddings = model.get_input_embeddings()(torch.tensor([[7, 8]]))

    assert torch.equal(
        model(inputs_embeds=embeddings).logits, model(input_ids=torch.tensor([[7, 8]])).logits
    )


def test_the_row_of_the_padding_token_keeps_its_number() -> None:
    """Gemma 4 reads it past the look-up."""
    model = gemma4(pad_token_id=9)
    row = model.model.embed_tokens.weight[9].clone()

    sv.shrink(model, sv.PartialVocabulary(np.arange(50, 90), FULL))

    assert torch.equal(model.model.embed_tokens.weight[9], row)


def test_per_layer_tables_shrink_too() -> None:
    """They are the larger part of such models."""
    model = gemma4()
    sv.shrink(model, sv.PartialVocabulary(np.arange(5, 60), FULL))

    assert model.model.embed_tokens_per_layer.weight.shape == (58, 16)  # three special ids
    assert sv.count_parameters(model).embedding_parameters == FULL * (DIM + 16)
