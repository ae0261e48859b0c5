"""Tests of the file format of small values."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from subvocab.errors import CheckpointError
from subvocab.storage.header import encode_header
from subvocab.vocabulary.record import fingerprint, load_record, record_kind, save_record, sealed

ARRAYS = {"a": np.array([1, 2]), "b": np.zeros(0, dtype=np.int64)}


def test_load_record_gives_what_was_saved(tmp_path: Path) -> None:
    """Arrays and fingerprint."""
    save_record(tmp_path / "r", "thing", ARRAYS, fingerprint="f00")

    tensors, written = load_record(tmp_path / "r", "thing")

    assert {name: array.tolist() for name, array in tensors.items()} == {"a": [1, 2], "b": []}
    assert written == "f00"


def test_record_kind_tells_what_a_file_holds(tmp_path: Path) -> None:
    """A value of ours, or a safetensors file of another origin."""
    save_record(tmp_path / "ours", "thing", ARRAYS, fingerprint="f00")
    save_file(ARRAYS, tmp_path / "theirs")

    assert record_kind(tmp_path / "ours") == "thing"
    assert record_kind(tmp_path / "theirs") is None


def test_load_record_refuses_a_file_of_another_origin(tmp_path: Path) -> None:
    """A checkpoint is no record."""
    path = tmp_path / "theirs"
    save_file(ARRAYS, path)
    expected = f"{path} holds `None`, expected `thing`. Look into it with `subvocab inspect`."

    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        load_record(path, "thing")


def test_load_record_refuses_a_missing_file(tmp_path: Path) -> None:
    """The path is given in full."""
    with pytest.raises(CheckpointError, match=f"^There is no file {tmp_path}/r\\.$"):
        load_record(tmp_path / "r", "thing")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle of old", b"\xff" * 64])
def test_load_record_refuses_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    """Truncated, or of another format."""
    path = tmp_path / "r"
    path.write_bytes(content)

    with pytest.raises(
        CheckpointError,
        match=rf"^{path} is not a whole safetensors file \(.*\)\. Write it anew, or fetch it again",
    ):
        load_record(path, "thing")


def test_load_record_refuses_a_dtype_that_numpy_lacks(tmp_path: Path) -> None:
    """A record holds integers; anything else was not written here."""
    path = tmp_path / "r"
    head = encode_header({"a": ("BF16", (1,), 0)}, {"subvocab.kind": "thing"})
    path.write_bytes(head + b"12")

    with pytest.raises(
        CheckpointError,
        match=rf"^{path} holds arrays that are no integers \(.*\)\. Write it anew from the data",
    ):
        load_record(path, "thing")


def test_save_record_keeps_the_old_file_if_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once or not at all."""
    path = tmp_path / "r"
    save_record(path, "thing", ARRAYS, fingerprint="f00")
    before = path.read_bytes()

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(KeyboardInterrupt):
        save_record(path, "thing", ARRAYS, fingerprint="f01")

    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["r"]  # noqa: PTH208  hidden ones too


def test_save_record_gives_usual_permissions(tmp_path: Path) -> None:
    """Not those of a temporary file."""
    (tmp_path / "usual").touch()

    save_record(tmp_path / "r", "thing", ARRAYS, fingerprint="f00")

    assert (tmp_path / "r").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_save_record_keeps_the_permissions_of_the_old_file(tmp_path: Path) -> None:
    """A file closed to others stays closed."""
    (tmp_path / "r").touch(0o600)

    save_record(tmp_path / "r", "thing", ARRAYS, fingerprint="f00")

    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600


def test_fingerprint_counts_lengths() -> None:
    """Moving a number from one array to the next makes another value."""
    first, second = np.array([1]), np.array([2])

    assert fingerprint(np.array([1, 2])) != fingerprint(first, second)


def test_fingerprint_is_of_values_not_widths() -> None:
    """The same on every machine and for every dtype."""
    assert fingerprint(np.array([1, 2], dtype=np.int16)) == fingerprint(np.array([1, 2]))


def test_sealed_is_a_copy_as_int64() -> None:
    """Neither the caller nor anyone else can change it."""
    array = np.array([1, 2], dtype=np.int16)

    copy = sealed(array)
    array[0] = 9

    assert (copy.tolist(), copy.dtype.name, copy.flags.writeable) == ([1, 2], "int64", False)


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("PartialVocabulary(np.array([0.5, 1.7]), 50)", "float64 and of shape (2,)"),
        ("PartialVocabulary(np.array([[1, 2]]), 50)", "int64 and of shape (1, 2)"),
        ("PartialVocabulary(np.array([True]), 50)", "bool and of shape (1,)"),
        ("PartialVocabulary(np.array([1]), 50).union([1.5])", "float64 and of shape (1,)"),
        ("TokenCounts(np.array([0.9, 1.7]))", "float64 and of shape (2,)"),
        ("TokenCounts(np.array([1])).partial_vocabulary([.5])", "float64 and of shape (1,)"),
    ],
)
def test_nothing_is_rounded_to_a_token(call: str, given: str) -> None:
    """In a process of its own, as users have it: here types are checked before."""
    code = f"import numpy as np; from subvocab.vocabulary import *; {call}"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr.splitlines()[-1].endswith(
        f"VocabularyMismatchError: An array of {given} was given, expected integers in one "
        "dimension. Convert it first, if they are token ids or counts."
    )
