"""`subvocab merge` makes a compact checkpoint whole, on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

import subvocab as sv
from subvocab.cli.app import app
from subvocab.model.row_adapter import RowAdapter


@pytest.fixture
def folder(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Save a shrunk model with learned rows, compact and whole."""
    vocabulary = sv.PartialVocabulary(np.array([0, 1, 2, 3, 4, 7, 42]), full_vocab_size=300)
    model = sv.from_pretrained(AutoModelForSequenceClassification, base, vocabulary)
    with torch.no_grad():
        model.get_input_embeddings().weight += 1
    sv.save_compact(model, base.parent / "small")
    model.save_pretrained(base.parent / "whole")
    monkeypatch.chdir(base.parent)
    return base.parent


def _run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["merge", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_merge_equals_saving_whole_bit_for_bit(folder: Path) -> None:
    """Which way a whole model is written makes no difference to its weights."""
    done = _run("small", "--base", "base", "--out", "out")

    assert done == (0, "The whole model lies in out\n", "")
    models = [
        AutoModelForSequenceClassification.from_pretrained(folder / n) for n in ("out", "whole")
    ]
    one, other = (model.state_dict() for model in models)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(
        one["bert.embeddings.word_embeddings.weight"],
        AutoModelForSequenceClassification.from_pretrained(folder / "base")
        .get_input_embeddings()
        .weight,
    )


def test_merge_brings_the_tokenizer_along(folder: Path) -> None:
    """What the base has and the compact checkpoint lacks is copied."""
    _run("small", "--base", "base", "--out", "out")

    there = {file.name for file in (folder / "out").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "config.json"} <= there
    assert not there & {"subvocab.json", "vocabulary.safetensors"}


def test_merge_writes_a_row_adapter_into_its_base(folder: Path) -> None:
    """A file instead of a folder: the learned rows alone."""
    vocabulary = sv.PartialVocabulary(np.array([0, 7, 42]), full_vocab_size=300)
    model = sv.from_pretrained(AutoModelForSequenceClassification, folder / "base", vocabulary)
    with torch.no_grad():
        model.get_input_embeddings().weight += 1
    RowAdapter.of(model).save("rows.safetensors")

    done = _run("rows.safetensors", "--base", "base", "--out", "out")

    assert done == (0, "The whole model lies in out\n", "")
    merged = AutoModelForSequenceClassification.from_pretrained(folder / "out")
    assert torch.equal(
        merged.get_input_embeddings().weight,
        model.state_dict()["bert.embeddings.word_embeddings.weight"],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("none", "base", "out"),
            "subvocab: There is no file or folder none. Name what `subvocab.save_compact` or ",
        ),
        (("whole", "base", "out"), "whole is no compact checkpoint: it has no subvocab.json. "),
        (("small", "none", "out"), "`none` is no folder here, and could not be had from the Hub: "),
        (("small", "whole", "out"), "/whole is the one that was shrunk; of 300 rows there: "),
        (("small", "base", "whole"), "whole exists already, and nothing is ever overwritten. "),
        (
            ("whole/model.safetensors", "base", "out"),
            "whole/model.safetensors holds `None`, expected `row_adapter`. ",
        ),
        (("small", "base", "none/out"), "/none to write `out` in. Make it.\n"),
    ],
)
def test_merge_ends_with_2_and_one_message(
    folder: Path, arguments: tuple[str, str, str], message: str
) -> None:
    """What a person can repair is said once, and nothing is left behind."""
    before = set(folder.iterdir())
    checkpoint, base, out = arguments

    status, printed, said = _run(checkpoint, "--base", base, "--out", out)

    assert (status, printed) == (2, "")
    assert message in said
    assert said.count("\n") == 1
    assert set(folder.iterdir()) == before


def test_merge_needs_a_base() -> None:
    """The rows that were left out must come from somewhere."""
    status, _, said = _run("small", "--out", "out")

    assert status == 2
    assert "Missing option '--base'" in said
