"""How long does writing a whole checkpoint take, beside a plain copy, and how much memory?"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.harness import Measured
from subvocab.storage import FullMatrix, expand_checkpoint, write_matrix
from subvocab.vocabulary import PartialVocabulary

FULL_VOCAB_SIZE, EMBEDDING_DIM, PARTIAL_VOCAB_SIZE = 250_002, 768, 12_500
TABLE = "embeddings.word_embeddings.weight"
ROUNDS = 5
SPEED_MUST = 1.5
MEMORY_MUST_MB = 32.0
SAMPLE_SECONDS = 0.001


def run() -> list[Measured]:
    """Measure in one run, so that only ratios matter.

    Returns:
        The ratio of times, and the memory.
    """
    with tempfile.TemporaryDirectory(prefix="subvocab-bench-") as name:
        folder = Path(name)
        base = _prepare(folder)
        copy_seconds, expand_seconds = _alternate(
            lambda out: _copy(base, out), lambda out: _expand(folder, out), folder
        )
        anonymous_mb = _peak_anonymous_mb(folder)
        file_mb = base.stat().st_size / 1e6
    conditions = (
        f"{file_mb:.0f} MB fp32, {PARTIAL_VOCAB_SIZE:,} of {FULL_VOCAB_SIZE:,} rows, warm cache, "
        f"median of {ROUNDS} alternating rounds, {os.cpu_count()} cores; "
        f"cp {copy_seconds:.2f} s, expand {expand_seconds:.2f} s"
    )
    speed = "merge: time beside `cp` and fsync"
    memory = "merge: peak private memory beyond the rows"
    child = "private memory of a child process, above its level before the call"
    ratio = expand_seconds / copy_seconds
    return [
        Measured(speed, ratio, "×", SPEED_MUST, "1 ×", conditions),
        Measured(memory, anonymous_mb, "MB", MEMORY_MUST_MB, "", child),
    ]


def _vocabulary() -> PartialVocabulary:
    rng = np.random.default_rng(0)
    token_ids = np.sort(rng.choice(FULL_VOCAB_SIZE, PARTIAL_VOCAB_SIZE, replace=False))
    return PartialVocabulary(token_ids, FULL_VOCAB_SIZE)


def _prepare(folder: Path) -> Path:
    """Write a base of one table and a compact checkpoint with a little beside it."""
    rng = np.random.default_rng(1)

    def chunks() -> Iterator[np.ndarray]:
        for first in range(0, FULL_VOCAB_SIZE, 10_000):
            count = min(10_000, FULL_VOCAB_SIZE - first)
            yield rng.standard_normal((count, EMBEDDING_DIM), dtype=np.float32)

    base = folder / "base.safetensors"
    write_matrix(base, TABLE, "F32", (FULL_VOCAB_SIZE, EMBEDDING_DIM), chunks())
    (folder / "compact").mkdir()
    learned = rng.standard_normal((PARTIAL_VOCAB_SIZE, EMBEDDING_DIM), dtype=np.float32)
    body = rng.standard_normal((8_000, EMBEDDING_DIM), dtype=np.float32)
    save_file({TABLE: learned, "body": body}, folder / "compact" / "model.safetensors")
    return base


def _expand(folder: Path, out: Path) -> None:
    matrix = FullMatrix.open(folder / "base.safetensors", TABLE)
    _ = matrix.content  # merging sees first that this is the base
    expand_checkpoint(folder / "compact", out, {TABLE: (matrix, _vocabulary())})


def _copy(base: Path, out: Path) -> None:
    out.mkdir()
    subprocess.run(["/bin/cp", base, out / "copy"], check=True)
    subprocess.run(["/bin/sync", out / "copy"], check=True)


def _alternate(
    first: Callable[[Path], None], second: Callable[[Path], None], folder: Path
) -> tuple[float, float]:
    """Time two ways by turns, so that a slow minute hits both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for way, times in zip((first, second), seconds, strict=True):
            out = folder / "out"
            os.sync()
            begin = time.perf_counter()
            way(out)
            times.append(time.perf_counter() - begin)
            for file in out.iterdir():
                file.unlink()
            out.rmdir()
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _peak_anonymous_mb(folder: Path) -> float:
    """Watch a child's private memory from outside, from its first sleep to its end."""
    code = (
        "import sys, pathlib; from benchmarks import bench_merge as b; "
        "v = b._vocabulary(); v.fingerprint; print('ready', flush=True); input(); "
        "b._expand(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1]) / 'out')"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None  # noqa: S101  both were asked for
        assert child.stdout is not None  # noqa: S101
        child.stdout.readline()
        before = peak = _anonymous_kb(child.pid)
        child.stdin.write(b"\n")
        child.stdin.close()
        while child.poll() is None:
            peak = max(peak, _anonymous_kb(child.pid))
            time.sleep(SAMPLE_SECONDS)
    if child.returncode:
        raise RuntimeError(f"The child that was measured exited with {child.returncode}.")
    return (peak - before) / 1e3


def _anonymous_kb(process_id: int) -> int:
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0
