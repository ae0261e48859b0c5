"""Tiny models of every family, made from configs: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel

FULL_VOCAB_SIZE = 300
DIM = 32
"""A multiple of eight, so that the norm of a gradient does not depend on rows of zeros."""

_BERT_LIKE: dict[str, Any] = {
    "hidden_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_T5_LIKE: dict[str, Any] = {
    "d_model": DIM,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "d_kv": 16,
    "d_ff": 40,
    "decoder_start_token_id": 0,
}
_BART_LIKE: dict[str, Any] = {
    "d_model": DIM,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "scale_embedding": True,
}

CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: hf.BertConfig(**_BERT_LIKE),
    "roberta": lambda: hf.RobertaConfig(**_BERT_LIKE),
    "xlm-roberta": lambda: hf.XLMRobertaConfig(**_BERT_LIKE),
    "distilbert": lambda: hf.DistilBertConfig(
        dim=DIM, n_layers=2, n_heads=2, hidden_dim=40, max_position_embeddings=64
    ),
    "deberta-v2": lambda: hf.DebertaV2Config(**_BERT_LIKE),
    "electra": lambda: hf.ElectraConfig(embedding_size=16, **_BERT_LIKE),
    "albert": lambda: hf.AlbertConfig(embedding_size=16, **_BERT_LIKE),
    "mpnet": lambda: hf.MPNetConfig(**_BERT_LIKE),
    "modernbert": lambda: hf.ModernBertConfig(
        **_BERT_LIKE, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    "t5": lambda: hf.T5Config(**_T5_LIKE),
    "bart": lambda: hf.BartConfig(**_BART_LIKE),
    "gpt2": lambda: hf.GPT2Config(
        n_embd=DIM, n_layer=2, n_head=2, n_positions=64, pad_token_id=0, eos_token_id=2
    ),
    "llama": lambda: hf.LlamaConfig(**_LLAMA_LIKE),
    "qwen3": lambda: hf.Qwen3Config(**_LLAMA_LIKE),
    "gemma3": lambda: hf.Gemma3TextConfig(**_LLAMA_LIKE),
}

HEADS: dict[str, Any] = {
    "sequence": hf.AutoModelForSequenceClassification,
    "token": hf.AutoModelForTokenClassification,
    "question": hf.AutoModelForQuestionAnswering,
    "choice": hf.AutoModelForMultipleChoice,
    "encoder": hf.AutoModel,
    "masked-lm": hf.AutoModelForMaskedLM,
    "causal-lm": hf.AutoModelForCausalLM,
    "seq2seq-lm": hf.AutoModelForSeq2SeqLM,
}


def tiny_config(family: str, **changes: Any) -> Any:
    """Make the config of a tiny model of a family, with 300 tokens."""
    config = CONFIGS[family]()
    config.vocab_size = FULL_VOCAB_SIZE
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def tiny_model(family: str, head: str = "sequence", *, seed: int = 0, **changes: Any) -> Any:
    """Make a tiny model with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    model: PreTrainedModel = HEADS[head].from_config(tiny_config(family, **changes))
    return model


def random_batch(
    model: PreTrainedModel, token_ids: torch.Tensor, head: str = "sequence", *, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Draw a batch of 4 × 9 tokens from some ids, with labels that suit the head.

    Every sequence ends in one and the same token, for the families that pool there, and the
    last two sequences are padded where the model has a padding token.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randint(len(token_ids), (4, 9), generator=generator)
    input_ids = token_ids[draw]
    eos = getattr(model.config, "eos_token_id", None)
    if eos is not None:
        input_ids[input_ids == eos] = token_ids[token_ids != eos][0]
        input_ids[:, -3] = eos
    attention_mask = torch.ones_like(input_ids)
    if model.config.pad_token_id is not None:
        input_ids[2:, -2:] = model.config.pad_token_id
        attention_mask[2:, -2:] = 0
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if head == "encoder" and model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = input_ids.roll(1, dims=1)
    if head == "sequence":
        batch["labels"] = torch.tensor([0, 1, 1, 0])
    elif head == "token":
        batch["labels"] = (input_ids % 2).masked_fill(attention_mask == 0, -100)
    elif head == "question":
        batch["start_positions"] = torch.tensor([0, 1, 2, 3])
        batch["end_positions"] = torch.tensor([2, 3, 4, 5])
    elif head == "choice":
        batch = {key: value.view(2, 2, -1) for key, value in batch.items()}
        batch["labels"] = torch.tensor([0, 1])
    return batch
