"""The pages in `docs`: what they show works, and they hold together."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import subvocab as sv
from docs.hooks import messages
from tests.models import tiny_model
from tests.pages import ROOT, python_blocks, run_block

PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
GENERAL = {"checkpoints.md", "how_it_works.md", "index.md", "language_models.md"}
"""Pages whose snippets are run here; an integration's are run by its own test."""


def test_quickstart_runs(names: dict[str, Any]) -> None:
    """Three lines, and one line; what is saved is the whole model."""
    for program in python_blocks("docs/index.md"):
        run_block(program, names)

    whole = AutoModelForSequenceClassification.from_pretrained(names["out"])
    assert len(whole.get_input_embeddings().weight) == len(names["tokenizer"])
    assert len(sv.vocabulary_of(names["model"])) < len(names["tokenizer"])


def test_the_method_runs() -> None:
    """The numbers on the page are right."""
    names: dict[str, Any] = {}
    for program in python_blocks("docs/how_it_works.md"):
        run_block(program, names)

    assert names["E"].shape == (10, 2)


def test_language_models_run(names: dict[str, Any]) -> None:
    """It trains and generates."""
    model = tiny_model("gpt2", "causal-lm", vocab_size=len(names["tokenizer"]))
    model.save_pretrained(names["name"])
    rows = names["dataset"]["input_ids"]
    names["blocks"] = datasets.Dataset.from_dict({"input_ids": rows, "labels": rows})
    names["batch"] = {"input_ids": torch.tensor(rows[:1]), "labels": torch.tensor(rows[:1])}
    names["prompt"] = {"input_ids": torch.tensor(rows[:1]), "max_new_tokens": 3}

    for program in python_blocks("docs/language_models.md"):
        run_block(program, names)

    assert isinstance(names["model"], type(model))


def test_checkpoints_run(names: dict[str, Any]) -> None:
    """All three ways to a whole model give the same one."""
    for program in python_blocks("docs/checkpoints.md"):
        run_block(program, names)

    load = AutoModelForSequenceClassification.from_pretrained
    states = [load(folder).state_dict() for folder in ("whole", "final")]
    states.append(names["model"].state_dict())
    for name, tensor in states[0].items():
        assert all(torch.equal(tensor, state[name]) for state in states[1:])


@pytest.mark.parametrize("page", sorted(set(PAGES) - GENERAL))
def test_snippets_of_every_page_are_run(page: str) -> None:
    """A page with snippets is named by a test that runs them."""
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]

    assert not python_blocks(f"docs/{page}") or any(f"docs/{page}" in text for text in tests)


def test_the_reference_has_every_public_name() -> None:
    """And no other."""
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: (subvocab\.\S+)", text, re.MULTILINE))
    homes = {f"{home}.{name}" for name, home in sv._HOMES.items()}

    assert homes <= shown


def test_the_usual_messages_are_messages() -> None:
    """What the page explains is what the library says."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    usual = re.findall(r"^\| \*(.+?)\* \|", page, re.MULTILINE)
    said = " ".join(re.findall(r"\w+", messages()))  # values stand between words, or not

    assert len(usual) > 5
    for message in usual:
        assert " ".join(re.findall(r"\w+", message)) in said


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    """Without a warning: every link and every name on every page leads somewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    built = {path.stem for path in tmp_path.glob("*.html")} - {"404"}
    assert built == {Path(page).stem for page in PAGES}
    assert "<!-- messages -->" not in (tmp_path / "troubleshooting.html").read_text("utf-8")
