"""`subvocab finetune` trains, saves a whole model, and says plainly what it cannot use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from subvocab.cli.app import app
from tests import tiny_tokenizers
from tests.models import tiny_model

USUAL = {"model": "base", "train": "train.jsonl", "eval": "eval.jsonl", "label-column": "label"}
FIGURES = {
    "full_vocab_size",
    "partial_vocab_size",
    "unique_tokens",
    "total_tokens",
    "embedding_parameters",
    "model_parameters",
    "embedding_reduction",
    "model_reduction",
    "peak_bytes",
    "seconds",
    "losses",
    "metrics",
    "out",
}


def _run(*arguments: str, **changes: str) -> tuple[int, str, str]:
    options = {**USUAL, "out": "out", "epochs": "1", "batch-size": "4"}
    options |= {name.replace("_", "-"): value for name, value in changes.items()}
    named = [part for name, value in options.items() for part in (f"--{name}", value)]
    result = CliRunner().invoke(app, ["finetune", *named, *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def _figures(*arguments: str, **changes: str) -> dict[str, Any]:
    status, printed, said = _run("--json", *arguments, **changes)
    assert (status, said) == (0, "")
    figures: dict[str, Any] = json.loads(printed)
    return figures


@pytest.fixture
def folder(job: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the folder of the job."""
    monkeypatch.chdir(job)
    return job


@pytest.mark.usefixtures("folder")
def test_finetune_prints_one_json_object() -> None:
    """Programs read every figure by its name."""
    figures = _figures()

    assert figures.keys() == FIGURES
    assert figures["seconds"].keys() == {"tokenize", "scan", "load", "train", "evaluate", "save"}
    assert figures["metrics"].keys() == {"accuracy", "f1", "loss"}
    assert figures["partial_vocab_size"] < figures["full_vocab_size"] == 300
    assert figures["embedding_reduction"] == 1 - figures["partial_vocab_size"] / 300
    assert 0 < figures["model_reduction"] < figures["embedding_reduction"] < 1
    assert figures["peak_bytes"] > 0
    assert len(figures["losses"]) == 2


def test_finetune_saves_a_model_that_plain_transformers_loads(folder: Path) -> None:
    """The result carries no trace of how it was trained, and knows its classes."""
    _figures()

    model = AutoModelForSequenceClassification.from_pretrained(folder / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder / "out")
    assert model.get_input_embeddings().weight.shape == (300, 32)
    assert model.config.id2label == {0: "food", 1: "pets"}
    assert model(**tokenizer("the cat", return_tensors="pt")).logits.shape == (1, 2)


@pytest.mark.parametrize("label_column", ["label", "text"])
def test_finetune_full_gives_the_same_bit_for_bit(folder: Path, label_column: str) -> None:
    """Training on the used rows is ordinary training; also with a fresh head of other size."""
    ours = _figures(label_column=label_column)
    theirs = _figures("--full", label_column=label_column, out="full")

    assert ours["losses"] == theirs["losses"]
    assert ours["metrics"] == theirs["metrics"]
    assert theirs["partial_vocab_size"] == theirs["full_vocab_size"]
    models = [
        AutoModelForSequenceClassification.from_pretrained(folder / n) for n in ("out", "full")
    ]
    one, other = (model.state_dict() for model in models)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.usefixtures("folder")
def test_finetune_prints_a_table() -> None:
    """Without --json a person reads it."""
    status, printed, said = _run()

    assert (status, said) == (0, "")
    assert "rows of the embedding" in printed
    assert printed.endswith("The whole model lies in out\n")


def test_finetune_trains_on_pairs(folder: Path) -> None:
    """Two text columns are encoded as one pair, with one set of special tokens."""
    rows = [{"one": "the cat", "two": "the dog", "label": n} for n in (0, 1)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))

    figures = _figures(
        *("--text-column", "one", "--text-column", "two"), train="pairs.jsonl", eval="pairs.jsonl"
    )

    tokenizer = Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))
    assert figures["total_tokens"] == 2 * len(tokenizer.encode("the cat", "the dog").ids)


def test_finetune_takes_a_lone_tokenizer(folder: Path) -> None:
    """The model's configuration tells the padding token that the file does not."""
    tiny_model("bert").save_pretrained(folder / "alone")
    shutil.copy(folder / "base" / "tokenizer.json", folder / "lone.json")

    figures = _figures("--tokenizer", "lone.json", model="alone")

    assert figures["losses"] == _figures(out="other")["losses"]


@pytest.mark.usefixtures("folder")
def test_finetune_prints_what_json_lacks_as_null() -> None:
    """A loss that is no number must not make the output unreadable."""
    figures = _figures(learning_rate="1e30")

    assert figures["metrics"]["loss"] is None


def test_finetune_truncates_to_the_positions_of_the_model(folder: Path) -> None:
    """A text of any length trains, whatever is asked for."""
    row = json.dumps({"text": "the cat sat on the mat " * 40, "label": "pets"})
    (folder / "long.jsonl").write_text((folder / "train.jsonl").read_text() + row + "\n")

    figures = _figures(train="long.jsonl", max_length="1000")

    assert figures["losses"]


def _add_wrong_inputs(folder: Path) -> None:
    """Put beside the job what a person may name by mistake."""
    (folder / "held").mkdir()
    (folder / "held" / "file").touch()
    (folder / "nothing").mkdir()
    (folder / "notes.txt").write_text("the cat\n")
    (folder / "empty.jsonl").touch()
    (folder / "broken.jsonl").write_text('{"text": "a", "label":\n')
    (folder / "one.jsonl").write_text('{"text": "the cat", "label": "pets"}\n')
    (folder / "other.jsonl").write_text('{"text": "the cat", "label": "cars"}\n')
    for name, missing in (("no_weights", "model.safetensors"), ("no_config", "config.json")):
        shutil.copytree(folder / "base", folder / name)
        (folder / name / missing).unlink()
    shutil.copytree(folder / "base", folder / "damaged")
    (folder / "damaged" / "model.safetensors").write_bytes(b"\xff" * 100)
    for name, changes in (("short", {"vocab_size": 50}), ("no_padding", {"pad_token_id": None})):
        tiny_model("bert", **changes).save_pretrained(folder / name)
    tiny_tokenizers.wordpiece().save(str(folder / "lone.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "none"}, "`none` is no folder here, and could not be had from the Hub: "),
        ({"model": "nothing"}, "/nothing holds neither `model.safetensors` nor "),
        ({"model": "notes.txt"}, "/notes.txt is no whole safetensors file: "),
        ({"model": "no_weights"}, "/no_weights holds neither `model.safetensors` nor "),
        ({"model": "damaged"}, "/damaged/model.safetensors is no whole safetensors file: "),
        ({"model": "no_config"}, "The configuration in no_config is of no language model: "),
        ({"model": "short"}, "No tokenizer lies in short: all that is known are 5 special tokens."),
        ({"model": "short", "tokenizer": "base"}, " lies outside the vocabulary of 50. "),
        ({"model": "no_padding", "tokenizer": "lone.json"}, "names a padding token. Set "),
        ({"train": "none.jsonl"}, "subvocab: There is no file or folder none.jsonl.\n"),
        ({"train": "nothing"}, "`nothing` cannot be loaded: "),
        ({"train": "empty.jsonl"}, "empty.jsonl has no rows, expected texts and their labels.\n"),
        ({"train": "broken.jsonl"}, "`broken.jsonl` cannot be loaded: JSON parse error: "),
        ({"train": "notes.txt"}, "notes.txt ends in `.txt`, expected one of .jsonl, "),
        ({"train": "one.jsonl"}, "Column `label` of one.jsonl names one class only, `pets`, "),
        ({"eval": "other.jsonl"}, "Column `label` of other.jsonl holds cars, which is no class "),
        ({"eval": "empty.jsonl"}, "empty.jsonl has no rows, expected texts and their labels.\n"),
        ({"label_column": "none"}, "train.jsonl has no label column `none`. Its columns: `text`, "),
        ({"text_column": "none"}, "`train.jsonl` has no column `none`. Its columns: `text` "),
        ({"text_column": "label"}, "`train.jsonl` has no column `label`. Its columns: `text` "),
        ({"tokenizer": "notes.txt"}, "notes.txt holds no tokenizer ("),
        ({"max_length": "2"}, "`max_length` is 2, but the tokenizer adds 2 special tokens to each"),
        ({"out": "held"}, "held exists already, and nothing is ever overwritten. "),
        ({"out": "none/out"}, "/none to write `out` in. Make it.\n"),
        ({"epochs": "abc"}, "'--epochs'"),
        ({"epochs": "inf"}, "'--epochs'"),
        ({"learning_rate": "-1"}, "'--learning-rate'"),
        ({"batch_size": "0"}, "'--batch-size'"),
        ({"seed": "4294967296"}, "'--seed'"),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_finetune_ends_with_2_and_one_message(
    folder: Path, changes: dict[str, str], message: str, *, full: bool
) -> None:
    """What a person can repair is said once, and nothing is left behind."""
    _add_wrong_inputs(folder)
    before = set(folder.iterdir())

    status, printed, said = _run(*(["--full"] if full else []), **changes)

    assert (status, printed) == (2, "")
    assert message in said
    assert said.count("subvocab: ") + said.count("Error: ") == 1
    assert "Traceback" not in said
    assert set(folder.iterdir()) - before <= {folder / "cache"}


def test_finetune_needs_its_options(folder: Path) -> None:
    """What is missing is named."""
    result = CliRunner().invoke(app, ["finetune", "--model", str(folder / "base")])

    assert result.exit_code == 2
    assert "Missing option '--train'" in result.stderr
