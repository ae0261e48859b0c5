"""The paper's models: their sizes from published architecture numbers, their tokenizers.

No weight and no network is needed to know N: the configurations are built here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from paper._cells import CannotRunError
from paper._hub import from_hub
from subvocab.analysis.savings import ModelShape
from subvocab.cli.tokenizer import load_tokenizer
from subvocab.errors import DataError
from subvocab.model.shape import model_shape


@dataclass(frozen=True)
class PaperModel:
    """A model of the paper.

    Attributes:
        name: As cells name it.
        hub: Its name on the Hub.
        tokenizer: The Hub name of its tokenizer; models with the same one are scanned once.
        config: Builds its configuration.
        aliases: Other names that people may type.
    """

    name: str
    hub: str
    tokenizer: str
    config: Callable[[], PreTrainedConfig]
    aliases: tuple[str, ...] = ()


def _roberta(vocab_size: int = 50_265, *, layers: int = 12) -> PreTrainedConfig:
    return RobertaConfig(
        vocab_size=vocab_size,
        num_hidden_layers=layers,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )


def _xlm_roberta(vocab_size: int) -> PreTrainedConfig:
    return XLMRobertaConfig(
        vocab_size=vocab_size, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
    )


def _deberta_v3() -> PreTrainedConfig:
    disentangled: dict[str, Any] = {
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    }
    return DebertaV2Config(
        vocab_size=128_100,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3_072,
        type_vocab_size=0,
        relative_attention=True,
        pos_att_type="p2c|c2p",
        position_biased_input=False,
        **disentangled,
    )


BERT = "google-bert/bert-base-uncased"
BERT_CASED = "google-bert/bert-base-cased"
MBERT = "google-bert/bert-base-multilingual-cased"
ROBERTA = "FacebookAI/roberta-base"
DEBERTA = "microsoft/deberta-v3-base"
XLM_R = "FacebookAI/xlm-roberta-base"
XLM_V = "facebook/xlm-v-base"
DISTIL = "distilbert/"

MODELS = {
    model.name: model
    for model in (
        PaperModel("bert-base-uncased", BERT, BERT, BertConfig, ("BERT",)),
        PaperModel(
            "bert-base-cased", BERT_CASED, BERT_CASED, lambda: BertConfig(vocab_size=28_996)
        ),
        PaperModel("roberta-base", ROBERTA, ROBERTA, _roberta, ("RoBERTa",)),
        PaperModel("deberta-v3-base", DEBERTA, DEBERTA, _deberta_v3, ("DeBERTaV3",)),
        PaperModel(
            "bert-base-multilingual-cased",
            MBERT,
            MBERT,
            lambda: BertConfig(vocab_size=119_547),
            ("mBERT",),
        ),
        PaperModel(
            "xlm-roberta-base",
            XLM_R,
            XLM_R,
            lambda: _xlm_roberta(250_002),
            ("xlm-roberta", "XLM-R", "XLM-RoBERTa"),
        ),
        PaperModel("xlm-v-base", XLM_V, XLM_V, lambda: _xlm_roberta(901_629), ("XLM-V",)),
        PaperModel(
            "distilbert-base-uncased",
            f"{DISTIL}distilbert-base-uncased",
            BERT,
            DistilBertConfig,
            ("DistilBERT",),
        ),
        PaperModel(
            "distilroberta-base",
            f"{DISTIL}distilroberta-base",
            ROBERTA,
            lambda: _roberta(layers=6),
            ("DistilRoBERTa",),
        ),
        PaperModel(
            "distilbert-base-multilingual-cased",
            f"{DISTIL}distilbert-base-multilingual-cased",
            MBERT,
            lambda: DistilBertConfig(vocab_size=119_547),
            ("DistilmBERT",),
        ),
    )
}


def find_model(name: str) -> PaperModel:
    """Find a model by any of its names, in capitals or not.

    Args:
        name: Such as ``xlm-roberta-base``, ``XLM-R`` or ``FacebookAI/xlm-roberta-base``.

    Returns:
        The model.

    Raises:
        DataError: If the paper has none of that name.
    """
    for model in MODELS.values():
        names = (model.name, model.hub, *model.aliases)
        if name.lower() in map(str.lower, names):
            return model
    raise DataError(f"The paper has no model `{name}`, expected one of {', '.join(MODELS)}.")


@cache
def shape(name: str, num_labels: int = 2) -> ModelShape:
    """Count the parameters of a model with a classification head.

    Args:
        name: As in ``MODELS``.
        num_labels: Classes of the task; 1 for a score.

    Returns:
        Its shape, found on the meta device.
    """
    return model_shape(MODELS[name].config(), task="classification", num_labels=num_labels)


def full_vocab_size(name: str) -> int:
    """Tell |V|, the rows of the model's matrix, which its tokenizer may not reach.

    Args:
        name: As in ``MODELS``.

    Returns:
        |V|.
    """
    return int(MODELS[name].config().vocab_size)


def pad_token_id(name: str) -> int:
    """Tell the id that fills short texts up to the longest.

    Args:
        name: As in ``MODELS``.

    Returns:
        The id.
    """
    pad_id = MODELS[name].config().pad_token_id
    return 0 if pad_id is None else int(pad_id)


def tokenizer(hub: str, data: Path | None) -> Any:
    """Load a tokenizer from the data folder if it is there, else from the Hub.

    Args:
        hub: Its name on the Hub.
        data: The folder of data sets, or None for the Hub alone.

    Returns:
        A tokenizer that `subvocab.data.scan` takes.

    Raises:
        CannotRunError: If neither has it.
    """
    found, reason = _tokenizer_or_reason(hub, data)
    if found is None:
        raise CannotRunError(reason)
    return found


@cache
def _tokenizer_or_reason(hub: str, data: Path | None) -> tuple[Any, str]:
    """Look once only: to learn that the Hub has none takes its time."""
    short = hub.rpartition("/")[2]
    for name in dict.fromkeys((short, short.removesuffix("-base"))):
        folder = (data or Path()) / "tokenizers" / name
        if data is not None and (folder / "tokenizer.json").is_file():
            return load_tokenizer(str(folder)), ""
    absent = "" if data is None else f", which is not in {data / 'tokenizers'},"
    try:
        return from_hub(lambda: load_tokenizer(hub), f"the tokenizer {short}{absent}"), ""
    except CannotRunError as error:
        return None, str(error)
