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

_TOKENS: dict[str, Any] = {
    "vocab_size": FULL_VOCAB_SIZE,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TINY_LLAMA: dict[str, Any] = {**_LLAMA_LIKE, **_TOKENS}
_PER_LAYER: dict[str, Any] = {
    **_TINY_LLAMA,
    "layer_types": ["sliding_attention", "full_attention"],
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
}

LANGUAGE_MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "bert": ("masked-lm", lambda: hf.BertConfig(**_BERT_LIKE, **_TOKENS)),
    "roberta": ("masked-lm", lambda: hf.RobertaConfig(**_BERT_LIKE, **_TOKENS)),
    "deberta-v2": ("masked-lm", lambda: hf.DebertaV2Config(**_BERT_LIKE, **_TOKENS, legacy=True)),
    "deberta-v2 (product)": (
        "masked-lm",
        lambda: hf.DebertaV2Config(**_BERT_LIKE, **_TOKENS, legacy=False),
    ),
    "albert": ("masked-lm", lambda: hf.AlbertConfig(embedding_size=16, **_BERT_LIKE, **_TOKENS)),
    "electra": ("masked-lm", lambda: hf.ElectraConfig(embedding_size=16, **_BERT_LIKE, **_TOKENS)),
    "modernbert": (
        "masked-lm",
        lambda: hf.ModernBertConfig(**_BERT_LIKE, **_TOKENS, cls_token_id=1, sep_token_id=2),
    ),
    "gpt2": (
        "causal-lm",
        lambda: hf.GPT2Config(n_embd=DIM, n_layer=2, n_head=2, n_positions=64, **_TOKENS),
    ),
    "llama": ("causal-lm", lambda: hf.LlamaConfig(**_TINY_LLAMA)),
    "llama (tied)": ("causal-lm", lambda: hf.LlamaConfig(**_TINY_LLAMA, tie_word_embeddings=True)),
    "qwen3": ("causal-lm", lambda: hf.Qwen3Config(**_TINY_LLAMA)),
    # A cap that bites: at the usual 30 the logits of a tiny model hardly feel it.
    "gemma2": (
        "causal-lm",
        lambda: hf.Gemma2Config(
            **_TINY_LLAMA, query_pre_attn_scalar=16, final_logit_softcapping=2.0
        ),
    ),
    "gemma3": ("causal-lm", lambda: hf.Gemma3TextConfig(**_TINY_LLAMA)),
    # One table of its own beside the embedding, a little lower; the other is as high.
    "gemma3n": (
        "causal-lm",
        lambda: hf.Gemma3nTextConfig(
            **_PER_LAYER,
            vocab_size_per_layer_input=FULL_VOCAB_SIZE - 20,
            laurel_rank=8,
            final_logit_softcapping=2.0,
        ),
    ),
    "gemma4": (
        "causal-lm",
        lambda: hf.Gemma4TextConfig(
            **{**_PER_LAYER, "vocab_size_per_layer_input": FULL_VOCAB_SIZE, "global_head_dim": 16}
        ),
    ),
    "opt": (
        "causal-lm",
        lambda: hf.OPTConfig(
            hidden_size=DIM,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=40,
            word_embed_proj_dim=16,
            max_position_embeddings=64,
            **_TOKENS,
        ),
    ),
    "bloom": ("causal-lm", lambda: hf.BloomConfig(hidden_size=DIM, n_layer=2, n_head=2, **_TOKENS)),
    "mamba": (
        "causal-lm",
        lambda: hf.MambaConfig(hidden_size=DIM, num_hidden_layers=2, state_size=4, **_TOKENS),
    ),
    "cohere": ("causal-lm", lambda: hf.CohereConfig(**_without_head_dim(), logit_scale=0.5)),
    "granite": ("causal-lm", lambda: hf.GraniteConfig(**_without_head_dim(), logits_scaling=2.0)),
    "falcon-h1": (
        "causal-lm",
        lambda: hf.FalconH1Config(
            **_TINY_LLAMA,
            mamba_d_ssm=32,
            mamba_n_heads=4,
            mamba_d_state=8,
            mamba_chunk_size=8,
            lm_head_multiplier=0.5,
        ),
    ),
    "t5": ("seq2seq-lm", lambda: hf.T5Config(**_T5_LIKE, **_TOKENS)),
    "mt5": ("seq2seq-lm", lambda: hf.MT5Config(**_T5_LIKE, **_TOKENS, tie_word_embeddings=False)),
    "bart": ("seq2seq-lm", lambda: hf.BartConfig(**_BART_LIKE, **_TOKENS)),
    "marian": (
        "seq2seq-lm",
        lambda: hf.MarianConfig(**_BART_LIKE, **_TOKENS, decoder_start_token_id=0),
    ),
    "m2m100": ("seq2seq-lm", lambda: hf.M2M100Config(**_BART_LIKE, **_TOKENS)),
}
"""Models over a head that predicts tokens: which class, and its config."""


def _without_head_dim() -> dict[str, Any]:
    """Give what the families take that derive it."""
    return {key: value for key, value in _TINY_LLAMA.items() if key != "head_dim"}


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


HEADS_WITHOUT_VOCABULARY = ("sequence", "token", "question", "choice", "encoder")
COMBINATIONS = [
    (family, head)
    for family in CONFIGS
    for head in HEADS_WITHOUT_VOCABULARY
    # The auto class knows which heads a family has: a head that breaks must not drop out here.
    if type(tiny_config(family)) in HEADS[head]._model_mapping
]


def tiny_model(family: str, head: str = "sequence", *, seed: int = 0, **changes: Any) -> Any:
    """Make a tiny model with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    model: PreTrainedModel = HEADS[head].from_config(tiny_config(family, **changes))
    return model


def tiny_language_model(name: str, *, seed: int = 0, dropout: bool = False, **changes: Any) -> Any:
    """Make a tiny language model with weights that make its softmax far from uniform.

    Every parameter and every bias over the vocabulary is drawn, so that nothing is equal to
    something else, or zero, by chance of initialisation.
    """
    head, make_config = LANGUAGE_MODELS[name]
    config = make_config()
    if not dropout:
        changes |= {key: 0.0 for key in vars(config) if "drop" in key and key != "layerdrop"}
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(seed)
    model: PreTrainedModel = HEADS[head].from_config(config)
    return stirred(model)


def stirred(model: PreTrainedModel) -> PreTrainedModel:
    """Move every trained parameter at random, those over the vocabulary most."""
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            spread = 0.3 if FULL_VOCAB_SIZE in parameter.shape else 0.05
            parameter.add_(torch.randn_like(parameter), alpha=spread)
        for name, buffer in model.named_buffers():
            if name.endswith("final_logits_bias"):
                buffer.normal_()
    return model


def used_part(tensor: torch.Tensor, like: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Give the rows of V′ of what has a row for each token; a table may be lower than V."""
    return tensor if tensor.shape == like.shape else tensor[token_ids[token_ids < len(tensor)]]


def language_batch(name: str, token_ids: torch.Tensor, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw a batch of 4 × 9 tokens from some ids, with labels that suit the head.

    The last two sequences are padded. Labels are -100 there, and in a masked language model
    at two thirds of all places.
    """
    head, _ = LANGUAGE_MODELS[name]
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randint(len(token_ids), (2, 4, 9), generator=generator)
    input_ids, targets = token_ids[draw]
    attention_mask = torch.ones_like(input_ids)
    attention_mask[2:, -2:] = 0
    input_ids = input_ids.masked_fill(attention_mask == 0, 0)
    labels = (input_ids if head == "causal-lm" else targets).masked_fill(attention_mask == 0, -100)
    if head == "masked-lm":
        labels[:, torch.arange(9) % 3 > 0] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


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
