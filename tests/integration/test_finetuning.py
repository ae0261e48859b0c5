"""`subvocab finetune` on models that are unlike BERT, and what it keeps when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from subvocab.cli.app import app
from tests import tiny_tokenizers
from tests.models import tiny_model

pytestmark = pytest.mark.usefixtures("libraries_as_before")

TEXTS = ["the cat sat", "the dog", "12 cups,", "on the mat"] * 2


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands name files by what they are called."""
    monkeypatch.chdir(tmp_path)


def job(family: str, texts: list[str] = TEXTS, **changes: Any) -> list[str]:
    """Put a model and its data there; give the options that name them."""
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece())
    # T5 and BART look for the class where a text ends.
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.sep_token_id}
    tiny_model(family, **special | changes).save_pretrained("base")
    tokenizer.save_pretrained("base")
    rows = [{"text": text, "label": n % 2} for n, text in enumerate(texts)]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    named = ["--model", "base", "--train", "train.jsonl", "--label-column", "label"]
    return [*named, "--batch-size", "4", "--json"]


def finetuned(options: list[str]) -> Any:
    """Run the command."""
    more = ["--eval", "train.jsonl", "--out", "out", "--epochs", "1"]
    return CliRunner().invoke(app, ["finetune", *options, *more])


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_decoder_is_judged(family: str) -> None:
    """Behind its logits it gives the states of its encoder."""
    done = finetuned(job(family))

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"].keys() == {"accuracy", "f1", "loss"}


def test_a_model_is_saved_though_it_cannot_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training was done."""

    def fail(_prediction: Any) -> dict[str, float]:
        raise ValueError("of no use")

    monkeypatch.setattr("subvocab.integrations.classifier._scores", fail)
    done = finetuned(job("bert"))

    assert isinstance(done.exception, ValueError)
    assert done.exception.__notes__ == ["The model was trained, and is saved in out."]
    model = AutoModelForSequenceClassification.from_pretrained("out")
    assert model.get_input_embeddings().weight.shape[0] == 300
    assert Path("out/tokenizer.json").exists()


@pytest.mark.parametrize("padding", [0, 1, 5])
def test_positions_that_begin_behind_padding_are_enough(padding: int) -> None:
    """RoBERTa counts from there, and the tokenizer does not say how long a text may be."""
    options = job("roberta", ["the cat sat on the mat " * 40] * 8, pad_token_id=padding)

    assert finetuned([*options, "--max-length", "1000"]).exit_code == 0
    verify = ["verify", *options, "--max-length", "1000", "--steps", "2", "--device", "cpu"]
    assert CliRunner().invoke(app, verify).exit_code == 0
