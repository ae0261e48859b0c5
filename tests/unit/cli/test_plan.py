"""`subvocab plan` prints what the library foretells, and ends cleanly on every error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from typer.testing import CliRunner

from subvocab.analysis.savings import estimate_savings
from subvocab.cli.app import app
from subvocab.data import scan
from subvocab.model.shape import model_shape
from tests import tiny_tokenizers
from tests.models import tiny_config

ROWS = 500
"""More than the tokenizer has tokens, as in many models."""

TEXTS = ["the cat sat", "the dog didn't"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a model's folder without weights, texts, and counts of them."""
    tokenizer = tiny_tokenizers.wordpiece()
    model = tmp_path / "model"
    # A token that no text has and no tokenizer knows; the model may insert it all the same.
    tiny_config("bert", vocab_size=ROWS, eos_token_id=ROWS - 1).save_pretrained(model)
    tokenizer.save(str(model / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    (tmp_path / "a.csv").write_text("one,two\nthe cat,the dog\n")
    (tmp_path / "empty.txt").write_text("")
    counts = scan(TEXTS, tokenizer=tokenizer, full_vocab_size=ROWS)
    counts.save(tmp_path / "counts.safetensors")
    scan(TEXTS, tokenizer=tokenizer).save(tmp_path / "other.safetensors")
    counts.partial_vocabulary().save(tmp_path / "vocabulary.safetensors")
    hf.ViTConfig().save_pretrained(tmp_path / "vit")
    tiny_config("llama", tie_word_embeddings=False).save_pretrained(tmp_path / "llama")
    tokenizer.save(str(tmp_path / "llama" / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["plan", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def _json(*arguments: object) -> dict[str, Any]:
    status, printed, said = _run(*arguments, "--json")
    assert (status, said) == (0, "")
    figures: dict[str, Any] = json.loads(printed)
    return figures


def _in_a_process(*arguments: str) -> str:
    command = Path(sys.executable).parent / "subvocab"
    done = subprocess.run(
        [command, "plan", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.usefixtures("folder")
def test_plan_prints_json() -> None:
    """The figures are those of the library, from a process of its own."""
    figures = json.loads(_in_a_process("model", "a.txt", "--json"))

    counts = scan(TEXTS, tokenizer=tiny_tokenizers.wordpiece(), full_vocab_size=ROWS)
    shape = model_shape("model")
    vocabulary = counts.partial_vocabulary(shape.kept_token_ids)
    saved = estimate_savings(shape, len(vocabulary))
    assert figures["full_vocab_size"] == ROWS
    assert figures["partial_vocab_size"] == len(vocabulary)
    assert figures["total_tokens"] == counts.total_tokens
    assert figures["embedding_parameters"] == ROWS * 32
    assert figures["model_parameters"] == shape.model_parameters
    assert figures["embedding_reduction"] == saved.parameters.embedding_reduction
    assert figures["full_bytes"]["total"] == saved.full.total
    assert figures["partial_bytes"]["total"] == saved.partial.total
    assert figures["training"]["optimizer"] == "adamw"
    assert len(figures["combinations"]) == 15
    assert figures["not_counted"] == ["activations", "CUDA context", "fragmentation"]


@pytest.mark.usefixtures("folder")
def test_plan_prints_tables_that_fit_a_terminal() -> None:
    """Eighty columns; what is not counted is said."""
    printed = _in_a_process("model", "a.txt")

    assert max(map(len, printed.splitlines())) <= 80
    assert "Rows to keep, |V′|" in printed
    assert "Memory: fp32, adamw, batch 32 × 128\n" in printed
    assert "Does it fit 24 GB?\n" in printed
    assert printed.count("yes") == 30
    assert "Not counted: activations, CUDA context, allocator waste." in printed


@pytest.mark.usefixtures("folder")
def test_plan_takes_counts_in_place_of_texts() -> None:
    """A dataset is scanned once, and planned for many times; two parts are added."""
    from_texts = _json("model", "a.txt")

    assert _json("model/config.json", "counts.safetensors") == {
        **from_texts,
        "model": "model/config.json",
    }
    both = _json("model", "counts.safetensors", "a.txt")
    assert both["total_tokens"] == 2 * from_texts["total_tokens"]
    assert both["partial_vocab_size"] == from_texts["partial_vocab_size"]


@pytest.mark.usefixtures("folder")
def test_plan_without_data_tells_what_the_model_takes() -> None:
    """What would be saved is not known, and not made up."""
    figures = _json("model")
    status, printed, _ = _run("model")

    assert [name for name, value in figures.items() if value is None] == [
        "partial_vocab_size",
        "partial_embedding_parameters",
        "partial_model_parameters",
        "embedding_reduction",
        "model_reduction",
        "partial_bytes",
        "unique_tokens",
        "total_tokens",
    ]
    assert figures["combinations"][0]["partial_bytes"] is None
    assert figures["full_bytes"]["total"] == 16 * figures["model_parameters"]
    assert status == 0
    assert "PEMA" not in printed.replace("see what PEMA would save", "")
    assert "Name files of text or of counts to see what PEMA would save." in printed


@pytest.mark.usefixtures("folder")
def test_plan_hands_its_options_on() -> None:
    """Every one changes what is asked for."""
    options = "--precision mixed --optimizer adafactor --batch-size 8 --max-length 64"
    options += " --accumulation 2 --labels 5 --task token-classification"

    figures = _json("model", "a.txt", *options.split())

    assert figures["training"] == {
        "precision": "mixed",
        "optimizer": "adafactor",
        "batch_size": 8,
        "length": 64,
        "accumulation": 2,
        "head": "none",
    }
    shape = model_shape("model", task="token-classification", num_labels=5)
    assert figures["model_parameters"] == shape.model_parameters


@pytest.mark.usefixtures("folder")
def test_plan_trains_language_models_with_an_exact_head() -> None:
    """Unless another is asked for."""
    exact = _json("llama", "a.txt", "--task", "causal-lm", "--length", "16")
    whole = _json("llama", "a.txt", "--task", "causal-lm", "--length", "16", "--head", "whole")

    columns = exact["partial_vocab_size"] + 1
    assert exact["training"]["head"] == "exact"
    assert exact["partial_bytes"]["logits"] == 12 * 32 * 16 * columns
    assert whole["partial_bytes"]["logits"] == whole["full_bytes"]["logits"]


@pytest.mark.usefixtures("folder")
def test_plan_tells_what_fits() -> None:
    """To the byte: a GPU of what is needed is large enough."""
    needed = _json("model", "a.txt")["full_bytes"]["total"]

    fitting = {
        gpu_bytes: _json("model", "a.txt", "--gpu", f"{gpu_bytes / 10**9:.9f}")["combinations"][2]
        for gpu_bytes in (needed, needed - 1)
    }

    assert fitting[needed]["full_fits"]
    assert not fitting[needed - 1]["full_fits"]
    assert fitting[needed - 1]["partial_fits"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("./none a.txt", "subvocab: There is no file or folder ./none. Name a folder with"),
        ("no/such-model a.txt", "No model configuration could be found for no/such-model"),
        (". a.txt", "There is no config.json in ."),
        ("vit a.txt", "vit (`ViTConfig`) has no table of token embeddings"),
        ("model none.txt", "There is no file or folder"),
        ("model a.csv --text-column three", "has no column `three`"),
        ("model empty.txt", "There is not one token in the data"),
        ("vit --task causal-lm", "has no table of token embeddings"),
        ("model --head exact", "`model` has no output head over the vocabulary, but `head` is"),
        ("model --head half", "`head` is `half`, expected one of none, exact, restricted, whole."),
        ("model --precision fp8", "`precision` is `fp8`, expected one of fp32, bf16, mixed."),
        ("model --optimizer lion", "`optimizer` is `lion`, expected one of sgd, momentum, adamw"),
        ("model --task poetry", "`task` is `poetry`, expected one of classification, token-"),
        ("model --batch-size 2 --accumulation 4", "A batch of 2 sequences cannot be divided"),
        ("model vocabulary.safetensors", "holds `partial_vocabulary`, expected `token_counts`"),
        ("model none.safetensors", "There is no file none.safetensors."),
        ("model --gpu -1", "--gpu"),
        ("model --gpu inf", "`--gpu` is inf, expected gigabytes of memory."),
    ],
)
@pytest.mark.usefixtures("folder")
def test_plan_ends_with_2_and_one_message(arguments: str, message: str) -> None:
    """What a person can repair is said once, without a traceback."""
    status, printed, said = _run(*arguments.split())

    assert status == 2
    assert printed == ""
    assert message in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("folder")
def test_plan_refuses_a_tokenizer_that_is_too_large(folder: Path) -> None:
    """It would name rows that the matrix lacks, even if these texts do not."""
    tiny_config("bert", vocab_size=40).save_pretrained(folder / "small")
    tokens = tiny_tokenizers.wordpiece().get_vocab_size()

    status, _, said = _run("small", "a.txt", "--tokenizer", "model")

    assert status == 2
    assert said == (
        f"subvocab: The vocabulary of model has {tokens:,} tokens, but the embedding matrix of "
        "`small` has 40 rows. Name a tokenizer and a model that were made for each other.\n"
    )


@pytest.mark.usefixtures("folder")
def test_plan_refuses_counts_of_another_vocabulary() -> None:
    """They may be of another tokenizer."""
    tokens = tiny_tokenizers.wordpiece().get_vocab_size()

    status, _, said = _run("model", "other.safetensors")

    assert status == 2
    assert said == (
        f"subvocab: other.safetensors counts a vocabulary of {tokens:,} tokens, but the embedding "
        f"matrix of `model` has {ROWS:,} rows. Count with its tokenizer and `--full-vocab-size "
        f"{ROWS}`.\n"
    )


@pytest.mark.data
def test_plan_of_xlm_roberta_on_cola(data_folder: Path, tmp_path: Path) -> None:
    """Training rows of CoLA, with the sizes that the paper prints."""
    hf.XLMRobertaConfig(
        vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1
    ).save_pretrained(tmp_path / "xlm-r")

    figures = _json(
        tmp_path / "xlm-r",
        data_folder / "glue" / "CoLA" / "train.tsv",
        *("--no-header", "--text-column", "4"),
        *("--tokenizer", data_folder / "tokenizers" / "xlm-roberta"),
    )

    assert figures["embedding_parameters"] == 192_001_536
    # The padding, unknown and mask tokens are kept unseen.
    assert figures["partial_vocab_size"] == figures["unique_tokens"] + 3
    assert figures["embedding_reduction"] > 0.97
    assert figures["partial_bytes"]["total"] < 0.33 * figures["full_bytes"]["total"]
