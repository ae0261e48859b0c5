"""`subvocab scan` prints what the library counts, and ends cleanly on every error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from subvocab.cli.app import app
from subvocab.data import scan
from subvocab.vocabulary import TokenCounts
from tests import tiny_tokenizers

TEXTS = ["the cat sat", "the dog didn't"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a tokenizer and files of text."""
    tiny_tokenizers.wordpiece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    (tmp_path / "a.csv").write_text("one,two\nthe cat,the dog\n")
    return tmp_path


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["scan", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_scan_prints_json_and_keeps_counts(folder: Path) -> None:
    """The figures are those of the counts in the file written."""
    out = folder / "counts.safetensors"

    status, printed, _ = _run(
        folder / "a.txt", "--tokenizer", folder, "--full-vocab-size", 500, "--out", out, "--json"
    )

    expected = scan(TEXTS, tokenizer=tiny_tokenizers.wordpiece(), full_vocab_size=500)
    assert status == 0
    assert TokenCounts.load(out) == expected
    assert json.loads(printed) == {
        "full_vocab_size": 500,
        "unique_tokens": expected.unique_tokens,
        "total_tokens": expected.total_tokens,
        "partial_vocab_size": len(expected.partial_vocabulary()),
    }


def test_scan_encodes_two_columns_as_a_pair(folder: Path) -> None:
    """Two text columns share one text's special tokens, and one truncation."""
    options = ("--tokenizer", folder / "tokenizer.json", "--json", "--max-length", 5)

    _, printed, _ = _run(folder / "a.csv", "--text-column", "one", "--text-column", "two", *options)

    assert json.loads(printed)["total_tokens"] == 5


def test_scan_prints_a_table(folder: Path) -> None:
    """Without --json a person reads it."""
    status, printed, _ = _run(folder / "a.txt", "--tokenizer", folder)

    assert status == 0
    assert "Distinct tokens seen" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "subvocab: There is no file or folder"),
        (
            ["a.csv"],
            "subvocab: a.csv has 2 columns of text, and none of them is named text or sentence",
        ),
        (["a.csv", "--text-column", "three"], "has no column `three`"),
        (["a.txt", "--out", "none/counts"], "There is no folder"),
        (["a.txt", "--out", "."], "is a folder, expected the name of a file"),
        (["a.txt", "--tokenizer", "a.csv"], "holds no tokenizer"),
        (["a.txt", "--tokenizer", "./none"], "There is no tokenizer ./none"),
        (["a.txt", "--tokenizer", "no/such"], "No tokenizer could be loaded from no/such"),
        (["a.txt", "--max-length", "0"], "--max-length"),
        (["a.txt", "--none"], "No such option"),
    ],
)
def test_scan_ends_with_2_and_one_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """What a person can repair is said once, without a traceback."""
    monkeypatch.chdir(folder)
    tokenizer = [] if "--tokenizer" in arguments else ["--tokenizer", "."]

    status, printed, said = _run(*arguments, *tokenizer)

    assert status == 2
    assert printed == ""
    assert message in said
    assert "Traceback" not in said


def test_scan_interrupted_writes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and leaves no file."""

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subvocab.data.scan", interrupt)
    out = folder / "counts.safetensors"

    status, _, said = _run(folder / "a.txt", "--tokenizer", folder, "--out", out)

    assert (status, said) == (130, "subvocab: Interrupted; nothing was written.\n")
    assert not out.exists()


def test_scan_runs_as_a_command(folder: Path) -> None:
    """The installed command does the same in a process of its own."""
    command = Path(sys.executable).parent / "subvocab"

    done = subprocess.run(
        [command, "scan", folder / "a.txt", "--tokenizer", folder, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout)["unique_tokens"] > 5
    assert done.stderr == ""


def test_help_loads_nothing_heavy() -> None:
    """Asking for help takes a blink: neither torch nor Arrow is loaded."""
    program = (
        "import sys\nfrom subvocab.cli import main\nsys.argv = ['subvocab', 'scan', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'numba'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.endswith("[]\n")
