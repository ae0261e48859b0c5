"""`subvocab report` writes a page and prints its numbers, and ends cleanly on every error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from subvocab.analysis.heaps import fit_heaps
from subvocab.cli.app import app
from subvocab.data import scan_growth
from tests import tiny_tokenizers
from tests.models import tiny_config, tiny_model

TEXTS = ["the cat sat on the mat", "the dog didn't", "a naïve café in São Paulo"]
WORDPIECE = tiny_tokenizers.wordpiece().get_vocab_size()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a tokenizer, files of text and models, and go there."""
    tiny_tokenizers.wordpiece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "one.txt").write_text("cat")
    (tmp_path / "latin.txt").write_bytes("the cat\nder Bär\n".encode("latin-1"))
    (tmp_path / "a.csv").write_text("one,two\nthe cat,the dog\n")
    tiny_model("bert", vocab_size=WORDPIECE + 20).save_pretrained(tmp_path / "large")
    tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece()).save_pretrained(tmp_path / "large")
    tiny_config("bert", vocab_size=WORDPIECE).save_pretrained(tmp_path / "equal")
    tiny_config("bert", vocab_size=WORDPIECE - 20).save_pretrained(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_report_writes_a_page_and_prints_its_numbers(folder: Path) -> None:
    """What is printed is what the library finds, and stands on the page."""
    status, printed, said = _run("a.txt", "--tokenizer", ".", "--out", "a.html", "--json")

    found = json.loads(printed)
    growth = scan_growth(TEXTS, tokenizer=tiny_tokenizers.wordpiece())
    page = (folder / "a.html").read_text(encoding="utf-8")
    assert (status, said) == (0, "")
    assert found["out"] == "a.html"
    assert found["unique_tokens"] == growth.counts.unique_tokens
    assert found["total_tokens"] == growth.counts.total_tokens
    assert sum(found["unused"].values()) == WORDPIECE - growth.counts.unique_tokens
    assert found["fits"]["heaps"]["exponent"] == fit_heaps(growth).exponent
    assert found["savings"] == []
    assert f"{growth.counts.unique_tokens:,} of {WORDPIECE:,} tokens are used" in page
    assert growth.fingerprint in page


def test_report_compares_models(folder: Path) -> None:
    """Each model's figures are those of its own matrix, which may have more rows."""
    options = ("--tokenizer", ".", "--model", "equal", "--model", "large/config.json")

    status, printed, _ = _run("a.txt", *options, "--out", "a.html", "--json")

    found = json.loads(printed)
    assert status == 0
    assert found["full_vocab_size"] == WORDPIECE
    assert [saved["model"] for saved in found["savings"]] == ["equal", "large"]
    sizes = [saved["full_vocab_size"] for saved in found["savings"]]
    assert sizes == [WORDPIECE, WORDPIECE + 20]
    assert all(0 < saved["model_reduction"] < 1 for saved in found["savings"])
    assert "Where the bytes go" in (folder / "a.html").read_text(encoding="utf-8")


def test_report_keeps_rows_that_no_token_has(folder: Path) -> None:
    """A model may keep an id that the tokenizer lacks; models of other sizes do not know it."""
    tiny_config("bert", vocab_size=WORDPIECE + 20, eos_token_id=WORDPIECE + 9).save_pretrained(
        folder / "ending"
    )
    options = ("--tokenizer", ".", "--model", "equal", "--model", "ending")

    status, printed, said = _run("a.txt", *options, "--out", "a.html", "--json")

    found = json.loads(printed)
    assert (status, said) == (0, "")
    kept = [saved["partial_vocab_size"] for saved in found["savings"]]
    assert kept == [found["partial_vocab_size"], found["partial_vocab_size"] + 1]


def test_report_takes_the_tokenizer_of_the_only_model(folder: Path) -> None:
    """A model's folder is enough; |V| is the rows of its matrix."""
    status, printed, said = _run("a.txt", "--model", "large", "--out", "a.html")

    assert (status, said) == (0, "")
    assert f"{WORDPIECE + 20} " in printed
    assert "Parameters saved, large" in printed
    assert printed.endswith("The report lies in a.html\n")
    assert "(no token)" in (folder / "a.html").read_text(encoding="utf-8")


def test_report_of_a_language_model_has_logits(folder: Path) -> None:
    """The task decides what the head takes."""
    tiny_config("gpt2", vocab_size=WORDPIECE).save_pretrained(folder / "speaker")
    options = ("--model", "speaker", "--tokenizer", ".", "--task", "causal-lm")

    status, printed, said = _run("a.txt", *options, "--out", "a.html", "--json")

    assert (status, said) == (0, "")
    (saved,) = json.loads(printed)["savings"]
    assert saved["training"]["head"] == "exact"
    assert saved["full_bytes"]["logits"] > saved["partial_bytes"]["logits"] > 0


def test_report_passes_on_how_to_read(folder: Path) -> None:
    """Columns, truncation and |V| are those asked for."""
    options = ("--text-column", "one", "--text-column", "two", "--max-length", 5)

    _, printed, _ = _run(
        "a.csv", "--tokenizer", ".", *options, "--full-vocab-size", 500, "--out", "a", "--json"
    )

    assert json.loads(printed)["total_tokens"] == 5
    assert json.loads(printed)["full_vocab_size"] == 500
    assert "one and two" in (folder / "a").read_text(encoding="utf-8")


def test_report_of_one_text_says_that_no_law_fits(folder: Path) -> None:
    """Too little for a law is enough for a page."""
    status, printed, _ = _run("one.txt", "--tokenizer", ".", "--out", "a.html", "--json")

    found = json.loads(printed)
    assert status == 0
    assert found["fits"] == {"heaps": None, "saturating": None}
    assert found["unfitted"].startswith("3 tokens are too few")
    assert "No law could be fitted" in (folder / "a.html").read_text(encoding="utf-8")


def test_report_of_a_file_whose_name_is_no_text(folder: Path) -> None:
    """What it cannot say it writes as bytes."""
    named = os.fsdecode(b"a\xff.txt")
    (folder / named).write_bytes((folder / "a.txt").read_bytes())

    status, _, said = _run(named, "--tokenizer", ".", "--out", "a.html")

    assert (status, said) == (0, "")
    assert r"a\udcff.txt" in (folder / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "subvocab: There is no file or folder"),
        (["empty.txt"], "There is nothing to report: the data hold no token."),
        (["latin.txt"], "latin.txt"),
        (["a.csv", "--text-column", "three"], "has no column `three`"),
        (["a.txt", "--out", "none/a.html"], "There is no folder"),
        (["a.txt", "--out", "."], "is a folder, expected the name of a file"),
        (["a.txt", "--tokenizer", "./none"], "There is no tokenizer ./none"),
        (["a.txt", "--model", "./none"], "There is no file or folder ./none"),
        (["a.txt", "--model", "equal", "--task", "none"], "`task` is `none`, expected one of"),
    ],
)
def test_report_ends_with_2_and_one_message(
    folder: Path, arguments: list[str], message: str
) -> None:
    """What a person can repair is said once, and no page is left."""
    out = [] if "--out" in arguments else ["--out", "a.html"]
    tokenizer = [] if "--tokenizer" in arguments else ["--tokenizer", "."]

    status, printed, said = _run(*arguments, *tokenizer, *out)

    assert (status, printed) == (2, "")
    assert message in said
    assert "Traceback" not in said
    assert not (folder / "a.html").exists()


@pytest.mark.usefixtures("folder")
def test_report_refuses_a_model_with_fewer_rows_than_tokens() -> None:
    """Ids without a row cannot be trained."""
    status, _, said = _run("a.txt", "--tokenizer", ".", "--model", "small", "--out", "a.html")

    assert status == 2
    assert said == (
        f"subvocab: The vocabulary of . has {WORDPIECE} tokens, but the embedding matrix of "
        f"`small` has {WORDPIECE - 20} rows. Name a tokenizer and a model that were made for each "
        "other.\n"
    )


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("models", "amount"), [([], "no"), (["--model", "equal", "--model", "large"], "2")]
)
def test_report_needs_one_tokenizer(models: list[str], amount: str) -> None:
    """Without a tokenizer texts have no tokens."""
    status, _, said = _run("a.txt", *models, "--out", "a.html")

    assert status == 2
    assert said == (
        f"subvocab: No tokenizer is named, and {amount} models. Name one with `--tokenizer`, or a "
        "single `--model` that has its own.\n"
    )


def test_report_without_matplotlib_ends_before_the_scan(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a scan to learn what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    status, _, said = _run("none.txt", "--tokenizer", ".", "--out", folder / "a.html")

    assert status == 2
    assert "Run `pip install 'subvocab[report]'`." in said


@pytest.mark.usefixtures("folder")
def test_report_without_models_loads_no_torch() -> None:
    """Scanning and drawing run where there is no model."""
    program = (
        "import sys\nfrom subvocab.cli.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\nprint('torch' in sys.modules)"
    )
    arguments = ["report", "a.txt", "--tokenizer", "tokenizer.json", "--out", "a.html"]

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )

    assert done.stdout.endswith("False\n")
