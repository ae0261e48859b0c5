"""What is stopped at each of its file operations: all that writes a file which must be whole."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers as hf
from safetensors.torch import load_file
from transformers.trainer_utils import get_last_checkpoint

import subvocab as sv
from subvocab import cli
from subvocab.integrations.unfinished import is_finished, set_unfinished_aside
from subvocab.storage import merge_rows, read_checkpoint, write_matrix
from tests.models import FULL_VOCAB_SIZE, tiny_model
from tests.trainer_runs import shrunk, trainer_of

Look = Callable[[Path], object]
OLD, NEW = (sv.TokenCounts(np.eye(1, FULL_VOCAB_SIZE, at, dtype=np.int64)[0] + 1) for at in (3, 4))
VOCABULARY = sv.PartialVocabulary(np.arange(0, FULL_VOCAB_SIZE, 3), FULL_VOCAB_SIZE)
ROWS = np.arange(8 * 6, dtype=np.uint8).reshape(8, 6)
CLASSIFIER = hf.AutoModelForSequenceClassification


@dataclass(frozen=True)
class Job:
    """One thing to stop.

    Attributes:
        prepare: Makes in a folder what lies there before.
        act: Does in the folder what is stopped.
        look: Gives what can be read of the result then, as a value that can be compared;
            None where a reader is told that there is nothing.
        command: Whether it is a command, which ends with status 2 where it fails.
        speaks: Whether its errors are told by this library alone. What transformers
            writes and reads is told by transformers.
    """

    prepare: Look
    act: Look
    look: Look
    command: bool = False
    speaks: bool = True


def _tensors(folder: Path) -> dict[str, bytes]:
    """Read all weights of a folder, through its index where it has one."""
    checkpoint = read_checkpoint(folder)
    return {
        f"{name} {tensor.dtype}": tensor.numpy().tobytes()
        for file in checkpoint.files
        for name, tensor in load_file(file).items()
    }


def _if_there(read: Look) -> Look:
    """Give nothing where the library says that there is nothing whole."""

    def look(folder: Path) -> object:
        try:
            return read(folder)
        except sv.CheckpointError:
            return None

    return look


def _file(name: str, kind: Any) -> Look:
    return lambda folder: kind.load(folder / name).fingerprint if (folder / name).exists() else None


def _command(*arguments: str) -> Look:
    """Run the command line in a folder; options that begin with @ are paths in it."""

    def act(folder: Path) -> None:
        named = [str(folder / part[1:]) if part[0] == "@" else part for part in arguments]
        sys.argv = ["subvocab", *named]
        cli.main()

    return act


def _write_matrix(add: int, folder: Path) -> None:
    chunks = ((ROWS + add)[begin : begin + 2] for begin in range(0, 8, 2))
    write_matrix(folder / "matrix", "e", "U8", (8, 6), chunks)


def _make_base(folder: Path) -> None:
    """Save a sharded model, with files and a folder beside its weights."""
    tiny_model("bert").save_pretrained(folder / "base", max_shard_size="30KB")
    (folder / "base" / "1_Pooling").mkdir()
    (folder / "base" / "1_Pooling" / "config.json").write_text("{}")
    (folder / "base" / "notes.txt").write_text("x" * 10_000)


def _trained(learned: int, folder: Path) -> Any:
    """Load a small model, and pretend that it learned something."""
    model = sv.from_pretrained(CLASSIFIER, folder / "base", VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(learned)
    return model


def _save_compact(learned: int, folder: Path, **options: Any) -> None:
    sv.save_compact(_trained(learned, folder), folder / "compact", **options)


def _prepare_compact(folder: Path, **options: Any) -> None:
    _make_base(folder)
    _save_compact(1, folder, **options)


def _look_compact(folder: Path) -> object:
    """Merge what was saved, and read it."""
    out = folder.parent / "merged"
    sv.merge(folder / "compact", base=folder / "base", out=out, progress=False)
    return _tensors(out)


def _save_whole(learned: int, folder: Path) -> None:
    _trained(learned, folder).save_pretrained(folder / "whole")


def _prepare_whole(folder: Path) -> None:
    _make_base(folder)
    _save_whole(1, folder)


def _merge_rows(folder: Path) -> None:
    name = "bert.embeddings.word_embeddings.weight"
    row_bytes = 4 * tiny_model("bert").config.hidden_size
    rows = np.ones((3, row_bytes), dtype=np.uint8)
    merge_rows(folder / "base", folder / "out", {name: (np.array([1, 2, 200]), rows)})


def _write_texts(folder: Path) -> None:
    (folder / "ids.jsonl").write_text('{"input_ids": [1, 2, 3]}\n' * 50)
    # What counts is compiled here once, not by every child.
    sv.scan(folder / "ids.jsonl", threads=1, full_vocab_size=FULL_VOCAB_SIZE, progress=False)
    OLD.save(folder / "counts.safetensors")


def _streamed_scan(folder: Path) -> None:
    """Scan a stream that keeps its place, as often as it can."""
    stream = datasets.Dataset.from_dict({"input_ids": [[1, 2, 3]] * 50}).to_iterable_dataset()
    counts = sv.scan(
        stream, full_vocab_size=FULL_VOCAB_SIZE, resume=folder / "place", progress=False
    )
    counts.save(folder / "counts.safetensors")


def _train(steps: int, folder: Path, **options: Any) -> None:
    """Train from the last checkpoint on, and save one after each step."""
    if is_finished(folder / "run" / f"checkpoint-{steps}"):
        return  # a Trainer would go on to another step
    begun = list((folder / "run").glob("checkpoint-*"))
    trainer = trainer_of(
        shrunk("gpt2 lm"),
        folder / "run",
        watch=options,
        max_steps=steps,
        lr_scheduler_type="constant",
        save_strategy="steps",
        save_steps=1,
        logging_strategy="no",
    )
    trainer.train(resume_from_checkpoint=bool(begun))


def _look_resumed(folder: Path) -> object:
    """Read the checkpoint that a run would go on from."""
    run = folder.parent / "merged"
    shutil.copytree(folder / "run", run)
    set_unfinished_aside(run)
    checkpoint = Path(get_last_checkpoint(str(run)))
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    moments = [state["exp_avg"].numpy().tobytes() for state in optimizer["state"].values()]
    return checkpoint.name, _tensors(checkpoint), moments


def _nothing(_folder: Path) -> None:
    """Leave the folder empty."""


_look_counts = _file("counts.safetensors", sv.TokenCounts)
_look_out = _if_there(lambda folder: _tensors(folder / "out"))

JOBS: dict[str, Job] = {
    "counts over counts": Job(
        lambda folder: OLD.save(folder / "counts.safetensors"),
        lambda folder: NEW.save(folder / "counts.safetensors"),
        _look_counts,
    ),
    "vocabulary": Job(
        _nothing,
        lambda folder: VOCABULARY.save(folder / "vocabulary.safetensors"),
        _file("vocabulary.safetensors", sv.PartialVocabulary),
    ),
    "matrix over matrix": Job(
        partial(_write_matrix, 0),
        partial(_write_matrix, 1),
        lambda folder: sv.FullMatrix.open(folder / "matrix", "e").fingerprint,
    ),
    "merge_rows": Job(_make_base, _merge_rows, _look_out),
    "merge": Job(
        _prepare_compact,
        lambda folder: sv.merge(folder / "compact", base=folder / "base", out=folder / "out"),
        _look_out,
    ),
    "merge of shards": Job(
        partial(_prepare_compact, max_shard_size="15KB"),
        lambda folder: sv.merge(folder / "compact", base=folder / "base", out=folder / "out"),
        _look_out,
    ),
    "subvocab merge": Job(
        _prepare_compact,
        _command("merge", "@compact", "--base", "@base", "--out", "@out"),
        _look_out,
        command=True,
    ),
    "save_compact": Job(
        _make_base, partial(_save_compact, 1), _if_there(_look_compact), speaks=False
    ),
    "save_compact in shards": Job(
        _make_base,
        partial(_save_compact, 1, max_shard_size="15KB"),
        _if_there(_look_compact),
        speaks=False,
    ),
    "save_compact over another": Job(
        _prepare_compact, partial(_save_compact, 2), _look_compact, speaks=False
    ),
    "save_compact over shards": Job(
        partial(_prepare_compact, max_shard_size="15KB"),
        partial(_save_compact, 2, max_shard_size="15KB"),
        _look_compact,
        speaks=False,
    ),
    "save_pretrained over another": Job(
        _prepare_whole,
        partial(_save_whole, 2),
        lambda folder: _tensors(folder / "whole"),
        speaks=False,
    ),
    "Trainer's checkpoint": Job(
        partial(_train, 1), partial(_train, 2), _look_resumed, speaks=False
    ),
    "Trainer's compact checkpoint": Job(
        partial(_train, 1, compact=True),
        partial(_train, 2, compact=True),
        _look_resumed,
        speaks=False,
    ),
    "subvocab scan --out": Job(
        _write_texts,
        _command(
            *("scan", "@ids.jsonl", "--full-vocab-size", str(FULL_VOCAB_SIZE)),
            *("--out", "@counts.safetensors"),
        ),
        _look_counts,
        command=True,
    ),
    "scan, kept for resuming": Job(_write_texts, _streamed_scan, _look_counts),
}
"""By name. What must not happen is in `tests.faults.trial`."""
