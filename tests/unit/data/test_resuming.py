"""A stream that is interrupted anywhere, any number of times, is counted once and whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subvocab.data import hugging_face, resuming, scan, scan_growth
from subvocab.errors import CheckpointError, DataError
from tests import tiny_tokenizers

SIZE = 100


class _StoppedError(Exception):
    """What stops a scan in these tests."""


def _numbers(shards: list[int]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        for row in range(11):
            yield {"input_ids": [shard, *range(row % 4)]}


def _generated() -> Any:
    return datasets.IterableDataset.from_generator(_numbers, gen_kwargs={"shards": [3, 7, 9]})


def _parquet(folder: Path) -> Any:
    if not (folder / "0.parquet").exists():
        for file in range(2):
            rows = [[file, row, *range(row % 3)] for row in range(23)]
            table = pa.table({"input_ids": pa.array(rows, pa.list_(pa.int64()))})
            pq.write_table(table, folder / f"{file}.parquet", row_group_size=10)
    files = [str(folder / f"{file}.parquet") for file in range(2)]
    return datasets.load_dataset("parquet", data_files=files, streaming=True, split="train")


def _doubled(batch: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": [row for row in batch["input_ids"] for _ in range(2)]}


KINDS: dict[str, Callable[[Path], Any]] = {
    "generator": lambda _folder: _generated(),
    "parquet": _parquet,
    "mapped": lambda folder: _parquet(folder).map(_doubled, batched=True, batch_size=4),
    "filtered": lambda _folder: _generated().filter(lambda row: len(row["input_ids"]) > 2),
    "joined": lambda folder: datasets.concatenate_datasets([_parquet(folder), _generated()]),
    "mixed": lambda _folder: datasets.interleave_datasets(
        [_generated(), _generated().take(5)], probabilities=[0.6, 0.4], seed=1
    ),
    "part": lambda folder: _parquet(folder).take(31).skip(4),
    "arrow": lambda folder: _parquet(folder).with_format("numpy"),
}


@pytest.fixture
def small_steps(libraries_as_before: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Save after every few rows."""
    monkeypatch.setattr(hugging_face, "BATCH_ROWS", 7)
    monkeypatch.setattr(resuming, "STRETCH_SECONDS", 0.0)


def _until_done(work: Callable[[], Any], steps: int) -> tuple[Any, int]:
    """Repeat work that is stopped after some saves until it ends; count the stops."""
    save = resuming.ScanProgress.save
    for stops in range(100):
        left = steps

        def save_and_stop(progress: resuming.ScanProgress, path: Path) -> None:
            nonlocal left
            save(progress, path)
            left -= 1
            if not left:
                raise _StoppedError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resuming.ScanProgress, "save", save_and_stop)
            try:
                return work(), stops
            except _StoppedError:
                continue
    raise AssertionError


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_steps")
def test_any_interruption_gives_the_counts_of_one_pass(
    tmp_path: Path, kind: str, steps: int
) -> None:
    """Nothing is lost and nothing counted twice, whatever the stream is made of."""
    expected = scan(KINDS[kind](tmp_path), full_vocab_size=SIZE)
    kept = tmp_path / "kept"

    counts, stops = _until_done(
        lambda: scan(KINDS[kind](tmp_path), full_vocab_size=SIZE, resume=kept), steps
    )

    assert stops > 0
    assert counts == expected


@pytest.mark.usefixtures("small_steps")
def test_growth_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """First occurrences are those of one pass."""
    expected = scan_growth(_generated(), full_vocab_size=SIZE)

    growth, stops = _until_done(
        lambda: scan_growth(_generated(), full_vocab_size=SIZE, resume=tmp_path / "kept"), 2
    )

    assert stops > 1
    assert growth == expected


@pytest.mark.usefixtures("small_steps")
def test_texts_go_on_where_they_stopped(tmp_path: Path) -> None:
    """A tokenizer is the same scan again if it is built again."""
    texts = datasets.Dataset.from_dict({"text": tiny_tokenizers.CORPUS * 9})
    expected = scan(texts, tokenizer=tiny_tokenizers.wordpiece())

    counts, stops = _until_done(
        lambda: scan(
            texts.to_iterable_dataset(num_shards=3),
            tokenizer=tiny_tokenizers.wordpiece(),
            resume=tmp_path / "kept",
        ),
        2,
    )

    assert stops > 1
    assert counts == expected


@pytest.mark.usefixtures("small_steps")
def test_a_finished_scan_is_not_repeated(tmp_path: Path) -> None:
    """The file keeps the counts, and the caller's stream its own place."""
    stream = _generated()
    state = stream.state_dict()

    first = scan(stream, full_vocab_size=SIZE, resume=tmp_path / "kept")

    assert scan(_generated(), full_vocab_size=SIZE, resume=tmp_path / "kept") == first
    stream.load_state_dict(state)
    assert len(list(stream)) == 33


@pytest.mark.usefixtures("small_steps")
def test_an_empty_stream_has_counts(tmp_path: Path) -> None:
    """Nothing to read is no error."""
    empty = _generated().take(0)

    assert scan(empty, full_vocab_size=SIZE, resume=tmp_path / "kept").total_tokens == 0


@pytest.mark.usefixtures("small_steps")
def test_an_error_after_a_stop_names_the_row_of_the_stream(tmp_path: Path) -> None:
    """Rows are numbered from the start, not from where the scan went on."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from ({"input_ids": [SIZE if row == 17 else 1]} for row in range(20))

    stream = datasets.IterableDataset.from_generator(rows)

    with pytest.raises(DataError, match="column `input_ids`, row 17 lies outside"):
        _until_done(lambda: scan(stream, full_vocab_size=SIZE, resume=tmp_path / "kept"), 1)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"full_vocab_size": 101}, "full_vocab_size"),
        ({"label_columns": "input_ids"}, "label columns"),
        ({"tokenizer": tiny_tokenizers.wordpiece()}, "tokenizer, special token ids"),
        ({"source": "other"}, "files or steps of the stream"),
        ({"source": "shorter"}, "files or steps of the stream, first rows"),
        ({"source": "mapped"}, "files or steps of the stream, first rows"),
        ({"growth": True}, "growth"),
    ],
)
@pytest.mark.usefixtures("small_steps")
def test_a_file_of_another_scan_is_refused(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    """It is named, with what differs; the file stays as it is."""
    kept = tmp_path / "kept"
    scan(_generated(), full_vocab_size=SIZE, resume=kept)
    before = kept.read_bytes()
    sources = {
        "other": datasets.IterableDataset.from_generator(
            _numbers, gen_kwargs={"shards": [3, 7, 8]}
        ),
        "shorter": _generated().take(5),
        "mapped": _generated().map(_doubled, batched=True),
    }
    source = sources.get(other.pop("source", ""), _generated())
    work = scan_growth if other.pop("growth", False) else scan

    with pytest.raises(DataError) as error:
        work(source, **{"full_vocab_size": SIZE, "resume": kept, **other})

    assert str(error.value) == (
        f"{kept} keeps another scan: it differs in {said}. Go on with the same source, tokenizer "
        "and options, or name another file."
    )
    assert kept.read_bytes() == before


def test_a_source_without_a_place_is_refused(tmp_path: Path) -> None:
    """A list could be read again, but is no stream."""
    with pytest.raises(DataError, match="A `list` cannot tell how far it was read"):
        scan([[1]], full_vocab_size=SIZE, resume=tmp_path / "kept")


def test_a_shuffled_stream_is_refused(tmp_path: Path) -> None:
    """The rows in its buffer would be lost."""
    with pytest.raises(DataError, match="Scan it before `shuffle`"):
        scan(_generated().shuffle(seed=1), full_vocab_size=SIZE, resume=tmp_path / "kept")


@pytest.mark.usefixtures("small_steps")
def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Counts that do not fit their name are not added to."""
    kept = tmp_path / "kept"
    scan(_generated(), full_vocab_size=SIZE, resume=kept)
    content = bytearray(kept.read_bytes())
    content[content.index(b'"finished"') + 2] ^= 1
    kept.write_bytes(content)

    with pytest.raises(CheckpointError, match="is damaged"):
        scan(_generated(), full_vocab_size=SIZE, resume=kept)


PROGRAM = """
import sys, time
from datasets import load_dataset
from subvocab.data import resuming, scan
resuming.STRETCH_SECONDS = 0.05

def slow(batch):
    time.sleep(0.01)
    return batch

def stream(path):
    return load_dataset("parquet", data_files=path, streaming=True, split="train").map(
        slow, batched=True, batch_size=100)

if __name__ == "__main__":
    scan(stream(sys.argv[1]), full_vocab_size=1000, resume=sys.argv[2]).save(sys.argv[3])
"""


@pytest.mark.parametrize("style", [None, "arrow", "numpy"])
def test_a_stream_stays_where_it_is(tmp_path: Path, style: str | None) -> None:
    """Before and after its scan, whole or resumed, it gives all of its rows."""
    counts = []
    for _ in range(2):
        stream = _generated().with_format(style)
        counts.append(scan(stream, full_vocab_size=SIZE, resume=tmp_path / "kept"))

        assert [len(list(stream)) for _ in range(2)] == [33, 33]
        assert scan(stream, full_vocab_size=SIZE) == counts[0]

    assert counts[0] == counts[1]


@pytest.mark.slow
def test_a_killed_process_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle, twice; the third process ends with the counts of one pass."""
    ids = np.random.default_rng(0).integers(0, 1000, (30_000, 4), dtype=np.int32)
    source, kept, out = (tmp_path / name for name in ("a.parquet", "kept", "out"))
    pq.write_table(pa.table({"input_ids": list(ids)}), source, row_group_size=500)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(source), str(kept), str(out)]
    places: list[int] = []

    for _ in range(2):
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                if kept.exists() and _rows(kept) > 4000 * (len(places) + 1):
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        places.append(_rows(kept))
    subprocess.run(command, check=True)

    from subvocab.vocabulary import TokenCounts  # noqa: PLC0415

    assert 0 < places[0] < places[1] < len(ids)
    assert TokenCounts.load(out) == scan(ids, full_vocab_size=1000)


def _rows(kept: Path) -> int:
    rows: int = resuming.ScanProgress.load(kept).place["rows"]
    return rows
