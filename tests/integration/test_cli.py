"""The real command, as a process: what it prints, how it ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import subvocab
from tests import tiny_tokenizers
from tests.models import tiny_model

COMMAND = str(Path(sys.executable).with_name("subvocab"))
MODULE = (sys.executable, "-m", "subvocab")
PATIENCE = 120
"""Seconds; a busy machine takes its time to import torch."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Save a tiny model, its tokenizer and data in a folder to work in."""
    tiny_model("bert", "encoder").save_pretrained(tmp_path / "base")  # its head will be fresh
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece())
    tokenizer.save_pretrained(tmp_path / "base")
    rows = [{"text": text, "label": n % 2} for n, text in enumerate(tiny_tokenizers.CORPUS)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    return tmp_path


def _environment(folder: Path) -> dict[str, str]:
    """Keep all that a process writes on the way in the folder."""
    own = {"HF_HOME": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    shared = {name: value for name, value in os.environ.items() if name != "HF_DATASETS_CACHE"}
    return {**shared, **own, "HF_HUB_OFFLINE": "1"}


def _finetune(out: str) -> list[str]:
    data = ["--train", "data.jsonl", "--eval", "data.jsonl", "--label-column", "label"]
    return ["finetune", "--model", "base", *data, "--out", out]


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False
    )


def test_finetune_prints_json_and_nothing_else(folder: Path) -> None:
    """Without a terminal the standard error stays empty, and the output is one JSON object."""
    done = _run(folder, COMMAND, *_finetune("out"), "--json", "--epochs", "2")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    figures = json.loads(done.stdout)
    assert figures["partial_vocab_size"] < figures["full_vocab_size"] == 300
    model = AutoModelForSequenceClassification.from_pretrained(folder / figures["out"])
    tokenizer = AutoTokenizer.from_pretrained(folder / figures["out"])
    assert model(**tokenizer("the cat", return_tensors="pt")).logits.shape == (1, 2)
    assert list((folder / "tmp").iterdir()) == []


def test_finetune_interrupted_leaves_nothing(folder: Path) -> None:
    """Ctrl-C in the middle of training ends with 130 and one line, and no file is left."""
    before = set(folder.iterdir())
    process = subprocess.Popen(
        [COMMAND, *_finetune("out"), "--epochs", "100000"],
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with interrupts ignored, and they inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + PATIENCE
    while not list((folder / "tmp").iterdir()):  # made for the Trainer, just before training
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)

    process.send_signal(signal.SIGINT)
    try:
        printed, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()  # does nothing to one that has ended

    assert process.returncode == 130
    assert (printed, said) == ("", "subvocab: Interrupted; nothing was written.\n")
    assert set(folder.iterdir()) - before <= {folder / "cache"}
    assert list((folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("command", [(COMMAND,), MODULE], ids=["script", "module"])
def test_errors_are_one_message(folder: Path, command: tuple[str, ...]) -> None:
    """Both ways to start the command end with 2, without a traceback."""
    done = _run(folder, *command, "inspect", "data.jsonl")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("subvocab: ")
    assert done.stderr.count("\n") == 1


def test_broken_data_is_one_message(folder: Path) -> None:
    """What `datasets` logs about a file that it cannot read is not said a second time."""
    (folder / "data.jsonl").write_text('{"text": "a", "label":\n')

    done = _run(folder, COMMAND, *_finetune("out"))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("subvocab: `data.jsonl` cannot be loaded: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["scan"], ["finetune"], ["merge"], ["inspect"]])
def test_help_is_printed(tmp_path: Path, command: list[str]) -> None:
    """Every command explains itself."""
    done = _run(tmp_path, COMMAND, *command, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")


def test_version_is_printed(tmp_path: Path) -> None:
    """A report of a fault can say which version it is about."""
    done = _run(tmp_path, COMMAND, "--version")

    assert (done.returncode, done.stdout) == (0, f"subvocab {subvocab.__version__}\n")
