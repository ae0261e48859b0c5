"""What all commands share: one message, an exit status, and output that programs can read."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from pathlib import Path

import pytest
import typer

from subvocab.cli.console import (
    check_writable,
    exits_cleanly,
    print_json,
    print_table,
    usage_rows,
)
from subvocab.errors import DataError


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (DataError("There is none. Make one."), 2, "There is none. Make one."),
        (OSError(errno.ENOSPC, "No space left", "/x"), 2, "/x: No space left."),
        (OSError("No file was found."), 2, "No file was found."),
        (KeyboardInterrupt(), 130, "Interrupted; nothing was written."),
    ],
)
def test_exits_cleanly_says_one_thing(
    capsys: pytest.CaptureFixture[str], raised: BaseException, status: int, message: str
) -> None:
    """Errors that a person can repair are one line on the standard error."""

    def command() -> None:
        raise raised

    with pytest.raises(typer.Exit) as ended:
        exits_cleanly(command)()

    assert ended.value.exit_code == status
    assert capsys.readouterr() == ("", f"subvocab: {message}\n")


def test_exits_cleanly_shows_a_fault_of_ours() -> None:
    """What nobody expected keeps its traceback."""

    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exits_cleanly(command)()


def test_check_writable_refuses_a_folder(tmp_path: Path) -> None:
    """A file cannot take the place of a folder."""
    with pytest.raises(DataError) as caught:
        check_writable(tmp_path)

    assert str(caught.value) == f"{tmp_path} is a folder, expected the name of a file to write."


def test_check_writable_refuses_a_pipe(tmp_path: Path) -> None:
    """A file would displace it, as it would displace a device."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(DataError, match=r"pipe is a device or a pipe, expected the name of a file"):
        check_writable(tmp_path / "pipe")


def test_exits_cleanly_leaves_a_broken_pipe_to_click() -> None:
    """Whoever reads has read enough: no message, and no status that says who is to blame."""

    def command() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        exits_cleanly(command)()


def test_exits_cleanly_prints_what_the_terminal_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter that cannot be shown does not cost the result."""
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding="latin-1"))

    exits_cleanly(lambda: print("Rows to keep, |V′|: é", flush=True))()  # noqa: T201

    assert printed.getvalue() == "Rows to keep, |V?|: é\n".encode("latin-1")


def test_check_writable_refuses_a_missing_folder(tmp_path: Path) -> None:
    """Folders are not made in passing: a slip of the pen would make them."""
    with pytest.raises(DataError) as caught:
        check_writable(tmp_path / "none" / "file")

    expected = f"There is no folder {tmp_path / 'none'} to write file to. Make it first."
    assert str(caught.value) == expected


def test_print_table_keeps_long_values_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A fingerprint that is cut names nothing."""
    print_table("a", {"fingerprint": "0123456789" * 12})

    assert "".join(re.findall(r"\d", capsys.readouterr().out)) == "0123456789" * 12


def test_check_writable_accepts_what_can_be_written(tmp_path: Path) -> None:
    """A new file, an old one, and none at all."""
    (tmp_path / "old").touch()

    for path in (tmp_path / "new", tmp_path / "old", None):
        check_writable(path)


def test_print_json_writes_standard_json(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN and infinities are no JSON, at any depth."""
    values = {"a": float("nan"), "b": {"c": [1.5, float("inf")]}, "d": "é", "e": 3}

    print_json(values)

    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": None, "b": {"c": [1.5, None]}, "d": "é", "e": 3}
    assert printed.count("\n") == 1


def test_usage_rows_give_the_share_of_rows_to_keep() -> None:
    """Of all rows, not of the tokens seen."""
    figures = {
        "full_vocab_size": 30_522,
        "unique_tokens": 3_000,
        "total_tokens": 67_349,
        "partial_vocab_size": 3_052,
    }

    assert list(usage_rows(figures).values()) == ["30,522", "67,349", "3,000", "3,052 (10.0%)"]


def test_print_table_takes_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets in names and values are no markup."""
    print_table("[a] title", {"[red]name": "[/value]"})

    printed = capsys.readouterr().out
    assert "[a] title" in printed
    assert "[red]name" in printed
    assert "[/value]" in printed


def test_check_writable_refuses_what_is_read(tmp_path: Path) -> None:
    """Data are not written over by what was found in them, under whatever name they go."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "a.jsonl"
    file.touch()
    (tmp_path / "link").symlink_to(file)

    for target, source in [(file, file), (file, file.parent), (tmp_path / "link", file)]:
        with pytest.raises(DataError, match=f"{target} is among the data that are read"):
            check_writable(target, [source])
    check_writable(tmp_path / "b", [file])
    check_writable(tmp_path / "data" / "new", [file.parent])
    (tmp_path / "data" / "counts.safetensors").touch()
    check_writable(tmp_path / "data" / "counts.safetensors", [file.parent])  # is not read
