"""What does Ray cost? Tokens a second on the cores of one machine, beside the local scan.

The same Parquet files are counted by the local scan, by Ray as files (`engine="ray"`) and as a
dataset of Ray Data; and the same texts. The cluster is warm: starting it, and its first tasks,
which import libraries, are not measured. Each rate is that of all cores, so a ratio of rates is
one of rates a core.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from benchmarks.harness import Measured, best_seconds
from subvocab.data import scan
from subvocab.data.counting import available_threads
from subvocab.vocabulary import TokenCounts

TOKENS_A_FILE = 20_000_000
FILES, LINKS = 4, 20
ROW_TOKENS = 128
FULL_VOCAB_SIZE = 250_000
TEXT_FILES, COPIES = 8, 8
"""A job of texts should take longer than Ray takes to place its tasks, as a real one does."""
MUST = 0.7
REPEATS = 2
Scan = Callable[[], TokenCounts]
Ways = dict[str, Scan]
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "2",  # by default 32 processes, on any machine
}


def _write_ids(folder: Path) -> None:
    """Write Parquet files by Zipf's law, and link each several times: the disk holds them once."""
    generator = np.random.default_rng(0)
    weights = 1 / np.arange(1, FULL_VOCAB_SIZE + 1)
    cumulative = np.cumsum(weights / weights.sum())
    for file in range(FILES):
        ranks = np.searchsorted(cumulative, generator.random(TOKENS_A_FILE))
        ids = pa.array(ranks.clip(0, FULL_VOCAB_SIZE - 1).astype(np.int32))
        rows = pa.FixedSizeListArray.from_arrays(ids, ROW_TOKENS).cast(pa.list_(pa.int32()))
        first = folder / f"{file}-0.parquet"
        pq.write_table(pa.table({"input_ids": rows}), first, row_group_size=20_000)
        for link in range(1, LINKS):
            os.link(first, folder / f"{file}-{link}.parquet")


def _id_results(ray_data: Any, folder: Path) -> Iterator[Measured]:
    _write_ids(folder)
    options: dict[str, Any] = {"full_vocab_size": FULL_VOCAB_SIZE, "progress": False}
    ways: Ways = {
        "as files": partial(scan, folder, engine="ray", **options),
        "as a dataset": lambda: scan(ray_data.read_parquet(str(folder)), **options),
    }
    conditions = f"Parquet, |V| {FULL_VOCAB_SIZE:,}"
    yield from _beside(partial(scan, folder, **options), ways, "ids", conditions)


def _text_results(ray_data: Any, folder: Path) -> Iterator[Measured]:
    data = Path(os.environ["SUBVOCAB_DATA"])
    lines = (data / "glue" / "SST-2" / "train.tsv").read_text("utf-8").split("\n")[1:-1]
    texts = [line.split("\t")[0] for line in lines]
    for file in range(TEXT_FILES):
        (folder / f"{file}.txt").write_text("\n".join(texts * COPIES), encoding="utf-8")
    # Blocks of the size that Ray aims for; 200 tiny ones, its choice here, cost a task each.
    dataset = ray_data.read_text(str(folder), override_num_blocks=TEXT_FILES).materialize()
    for name in ("bert-base-uncased", "roberta-base", "xlm-roberta"):
        tokenizer = Tokenizer.from_file(str(data / "tokenizers" / name / "tokenizer.json"))
        options: dict[str, Any] = {"tokenizer": tokenizer, "progress": False}
        ways: Ways = {
            "as files": partial(scan, folder, engine="ray", **options),
            "as a dataset": partial(scan, dataset, **options),
        }
        conditions = f"SST-2 train × {TEXT_FILES * COPIES}"
        yield from _beside(partial(scan, folder, **options), ways, f"texts, {name}", conditions)


def _beside(local: Scan, ways: Ways, what: str, conditions: str) -> Iterator[Measured]:
    """Time each way, after a first time that starts the workers and shows equal counts."""
    cores = available_threads()
    counts = local()
    for way, work in ways.items():
        assert work() == counts  # noqa: S101  (a rate of wrong counts means nothing)
        here, there = best_seconds({"here": local, "there": work}, repeats=REPEATS).values()
        rates = [counts.total_tokens / seconds / cores / 1e6 for seconds in (here, there)]
        where = (
            f"{counts.total_tokens:,} tokens, {conditions}, {cores} cores; "
            f"Mtok/s a core: local {rates[0]:,.2f}, Ray {rates[1]:,.2f}"
        )
        question = f"Ray, {what}, {way}: rate beside the local scan"
        yield Measured(question, here / there, "×", MUST, "1 ×", where, more_is_better=True)


def run() -> list[Measured]:
    """Measure everything; some minutes on two cores.

    Returns:
        Ratios for ids, and for texts where there are tokenizers.
    """
    os.environ.update(QUIET)
    import ray  # noqa: PLC0415
    import ray.data  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="ray") as sockets, tempfile.TemporaryDirectory() as ids:
        ray.init(
            num_cpus=available_threads(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
            _temp_dir=sockets,
        )
        try:
            results = list(_id_results(ray.data, Path(ids)))
            if "SUBVOCAB_DATA" in os.environ:
                with tempfile.TemporaryDirectory() as texts:
                    results += _text_results(ray.data, Path(texts))
        finally:
            ray.shutdown()
    return results
