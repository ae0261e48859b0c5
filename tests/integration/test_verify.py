"""`subvocab verify`: it says what holds, and sees what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import subvocab as sv
from subvocab.cli.app import app
from subvocab.integrations.finetuning import load_model
from subvocab.model.shrink import partial_embeddings
from tests import tiny_tokenizers
from tests.models import tiny_model

GROUPS = ["first loss", "losses", "gradient norms", "used rows", "other weights", "unused rows"]
ROWS = [("the cat sat", "a"), ("the dog", "b"), ("12 cups,", "a"), ("on the mat", "b")] * 4

pytestmark = pytest.mark.usefixtures("libraries_as_before")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a model and its data where commands find them by name."""
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece())
    tiny_model("bert", "masked-lm", vocab_size=len(tokenizer)).save_pretrained("model")
    tokenizer.save_pretrained("model")
    rows = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    Path("train.jsonl").write_text("\n".join(rows), encoding="utf-8")


def verified(*options: str, code: int = 0) -> dict[str, Any]:
    """Run the command; give its verdicts by group, and what else it prints."""
    command = ["verify", "--model", "model", "--train", "train.jsonl", "--steps", "3"]
    common = ["--learning-rate", "1e-2", "--batch-size", "4", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, [*command, *common, *options])
    assert done.exit_code == code, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {verdict["group"]: verdict for verdict in result["verdicts"]}


CLASSIFY = ("--label-column", "label")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "adagrad", "rmsprop"])
def test_a_classifier_is_equal_bit_for_bit(optimizer: str) -> None:
    """Every group, and each compares something."""
    result = verified(*CLASSIFY, "--optimizer", optimizer)

    assert [verdict["group"] for verdict in result["verdicts"]] == GROUPS
    assert all(verdict["unequal"] == 0 < verdict["numbers"] for verdict in result["verdicts"])
    assert result["partial_vocab_size"] < result["full_vocab_size"]
    assert result["holds"]


def test_weight_decay_leaves_unused_rows_behind() -> None:
    """By design, and said so; nothing else differs."""
    result = verified(*CLASSIFY, "--weight-decay", "0.1")

    unused = result["unused rows"]
    assert unused["unequal"] == unused["numbers"]
    assert unused["reason"] == "Full training lets weight decay shrink the unused rows"
    assert sum(result[group]["unequal"] for group in GROUPS[:-1]) == 0


def test_adafactor_differs_by_design() -> None:
    """Where nothing is promised, nothing is broken."""
    result = verified(*CLASSIFY, "--optimizer", "adafactor")

    assert result["first loss"]["unequal"] == 0
    assert result["other weights"]["unequal"] > 0
    assert result["other weights"]["reason"] == "`adafactor` steps a row by what stands in others"


def test_a_language_model_has_the_exact_loss() -> None:
    """The first loss is that of the whole vocabulary; from then on unused rows go their way."""
    result = verified("--task", "masked-lm", "--text-column", "text")

    assert 0 < result["first loss"]["promised"] < 1e-4
    assert result["first loss"]["holds"]
    assert result["unused rows"]["unequal"] > 0


@pytest.mark.parametrize(
    ("group", "spoil"),
    [
        ("used rows", lambda weight: weight[1]),
        ("other weights", None),
    ],
)
def test_a_broken_promise_is_seen(group: str, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit in one number is enough, and the exit status tells."""

    def spoilt(job: Any, *rest: Any) -> Any:
        model: Any = load_model(job, *rest)
        if not job.full:
            embedding = next(iter(partial_embeddings(model).values()))
            row = spoil(embedding.weight) if spoil else model.bert.pooler.dense.weight[0]
            with torch.no_grad():
                row[0] = torch.nextafter(row[0], torch.tensor(9.0))
        return model

    monkeypatch.setattr("subvocab.integrations.verification.load_model", spoilt)

    result = verified(*CLASSIFY, "--learning-rate", "0", code=1)

    assert result[group]["unequal"] == 1
    assert not result[group]["holds"]
    assert not result["holds"]


def test_the_table_says_it_in_words() -> None:
    """Verdicts, and reasons below."""
    command = ["verify", "--model", "model", "--train", "train.jsonl", "--label-column", "label"]
    options = ["--weight-decay", "0.1", "--steps", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, *options])

    assert done.exit_code == 0
    assert "equal, bit for bit" in done.stdout
    assert "differs by design (1)" in done.stdout
    assert "(1) Full training lets weight decay shrink the unused rows." in done.stdout
    assert done.stdout.rstrip().endswith("The promise holds.")


def test_it_can_be_called() -> None:
    """From Python too, with the tokenizer that lies beside the model."""
    assert sv.verify("model", "train.jsonl", steps=2, label_column="label", use_cpu=True).holds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            (*CLASSIFY, "--optimizer", "adm"),
            "There is no optimizer `adm`, expected one of adamw, sgd, adagrad, rmsprop, adafactor.",
        ),
        ((*CLASSIFY, "--device", "gpu"), "There is no device `gpu`, expected auto or cpu."),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...], message: str) -> None:
    """With one message, before anything is loaded."""
    command = ["verify", "--model", "model", "--train", "train.jsonl", *options]
    done = CliRunner().invoke(app, command)

    assert done.exit_code == 2
    assert done.stderr == f"subvocab: {message}\n"
