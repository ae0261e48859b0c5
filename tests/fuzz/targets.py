"""What is read of strangers, and how it is tried."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

import subvocab as sv
from subvocab import cli
from subvocab.cli.inspect import describe
from subvocab.storage import FullMatrix, merge_rows, read_checkpoint
from tests import tiny_tokenizers
from tests.fuzz.mutation import (
    NUMBERS,
    TEXTS,
    Mutate,
    mutated_bytes,
    mutated_json,
    mutated_lines,
    mutated_safetensors,
)
from tests.models import FULL_VOCAB_SIZE, tiny_model

Read = Callable[[Path], object]
SCANNED: dict[str, Any] = {"full_vocab_size": FULL_VOCAB_SIZE, "threads": 1, "progress": False}
COUNTS = sv.TokenCounts(np.arange(FULL_VOCAB_SIZE) % 3, special_token_ids=np.array([0, 5]))
TEXT_ROWS: list[dict[str, Any]] = [
    {"text": "the cat sat", "n": 1},
    {"text": "a naïve café", "n": None},
] * 3
ID_ROWS: list[dict[str, Any]] = [
    {"input_ids": [1, 2, 3], "labels": [-100, 4, 5]},
    {"input_ids": [], "labels": [7]},
] * 3


@dataclass(frozen=True)
class Target:
    """A file to mutate, and what reads it.

    Attributes:
        file: Its name in the folder, which ``prepare`` filled.
        prepare: Writes the whole file, and what lies beside it.
        mutate: Makes another file of it.
        read: Reads it; may raise nothing but ``SubvocabError``, or end with status 2.
        share: How many of a hundred mutated files are of this kind.
    """

    file: str
    prepare: Read
    mutate: Mutate
    read: Read
    share: int


def _read_header(folder: Path) -> None:
    """Read all that a checkpoint says it has, and see that it lies in its files."""
    checkpoint = read_checkpoint(folder)
    for tensor in checkpoint.tensors.values():
        assert tensor.path.parent == folder, tensor
        assert 8 <= tensor.offset <= tensor.offset + tensor.nbytes <= tensor.path.stat().st_size
        if len(tensor.shape) == 2:
            matrix = FullMatrix(tensor)
            ends = [0, tensor.shape[0] - 1] if tensor.shape[0] else []
            matrix.rows(np.array(ends, dtype=np.int64))
            assert len(matrix.fingerprint) == 64
            assert sum(rows.nbytes for _, rows in matrix.chunks()) == tensor.nbytes


def _write_header(folder: Path, name: str = "model.safetensors") -> None:
    tensors = {
        "e": np.arange(24, dtype=np.float32).reshape(6, 4),
        "b": np.ones(3, dtype=np.int8),
        "empty": np.empty((0, 4), dtype=np.float16),
    }
    (folder / name).write_bytes(save(tensors, metadata={"format": "pt"}))


def _write_shards(folder: Path) -> None:
    """Write two shards, and a file outside that nothing may lead to."""
    for shard, name in (("a.safetensors", "a"), ("b.safetensors", "b")):
        (folder / shard).write_bytes(save({name: np.ones((2, 2), dtype=np.float32)}))
    (folder.parent / "secret.safetensors").write_bytes(save({"a": np.zeros((2, 2))}))
    index = {
        "metadata": {"total_size": 32},
        "weight_map": {"a": "a.safetensors", "b": "b.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _merge_rows(folder: Path) -> None:
    """Merge rows into a mutated base."""
    rows = np.ones((2, 16), dtype=np.uint8)
    merge_rows(folder, folder.parent / "out", {"e": (np.array([0, 5]), rows)})


def _write_compact(folder: Path) -> None:
    """Save a compact checkpoint, beside the base it needs."""
    base = folder.parent / "base"
    tiny_model("bert", num_hidden_layers=1).save_pretrained(base)
    model = sv.from_pretrained(_auto_class(), base, COUNTS.partial_vocabulary())
    sv.save_compact(model, folder)


def _auto_class() -> Any:
    from transformers import AutoModelForSequenceClassification  # noqa: PLC0415

    return AutoModelForSequenceClassification


def _merge(folder: Path) -> None:
    base, out = folder.parent / "base", folder.parent / "out"
    sv.merge(folder, base=base, out=out, progress=False)


def _write_value(value: Any, folder: Path) -> None:
    value.save(folder / "value.safetensors")


def _read_value(kind: Any, folder: Path) -> None:
    """Read a value, and use it."""
    value = kind.load(folder / "value.safetensors")
    describe(folder / "value.safetensors")
    if isinstance(value, sv.TokenCounts):
        value.partial_vocabulary().contains(np.array([0, 1]))


def _write_lines(name: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Write rows in the format that the name tells."""
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = {".csv": ",", ".tsv": "\t"}.get(path.suffix, " ")
        lines = [mark.join(rows[0]), *(mark.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")


def _scan(name: str, folder: Path) -> None:
    tokenizer = tiny_tokenizers.wordpiece()
    column = "text" if name.endswith((".jsonl", ".csv", ".tsv", ".parquet")) else None
    sv.scan(folder / name, tokenizer=tokenizer, text_columns=column, **SCANNED)


def _scan_ids(name: str, folder: Path) -> None:
    sv.scan(folder / name, label_columns="labels", **SCANNED)


def _write_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(tiny_tokenizers.wordpiece().to_str())


def _use_tokenizer(folder: Path) -> None:
    from subvocab.cli.tokenizer import load_tokenizer  # noqa: PLC0415

    tokenizer = load_tokenizer(str(folder))
    sv.scan(["the cat", "日本 12", ""], tokenizer=tokenizer, threads=1, progress=False)


def _write_arguments(folder: Path) -> None:
    """Write files for commands, and a command line."""
    COUNTS.save(folder / "counts.safetensors")
    _write_header(folder)
    _write_lines("ids.jsonl", ID_ROWS, folder)
    (folder / "arguments").write_text("scan ids.jsonl --full-vocab-size 300 --json")


def mutated_arguments(_content: bytes, draw: Random) -> bytes:
    """Make up a command line.

    Args:
        _content: What stood there.
        draw: Where chance comes from.

    Returns:
        Its words, parted as a shell would.
    """
    options = (
        *("--json", "--tokenizer", "--text-column", "--max-length", "--full-vocab-size", "--out"),
        *("--format", "--no-header", "--base", "--model", "--help", "--", "-", "--version"),
    )
    files = ("ids.jsonl", "counts.safetensors", "model.safetensors", ".", "none", "/dev/null")
    usual = ("jsonl", "csv", "300", "1", "out", "text", "input_ids")
    texts = tuple(t.replace("\0", "0") for t in TEXTS if t.isprintable() and t[:1] != "/")
    command = draw.choice(
        ("scan", "plan", "inspect", "merge", "scan", "inspect", draw.choice(texts))
    )
    pools = (options, files, usual, texts, tuple(map(str, NUMBERS)))
    words = [draw.choice(draw.choice(pools)) for _ in range(draw.randrange(8))]
    return shlex.join([command, *words]).encode()


def _run_command(folder: Path) -> None:
    """Run a command line in the folder."""
    words = shlex.split((folder / "arguments").read_text())
    sys.argv = ["subvocab", *words]
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code == 2:
            raise sv.SubvocabError("the command line was refused") from ended
        assert not ended.code, (words, ended.code)  # noqa: PT017


TARGETS: dict[str, Target] = {
    "header": Target("model.safetensors", _write_header, mutated_safetensors, _read_header, 25),
    "index": Target("model.safetensors.index.json", _write_shards, mutated_json, _read_header, 10),
    "shard": Target("a.safetensors", _write_shards, mutated_safetensors, _read_header, 5),
    "merge_rows": Target("model.safetensors", _write_header, mutated_safetensors, _merge_rows, 4),
    "description": Target("subvocab.json", _write_compact, mutated_json, _merge, 4),
    "compact": Target("model.safetensors", _write_compact, mutated_safetensors, _merge, 4),
    "base": Target("../base/model.safetensors", _write_compact, mutated_safetensors, _merge, 3),
    "counts": Target(
        "value.safetensors",
        partial(_write_value, COUNTS),
        mutated_safetensors,
        partial(_read_value, sv.TokenCounts),
        10,
    ),
    "vocabulary": Target(
        "value.safetensors",
        partial(_write_value, COUNTS.partial_vocabulary()),
        mutated_safetensors,
        partial(_read_value, sv.PartialVocabulary),
        10,
    ),
    "tokenizer": Target("tokenizer.json", _write_tokenizer, mutated_json, _use_tokenizer, 2),
    **{
        name: Target(
            name, partial(_write_lines, name, TEXT_ROWS), change, partial(_scan, name), share
        )
        for name, change, share in (
            ("texts.jsonl", mutated_lines, 5),
            ("texts.csv", mutated_lines, 3),
            ("texts.tsv", mutated_lines, 2),
            ("texts.txt", mutated_bytes, 2),
            ("texts.parquet", mutated_bytes, 2),
        )
    },
    "ids.jsonl": Target(
        "ids.jsonl",
        partial(_write_lines, "ids.jsonl", ID_ROWS),
        mutated_lines,
        partial(_scan_ids, "ids.jsonl"),
        5,
    ),
    "ids.parquet": Target(
        "ids.parquet",
        partial(_write_lines, "ids.parquet", ID_ROWS),
        mutated_bytes,
        partial(_scan_ids, "ids.parquet"),
        2,
    ),
    "arguments": Target("arguments", _write_arguments, mutated_arguments, _run_command, 2),
}
"""By name. ``share`` adds up to a hundred."""
