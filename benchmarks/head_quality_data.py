"""The data that heads are compared on: a text, and utterances with their meaning as responses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

import subvocab as sv
from benchmarks.texts import utterances

DATASETS = ("tinyshakespeare", "snips")
MAX_LENGTH = {"tinyshakespeare": 32, "snips": 64}
"""Tokens of a row; those of SNIPS are of different lengths, about 40."""
VALIDATION_ROWS = 64
VALIDATION_SHARE = 0.1
NO_LABEL = -100

Row = dict[str, list[int]]


@dataclass(frozen=True)
class Data:
    """Rows of token ids with labels, and the tokens in them.

    Attributes:
        train: To learn from.
        validation: To measure on.
        vocabulary: V′ of both.
        pad_token_id: What fills short rows.
    """

    train: list[Row]
    validation: list[Row]
    vocabulary: sv.PartialVocabulary
    pad_token_id: int

    def batch(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Pad rows to one length; no row attends to what comes after it, so no mask is needed.

        Args:
            rows: Some rows.

        Returns:
            Inputs with labels.
        """
        length = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.pad_token_id, "labels": NO_LABEL}
        return {
            name: torch.tensor([row[name] + [pad] * (length - len(row[name])) for row in rows])
            for name, pad in fill.items()
        }


def read(dataset: str, model_folder: str, data_folder: str) -> Data:
    """Encode a dataset; V′ is what its training and validation rows hold.

    Args:
        dataset: One of `DATASETS`.
        model_folder: Where the tokenizer is.
        data_folder: With ``text/tinyshakespeare.txt`` and ``snips/*.json``.

    Returns:
        Its rows.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    reader = _read_snips if dataset == "snips" else _read_shakespeare
    train, validation = reader(tokenizer, Path(data_folder))
    used = np.unique(np.concatenate([row["input_ids"] for row in [*train, *validation]]))
    config = json.loads(Path(model_folder, "config.json").read_text(encoding="utf-8"))
    # The padding token belongs to V′ of every model; here it need not be in the data.
    vocabulary = sv.PartialVocabulary(used, config["vocab_size"]).union([tokenizer.pad_token_id])
    some = np.linspace(0, len(validation) - 1, VALIDATION_ROWS).astype(int)
    return Data(train, [validation[i] for i in some], vocabulary, tokenizer.pad_token_id)


def _read_shakespeare(tokenizer: Any, folder: Path) -> tuple[list[Row], list[Row]]:
    """Cut a text into rows of one length; its end is for validation."""
    text = (folder / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    length = MAX_LENGTH["tinyshakespeare"]
    parts = [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    rows = [{"input_ids": part, "labels": part} for part in parts]
    first = round(len(rows) * (1 - VALIDATION_SHARE))
    return rows[:first], rows[first:]


def _read_snips(tokenizer: Any, folder: Path) -> tuple[list[Row], list[Row]]:
    """Make utterances prompts, and intents with slots the responses; only these are learned."""
    splits = []
    for pattern in ("train_*_full.json", "validate_*.json"):
        rows = []
        for intent, pieces in utterances(folder, pattern):
            utterance = "".join(piece["text"] for piece in pieces)
            slots = [f"{p['entity']} = {p['text'].strip()}" for p in pieces if "entity" in p]
            response = f" {'; '.join([intent, *slots])}{tokenizer.eos_token}"
            prompt_ids, response_ids = tokenizer(
                [utterance_prompt(utterance), response], add_special_tokens=False
            )["input_ids"]
            labels = [NO_LABEL] * len(prompt_ids) + response_ids
            if len(labels) <= MAX_LENGTH["snips"]:
                rows.append({"input_ids": prompt_ids + response_ids, "labels": labels})
        splits.append(rows)
    return splits[0], splits[1]


def utterance_prompt(utterance: str) -> str:
    """Write out a prompt of SNIPS.

    Args:
        utterance: What a person says.

    Returns:
        What comes before the response.
    """
    return f"Utterance: {utterance.strip()}\nMeaning:"
