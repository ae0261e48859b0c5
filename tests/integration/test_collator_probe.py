"""A Trainer whose collator adds tokens trains to the end, once the collator has been probed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers as hf

import subvocab as sv
from subvocab.vocabulary import PartialVocabulary
from tests.models import FULL_VOCAB_SIZE, tiny_model
from tests.tiny_tokenizers import as_transformers, unigram, wordpiece

ROWS, LENGTH = 24, 12


def _trained(model: Any, collator: Any, rows: datasets.Dataset, folder: Path) -> list[float]:
    """Train two epochs and give the losses."""
    arguments = hf.TrainingArguments(
        str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    trainer = hf.Trainer(model, arguments, train_dataset=rows, data_collator=collator)
    trainer.train()
    losses: list[float] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses


def _rows(first: int, *, labels: bool = False) -> datasets.Dataset:
    """Draw rows of some tokens, of different lengths."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(first, first + 30, rng.integers(4, LENGTH)).tolist() for _ in range(ROWS)]
    return datasets.Dataset.from_dict({"input_ids": ids} | ({"labels": ids} if labels else {}))


def test_masked_language_modelling_meets_its_masks(tmp_path: Path) -> None:
    """No row has a mask in it; without the probe the first step ends in an error."""
    tokenizer = as_transformers(wordpiece())
    collator = hf.DataCollatorForLanguageModeling(tokenizer, random_replace_prob=0.0)
    rows = _rows(50)
    mask = tokenizer.mask_token_id
    seen = sv.scan(rows, full_vocab_size=FULL_VOCAB_SIZE).partial_vocabulary()

    blind = tiny_model("bert", "masked-lm")
    sv.shrink(blind, seen)
    with pytest.raises(sv.OutOfVocabularyError) as caught:
        _trained(blind, collator, rows, tmp_path)
    assert mask in caught.value.token_ids

    model = tiny_model("bert", "masked-lm")
    counts = sv.scan(rows, collator=collator, model=model)
    sv.shrink(model, counts.partial_vocabulary())
    assert mask in counts.special_token_ids
    losses = _trained(model, collator, rows, tmp_path)

    whole = tiny_model("bert", "masked-lm")
    assert losses == pytest.approx(_trained(whole, collator, rows, tmp_path), abs=2e-4)


def test_a_scan_changes_no_mask(tmp_path: Path) -> None:
    """A classifier's head is exact: with dropout and random masks the losses are the same bits."""
    tokenizer = as_transformers(wordpiece())
    rows = _rows(50).map(lambda row: {"label": len(row["input_ids"]) % 2})

    def losses(*, shrinks: bool) -> list[float]:
        hf.set_seed(5)
        model = tiny_model("bert")
        collator = _Noising(tokenizer)
        if shrinks:
            torch.manual_seed(5)
            counts = sv.scan(rows, collator=collator, model=model)
            sv.shrink(model, counts.partial_vocabulary())
        return _trained(model, collator, rows, tmp_path)

    assert losses(shrinks=True) == losses(shrinks=False)


class _Noising(hf.DataCollatorWithPadding):
    """Puts a mask in the place of some tokens, drawn by a generator of its own."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = dict(super().__call__(rows))
        ids = batch["input_ids"]
        hidden = torch.rand(ids.shape, generator=self.generator) < 0.3
        hidden &= torch.rand(ids.shape) < 0.8
        return batch | {"input_ids": ids.masked_fill(hidden, self.tokenizer.mask_token_id)}


def test_an_encoder_decoder_meets_the_first_token_of_its_decoder(tmp_path: Path) -> None:
    """Labels are shifted by the collator, which puts a token first that no row has."""
    tokenizer = as_transformers(unigram())
    model = tiny_model("bart", "seq2seq-lm", decoder_start_token_id=250, pad_token_id=1)
    collator = hf.DataCollatorForSeq2Seq(tokenizer, model=model)
    rows = _rows(10, labels=True)

    counts = sv.scan(rows, collator=collator, model=model)
    vocabulary = counts.partial_vocabulary()
    sv.shrink(model, vocabulary)

    assert {1, 250} <= set(counts.special_token_ids)
    assert sv.vocabulary_of(model) == _with_special_tokens_of(model, vocabulary)
    assert all(np.isfinite(_trained(model, collator, rows, tmp_path)))


def _with_special_tokens_of(model: Any, vocabulary: PartialVocabulary) -> PartialVocabulary:
    """Add what the model's configuration names; the collator has brought the rest."""
    named = [value for key, value in model.config.to_dict().items() if key.endswith("_token_id")]
    return vocabulary.union(np.array([value for value in named if value is not None]))
