"""What every peer is given: a model, texts with labels, and how to train on them.

Read in the environment of each peer: imports torch and transformers alone, of any version.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

HEADS: dict[str, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "masked-lm": AutoModelForMaskedLM,
    "causal-lm": AutoModelForCausalLM,
    "seq2seq-lm": AutoModelForSeq2SeqLM,
}
FILE = "task.json"


@dataclass(frozen=True)
class Task:
    """A model to train, and on what.

    Attributes:
        head: One of ``HEADS``.
        texts: All of them are scanned; the first ones are trained on.
        labels: A class for each text. A language model predicts the text itself.
        roles: The tokenizer's special tokens, such as ``pad_token``.
        length: Tokens to truncate and pad each text to.
        batch: Texts in a step.
        steps: How many to train.
        learning_rate: Of AdamW, without weight decay.
    """

    head: str
    texts: list[str]
    labels: list[int]
    roles: dict[str, str]
    length: int
    batch: int
    steps: int
    learning_rate: float = 1e-4

    @classmethod
    def load(cls, folder: Path) -> Task:
        """Read the task of a folder, beside the model and its tokenizer.json."""
        return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))

    def save(self, folder: Path) -> None:
        """Write the task into the folder of its model."""
        (folder / FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    def tokenizer(self, folder: Path) -> Any:
        """Load the tokenizer; its settings are here, as versions write them differently."""
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **self.roles)

    def load_model(self, folder: Path) -> Any:
        """Load the whole model."""
        torch.manual_seed(0)  # for a head that the checkpoint lacks
        return HEADS[self.head].from_pretrained(folder, **self.load_options)

    @property
    def load_options(self) -> dict[str, Any]:
        """What a model is loaded with."""
        return {"num_labels": max(self.labels) + 1} if self.head == "sequence" else {}

    def encoded(self, tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
        """Encode texts, all as long as each other."""
        return dict(
            tokenizer(
                texts,
                truncation=True,
                max_length=self.length,
                padding="max_length",
                return_tensors="pt",
                return_token_type_ids=False,
            )
        )

    def batches(self, encoded: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Cut what was encoded into the batches of all steps, with labels."""
        found = []
        for step in range(self.steps):
            part = slice(step * self.batch, (step + 1) * self.batch)
            batch = {name: values[part] for name, values in encoded.items()}
            labels = torch.tensor(self.labels[part])
            batch["labels"] = labels if self.head == "sequence" else batch["input_ids"].clone()
            found.append(batch)
        return found

    def token_ids(self, folder: Path) -> list[int]:
        """Give the tokens that occur in the texts."""
        ids: list[int] = (
            self.encoded(self.tokenizer(folder), self.texts)["input_ids"].unique().tolist()
        )
        return ids

    @property
    def trained_texts(self) -> list[str]:
        """The texts of all steps."""
        return self.texts[: self.steps * self.batch]
