"""Tiny configurations of any family: its defaults, with widths and depths made small by name."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, cast

from tests.models import FULL_VOCAB_SIZE

TOKEN = ("_token_id", "_token_index")
TOKEN_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
FIRST_SPECIAL = 3
"""Pictures, sounds and the like; one id each."""
HEADS_OF_ALL = 4
NONE_AT_ALL = [
    (r"num_kv_shared_layers|num_mtp_layers|num_nextn_predict_layers|first_k_dense_replace", 0)
]
TINY: list[tuple[str, int]] = [
    (
        r"(type|entity|shape|pronunciation|t2u|char|unit_hifi_gan|task_type|.*group)_vocab(_size)?",
        50,
    ),
    (r".*vocab_size(_per_layer_input)?|n_words", FULL_VOCAB_SIZE),
    (r"(.*_)?max_(2d_)?position_embeddings|n_positions|n_ctx|max_(source|target)_positions", 64),
    (r"max_seq_len|context_length|.*sliding_window.*|(local_)?attention_(chunk|window).*", 64),
    (r".*(key_value|kv)_heads", 2),
    (r".*heads|n_head", 4),
    (r".*head_dim|dim_head|d_kv|d_head|kv_channels|attention_head_size|rotary_dim", 8),
    (r".*embedding_size|word_embed_proj_dim|embedding_dim", 16),
    (r"(.*_)?(hidden_size|d_model|n_embd|dim|emb_dim|d_latents)", 32),
    (r"(.*_)?(intermediate_size|ffn_dim|d_ff|dff|dim_ff|d_inner|hidden_dim|ffn_hidden_size)", 48),
    (r"n_inner|intermediate_size_mlp|feed_forward_size|.*bottleneck_size", 48),
    (r"(moe_)?num_(local_)?experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok|moe_k|moe_topk|.*top_k_experts", 2),
    (r".*n_group|topk_group|.*n_groups", 1),
    (r".*_rank", 8),
    (r".*(chunk_size|block_size)", 16),
    (r"(mamba_)?d_state|state_size|ssm_state_size", 8),
]
"""What entries of a configuration become, by name; never more than they were."""
LAYERS = r"(.*_)?(num_|n_)?(decoder_|encoder_|hidden_|self_attends_per_)?(layers?|blocks?)"
NUMBERS_OF_LAYERS = (2, 4, 6, 8)
"""Tried in turn: a family with several kinds of layers needs one of each."""
AUDIBLE: dict[str, float] = {
    "final_logit_softcapping": 2.0,
    "logits_soft_cap": 2.0,
    "output_logit_soft_cap": 2.0,
    "logit_scale": 0.5,
    "lm_head_multiplier": 0.5,
    "output_multiplier": 0.5,
    "logits_scaling": 2.0,
}
"""What is done to logits, so strongly that a tiny model shows it."""
MISSING: dict[str, Any] = {"head_dim": 8, "num_key_value_heads": 2, "num_experts_per_tok": 2}
"""For families that cannot be built with what they leave open."""
EXTRA: dict[str, dict[str, Any]] = {
    "EsmForMaskedLM": {"vocab_size": FULL_VOCAB_SIZE, "mask_token_id": 3, "pad_token_id": 0},
    "BambaForCausalLM": {"attn_layer_indices": [1]},
    "DeepseekV2ForCausalLM": {"num_key_value_heads": 4, "num_experts_per_tok": 2},
    "Dots1ForCausalLM": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "GraniteMoeHybridForCausalLM": {"layer_types": ["mamba", "attention"]},
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "Mamba2ForCausalLM": {"num_heads": 8},
    "VibeVoiceAsrForConditionalGeneration": {"acoustic_tokenizer_chunk_size": 3200},
    "XmodForCausalLM": {"default_language": "en_XX"},
    "XmodForMaskedLM": {"default_language": "en_XX"},
    "NeoMMEForMaskedLM": {"head_dim": 16},
    # The classes of the time stamps are no tokens, and must not be as many.
    "Nemotron3_5TranscribeForConditionalGeneration": {"word_timestamp_config": {"vocab_size": 50}},
    "SqueezeBertForMaskedLM": {"embedding_size": 32},
    "Zamba2ForCausalLM": {"layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "EncoderDecoderModel": {
        part: {
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "vocab_size": 300,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **more,
        }
        for part, more in (
            ("encoder", {}),
            ("decoder", {"is_decoder": True, "add_cross_attention": True}),
        )
    },
}
"""What some families need besides."""


def tiny_config(model_class: Any, head: str, layers: int, missing: dict[str, Any]) -> Any:
    """Make a configuration whose widths and depths are tiny, from its defaults."""
    config_class = model_class.config_class
    extra = EXTRA.get(model_class.__name__, {})
    entries = {}
    if model_class.__name__ != "EncoderDecoderModel":  # which has no defaults
        entries = _tiny_entries(config_class, head, layers, missing)
    for key, value in extra.items():
        entries[key] = {**entries.get(key, {}), **value} if isinstance(value, dict) else value
    config = config_class(**entries)
    if head == "seq2seq" and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    if head == "seq2seq" and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0
    return config


def _tiny_entries(
    config_class: Any, head: str, layers: int, missing: dict[str, Any]
) -> dict[str, Any]:
    """Give entries for a configuration and those nested in it."""
    entries: dict[str, Any] = {}
    taken = FIRST_SPECIAL
    heads = getattr(config_class, "num_attention_heads", None)
    for field in dataclasses.fields(config_class):
        name, default = field.name, field.default
        if name in AUDIBLE:
            entries[name] = AUDIBLE[name]
        elif name == "is_decoder":
            entries[name] = head == "causal"
        elif default is None and name in missing:
            entries[name] = missing[name]
        elif "drop" in name and type(default) is float:
            entries[name] = 0.0
        elif type(default) is int:
            if name.endswith(TOKEN):
                entries[name] = TOKEN_IDS.get(name, taken)
                taken += name not in TOKEN_IDS
            else:
                entries[name] = min(default, _tiny_number(name, default, heads, layers))
    whole = config_class() if getattr(config_class, "sub_configs", {}) else None
    for name in getattr(config_class, "sub_configs", {}):
        part: Any = getattr(whole, name, None)
        if dataclasses.is_dataclass(part):
            nested = _tiny_entries(type(part), head, layers, missing)
            entries[name] = {"model_type": cast("Any", part).model_type, **nested}
    return entries


def _tiny_number(name: str, default: int, heads: int | None, layers: int) -> int:
    """Give what a number becomes; some stay what they are."""
    if "key_value_heads" in name and default == heads:
        return HEADS_OF_ALL
    for pattern, value in (*NONE_AT_ALL, (LAYERS, layers), *TINY):
        if re.fullmatch(pattern, name):
            return value
    return default
