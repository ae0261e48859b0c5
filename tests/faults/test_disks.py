"""Disks that are full or may only be read, and two processes that write the same: real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import subvocab as sv
from tests.models import FULL_VOCAB_SIZE, tiny_model

pytestmark = pytest.mark.slow

SUBVOCAB = (sys.executable, "-m", "subvocab")
MOUNTED = """
set -e
mount -t tmpfs -o "$1" tmpfs "$2"; cp -r "$3/." "$2"; mount -o "remount,$4" "$2"; disk=$2; shift 4
set +e
"$@"; status=$?
echo "left: $(ls -A "$disk" | tr '\\n' ' ')"
exit $status
"""
"""Mounts a disk that only this process and its children see, and tells what it held at the end."""


def on_disk(disk: Path, held: Path, size: str, mode: str, *command: str | Path) -> tuple[str, str]:
    """Run a command that must fail, on a small disk.

    Args:
        disk: Where to mount it.
        held: A folder of what lies there already.
        size: Its size, as ``mount`` takes it.
        mode: ``rw`` or ``ro``.
        *command: The command.

    Returns:
        What it said on the standard error, and what the disk held afterwards.
    """
    disk.mkdir()
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no disk can be mounted here")
    words = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        MOUNTED,
        "sh",
        f"size={size}",
        disk,
        held,
        mode,
        *command,
    ]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    return ended.stderr.strip(), ended.stdout.strip().removeprefix("left:").strip()


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """Write rows to scan."""
    (tmp_path / "ids.jsonl").write_text('{"input_ids": [1, 2, 3]}\n')
    return tmp_path / "ids.jsonl"


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    """Save a base model, and a compact checkpoint."""
    tiny_model("bert").save_pretrained(tmp_path / "base")
    vocabulary = sv.PartialVocabulary(np.arange(0, FULL_VOCAB_SIZE, 7), FULL_VOCAB_SIZE)
    from transformers import AutoModelForSequenceClassification as Classifier  # noqa: PLC0415

    model = sv.from_pretrained(Classifier, tmp_path / "base", vocabulary)
    sv.save_compact(model, tmp_path / "compact")
    return tmp_path / "compact"


@pytest.mark.parametrize(
    ("size", "mode", "reason"),
    [("4k", "rw", "No space left on device"), ("1m", "ro", "Read-only file system")],
)
def test_a_scan_that_cannot_be_kept_says_so(
    size: str, mode: str, reason: str, ids: Path, tmp_path: Path
) -> None:
    """The old counts stay, and nothing beside them."""
    (tmp_path / "held").mkdir()
    old = sv.TokenCounts(np.ones(100, dtype=np.int64))
    old.save(tmp_path / "held" / "counts.safetensors")
    out = tmp_path / "disk" / "counts.safetensors"

    said, left = on_disk(
        *(tmp_path / "disk", tmp_path / "held", size, mode),
        *(*SUBVOCAB, "scan", ids, "--full-vocab-size", "300", "--out", out),
    )

    assert said == f"subvocab: {out}: {reason}."
    assert left == "counts.safetensors"


@pytest.mark.parametrize(
    ("size", "mode", "reason"),
    [("64k", "rw", "bytes, but"), ("1m", "ro", "out: Read-only file system")],
)
def test_a_merge_that_cannot_be_written_says_so(
    size: str, mode: str, reason: str, compact: Path, tmp_path: Path
) -> None:
    """Before anything is copied; no folder is left, hidden or not."""
    (tmp_path / "held").mkdir()
    out = tmp_path / "disk" / "out"

    said, left = on_disk(
        *(tmp_path / "disk", tmp_path / "held", size, mode),
        *(*SUBVOCAB, "merge", compact, "--base", tmp_path / "base", "--out", out),
    )

    assert reason in said
    assert str(tmp_path / "disk") in said
    assert not left


TAKEN = "exists already, and nothing is ever overwritten. Name a new folder, or an empty one."
RACING = """
import sys, time
from pathlib import Path
import subvocab as sv
go, compact, base, *outs = map(Path, sys.argv[1:])
sv.merge, sv.CheckpointError  # loaded before the start
(go.parent / f"ready-{sys.argv[1:][-1][-1]}").touch()
while not go.exists():
    time.sleep(0.001)
for out in outs:
    try:
        sv.merge(compact, base=base, out=out, progress=False)
        print("written")
    except sv.CheckpointError as error:
        print(str(error).replace(str(out), "OUT"))
"""


def test_two_merges_into_one_folder_give_one_whole_model(compact: Path, tmp_path: Path) -> None:
    """One of them is the first; the other loses its own work only, and is told."""
    base, go = tmp_path / "base", tmp_path / "go"
    outs = [tmp_path / f"out{at}" for at in range(10)]
    command = [sys.executable, "-c", RACING, *map(str, (go, compact, base, *outs))]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    while not list(tmp_path.glob("ready-*")):
        time.sleep(0.01)
    time.sleep(1)
    go.touch()
    said = [racer.communicate()[0].splitlines() for racer in racers]

    sv.merge(compact, base=base, out=tmp_path / "alone", progress=False)
    alone = (tmp_path / "alone" / "model.safetensors").read_bytes()
    for at, out in enumerate(outs):
        told = sorted(lines[at] for lines in said)
        assert told == [
            f"OUT {TAKEN}",
            "written",
        ]
        assert (out / "model.safetensors").read_bytes() == alone
        assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "alone"))  # noqa: PTH208
    assert not list(tmp_path.glob(".*"))


def test_two_that_write_one_file_leave_one_of_the_two(tmp_path: Path) -> None:
    """Whoever is last has written it, whole."""
    code = (
        "import sys, numpy as np, subvocab as sv\n"
        "counts = sv.TokenCounts(np.full(5000, int(sys.argv[2])))\n"
        "for _ in range(100):\n"
        "    counts.save(sys.argv[1])\n"
        "    assert sv.TokenCounts.load(sys.argv[1]).counts[0] in (1, 2)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "counts")]
    writers = [subprocess.Popen([*command, value]) for value in ("1", "2")]

    assert [writer.wait() for writer in writers] == [0, 0]
    assert sv.TokenCounts.load(tmp_path / "counts").counts[0] in (1, 2)
    assert os.listdir(tmp_path) == ["counts"]  # noqa: PTH208


def test_what_is_merged_is_whole(compact: Path, tmp_path: Path) -> None:
    """What the others are compared with is the model itself."""
    out = sv.merge(compact, base=tmp_path / "base", out=tmp_path / "out", progress=False)

    merged, base = (load_file(f / "model.safetensors") for f in (out, tmp_path / "base"))
    assert all(merged[name].equal(base[name]) for name in base)
