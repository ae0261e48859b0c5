"""What README.md shows works as it is shown, on a tiny model."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import typer
from transformers import AutoModelForSequenceClassification, Trainer

import subvocab as sv
from subvocab.cli.app import app
from tests import tiny_tokenizers
from tests.models import tiny_model
from tests.pages import ROOT, python_blocks, run_block

PYTHON = python_blocks("README.md")
COMMANDS = re.findall(r"^subvocab .*", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
COMMAND = typer.main.get_group(app)


def test_first_snippet_runs(names: dict[str, Any]) -> None:
    """The quick start starts, and what it saves is the whole model."""
    run_block(PYTHON[0], names)

    whole = names["AutoModelForSequenceClassification"].from_pretrained(names["out"])
    assert len(whole.get_input_embeddings().weight) == len(names["tokenizer"])


def test_second_snippet_runs(names: dict[str, Any]) -> None:
    """One line is enough where there is a Trainer."""
    model = AutoModelForSequenceClassification.from_pretrained(names["name"])
    names["trainer"] = Trainer(
        model=model,
        args=names["args"],
        train_dataset=names["dataset"],
        data_collator=names["collator"],
    )

    run_block("import subvocab as sv\n" + PYTHON[1], names)

    assert names["trainer"].state.global_step > 0
    assert len(sv.vocabulary_of(model)) < len(names["tokenizer"])


def test_third_snippet_runs(names: dict[str, Any]) -> None:
    """A language model trains and generates; its own base lies where `name` says."""
    model = tiny_model("gpt2", "causal-lm", vocab_size=len(names["tokenizer"]))
    model.save_pretrained(names["name"])
    rows = names["dataset"]["input_ids"]
    names["sv"] = sv
    names["blocks"] = datasets.Dataset.from_dict({"input_ids": rows, "labels": rows})
    names["batch"] = {"input_ids": torch.tensor(rows[:1]), "labels": torch.tensor(rows[:1])}
    names["prompt"] = {"input_ids": torch.tensor(rows[:1]), "max_new_tokens": 3}

    run_block(PYTHON[2], names)

    assert type(names["model"]) is not type(model)
    assert isinstance(names["model"], type(model))


def test_fourth_snippet_runs(names: dict[str, Any]) -> None:
    """Each statement works by itself: `shrink` on a whole model, the others on a shrunk one."""
    run_block(PYTHON[0], names)
    load = names["AutoModelForSequenceClassification"].from_pretrained

    for statement in ast.parse(PYTHON[3]).body:
        program = ast.unparse(statement)
        names["model"] = load(names["name"])
        if not program.startswith("sv.shrink("):
            sv.shrink(names["model"], names["vocabulary"])
        run_block(program, names)

    run_block(
        PYTHON[0].split("\n\n")[-1].replace("collator)", "collator, callbacks=callbacks)"), names
    )
    assert len(load("final").get_input_embeddings().weight) == len(names["tokenizer"])


def test_fifth_snippet_runs(names: dict[str, Any]) -> None:
    """Each line gives something; a tiny corpus is enough for a law."""
    Path("train.txt").write_text("\n".join(tiny_tokenizers.CORPUS * 9), encoding="utf-8")

    run_block("import subvocab as sv\n" + PYTHON[4], names)

    assert names["growth"].counts.unique_tokens > 0


def test_there_are_no_other_snippets() -> None:
    """A new snippet needs a test of its own."""
    assert len(PYTHON) == 5


def test_every_command_is_shown() -> None:
    """README shows each command once at least."""
    assert {line.split()[1] for line in COMMANDS} == set(COMMAND.commands)


@pytest.mark.parametrize("line", COMMANDS)
def test_command_lines_use_options_that_exist(line: str) -> None:
    """Nobody is told to type what is refused."""
    _, name, *words = shlex.split(line, comments=True)
    command = COMMAND.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}

    assert {word for word in words if word.startswith("-")} <= options
