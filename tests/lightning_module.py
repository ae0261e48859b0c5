"""A LightningModule as people write them, its data, and a run of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.models import tiny_language_model, tiny_model
from tests.reference import CLIP, drawn_vocabulary, ids_of

EOS = 2
VOCABULARY = drawn_vocabulary().union([1, EOS])
USED = ids_of(VOCABULARY)
LONGEST = 9


class Rows(Dataset[dict[str, Tensor]]):
    """Sequences of several lengths, as a dataset that has nothing but numbers for them."""

    def __init__(self, token_ids: Tensor = USED[1:], *, count: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        ids = token_ids[torch.randint(len(token_ids), (count, LONGEST), generator=generator)]
        ids[ids == EOS] = token_ids[-1]
        self.rows = [row[: 5 + number % 5].clone() for number, row in enumerate(ids)]
        for row in self.rows:
            row[-1] = EOS

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        return {"input_ids": self.rows[at], "labels": torch.tensor(at % 2)}


def padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Make a batch; the padding token stands in no row."""
    ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)
    labels = torch.stack([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


class Module(lightning.LightningModule):  # type: ignore[misc]
    """A tiny model that notes its losses."""

    def __init__(self, family: str = "bert") -> None:
        super().__init__()
        tiny = tiny_language_model if family == "gpt2" else tiny_model
        self.model = tiny(family, pad_token_id=0, eos_token_id=EOS)
        self.predicts = family == "gpt2"
        self.losses: list[float] = []

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """Give the loss."""
        if self.predicts:
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            batch = batch | {"labels": labels}
        loss: Tensor = self.model(**batch).loss
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        """Give an optimizer with a schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0, fused=True)
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=8)]


def fit(
    module: Module,
    folder: Path,
    callbacks: Iterable[Any] = (),
    *,
    epochs: int = 2,
    resumed: Path | None = None,
    shuffle: bool = True,
    **options: Any,
) -> Any:
    """Run a Trainer of Lightning, clipping, with a checkpoint every epoch."""
    lightning.seed_everything(3, verbose=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=CLIP,
        default_root_dir=folder,
        callbacks=[*callbacks, ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    loader: Any = DataLoader(Rows(), batch_size=4, shuffle=shuffle, collate_fn=padded)
    trainer.fit(module, loader, ckpt_path=resumed)
    return trainer
