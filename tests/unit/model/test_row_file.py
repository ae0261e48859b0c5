"""The file of a row adapter is read as if written by an enemy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import subvocab as sv
from subvocab.model.row_adapter import RowAdapter
from subvocab.model.row_file import TABLES_KEY
from subvocab.storage.header import read_header
from tests.models import tiny_language_model
from tests.reference import drawn_vocabulary

Tensors = dict[str, Tensor]
NAME = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Save an adapter with two tables, of which one has a shift."""
    model = tiny_language_model("llama")
    sv.shrink(model, drawn_vocabulary())
    with torch.no_grad():
        model.lm_head.rest_shift.fill_(0.5)
    RowAdapter.of(model).save(tmp_path / "rows.safetensors")
    return tmp_path / "rows.safetensors"


def rewrite(
    path: Path, change: Callable[[Tensors, dict[str, Any]], object], **metadata: str
) -> None:
    """Write the file anew, changed."""
    tensors = load_file(path)
    texts = dict(read_header(path).metadata or {})
    tables = json.loads(texts[TABLES_KEY])
    change(tensors, tables)
    texts |= {TABLES_KEY: json.dumps(tables), **metadata}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, texts)


def put(name: str, value: Tensor) -> Callable[[Tensors, dict[str, Any]], object]:
    """Replace a tensor."""
    return lambda tensors, _: tensors.update({name: value})


def say(entry: str, value: object) -> Callable[[Tensors, dict[str, Any]], object]:
    """Replace what is said of the first table."""
    return lambda _, tables: tables[NAME].update({entry: value})


CHANGES: dict[str, Callable[[Tensors, dict[str, Any]], object]] = {
    "no rows": lambda tensors, _: tensors.pop(f"{NAME}.rows"),
    "no token ids": lambda tensors, _: tensors.pop(f"{NAME}.token_ids"),
    "a tensor too many": put("other", torch.zeros(1)),
    "too few rows": put(f"{NAME}.rows", torch.zeros(3, 32)),
    "rows of three axes": put(f"{NAME}.rows", torch.zeros(40, 4, 8)),
    "rows of integers": put(f"{NAME}.rows", torch.zeros(40, 32, dtype=torch.int64)),
    "token ids of reals": put(f"{NAME}.token_ids", torch.zeros(40)),
    "token ids of two axes": put(f"{NAME}.token_ids", torch.arange(40)[:, None]),
    "token ids that fall": put(f"{NAME}.token_ids", torch.arange(40).flip(0)),
    "negative token ids": put(f"{NAME}.token_ids", torch.arange(-1, 39)),
    "token ids beyond V": put(f"{NAME}.token_ids", torch.arange(280, 320)),
    "a shift of another width": put(f"{HEAD}.rest_shift", torch.zeros(31)),
    "a shift of integers": put(f"{HEAD}.rest_shift", torch.zeros(32, dtype=torch.int32)),
    "no tables": lambda tensors, tables: [both.clear() for both in (tensors, tables)],
    "a table without a name": say("names", []),
    "a table of another name": say("names", ["other"]),
    "names that are none": say("names", [1]),
    "a name instead of names": say("names", NAME),
    "a vocabulary of true": say("full_vocab_size", True),
    "a vocabulary of text": say("full_vocab_size", "300"),
    "a vocabulary too small": say("full_vocab_size", 10),
    "differences of text": say("differences", "no"),
    "differences that are rows": say("differences", True),
    "a dtype of integers": say("base_dtype", "I64"),
    "a dtype of a list": say("base_dtype", ["F32"]),
    "a fingerprint of a number": say("base_fingerprint", 1),
    "a table that is a list": lambda _, tables: tables.update({NAME: []}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_lies_is_refused(change: str, path: Path) -> None:
    """Whatever it says, the error is one of ours and names the file."""
    rewrite(path, CHANGES[change])

    with pytest.raises(sv.CheckpointError, match=r"holds no row adapter|is stored as"):
        RowAdapter.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '"' + "[" * 10**5])
def test_a_description_that_is_none_is_refused(text: str, path: Path) -> None:
    """The JSON is a stranger's too."""
    rewrite(path, lambda *_: None, **{TABLES_KEY: text})

    with pytest.raises(sv.CheckpointError, match="holds no row adapter"):
        RowAdapter.load(path)


def test_a_number_that_was_changed_is_noticed(path: Path) -> None:
    """By the fingerprint."""
    rewrite(path, lambda tensors, _: tensors[f"{NAME}.rows"].add_(1))

    with pytest.raises(sv.CheckpointError, match="is damaged: it says fingerprint"):
        RowAdapter.load(path)


def test_another_record_is_refused(tmp_path: Path) -> None:
    """Such as a vocabulary."""
    drawn_vocabulary().save(tmp_path / "v.safetensors")

    with pytest.raises(sv.CheckpointError) as caught:
        RowAdapter.load(tmp_path / "v.safetensors")

    assert str(caught.value) == (
        f"{tmp_path / 'v.safetensors'} holds `partial_vocabulary`, expected `row_adapter`. Look "
        "into it with `subvocab inspect`."
    )


def test_a_newer_format_is_refused(path: Path) -> None:
    """It may mean something else."""
    rewrite(path, lambda *_: None, **{"subvocab.format_version": "2"})

    with pytest.raises(sv.CheckpointError) as caught:
        RowAdapter.load(path)

    assert str(caught.value) == (
        f"{path} has format version 2, expected 1. Use the version of subvocab that wrote it."
    )


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x80\x04K\x01."])
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    """A pickle among them: nothing in it runs."""
    (tmp_path / "rows.safetensors").write_bytes(content)

    with pytest.raises(sv.CheckpointError):
        RowAdapter.load(tmp_path / "rows.safetensors")


def test_a_file_cut_short_is_refused(path: Path) -> None:
    """As a broken download leaves it."""
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(sv.CheckpointError, match="cut short"):
        RowAdapter.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(sv.CheckpointError, match=f"There is no file {tmp_path}"):
        RowAdapter.load(tmp_path / "none.safetensors")


def test_a_failed_save_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once or not at all."""
    before, adapter = path.read_bytes(), RowAdapter.load(path)

    def fail(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("subvocab.model.row_file.save", fail)
    with pytest.raises(KeyboardInterrupt):
        adapter.save(path)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
