"""How fast are token ids counted, and texts? Ratios are measured within one run.

Ids: a memory-mapped dataset of int32 against `Dataset.map` with `np.bincount` a batch (the way
of the paper's own code) and against `np.sum` over the same buffers. Texts: against the bare
tokenizer's `encode_batch`, which only encodes and counts nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmarks.harness import Measured, Ways, best_seconds
from subvocab.data import scan, scan_growth
from subvocab.data.counting import available_threads

TOKENS = 100_000_000
ROW_TOKENS = 128
FULL_VOCAB_SIZE = 250_000
MAPPED_ROWS = 20_000
REPEATS = 5
MUST_MAP = 20.0
MUST_SUM = 0.5
MUST_TEXT = 1.15
MUST_GROWTH = 1.5


def _sums(buffers: list[np.ndarray]) -> int:
    """Read every buffer once, which is the least that counting must do."""
    return sum(int(buffer.sum()) for buffer in buffers)


def _sums_on_all_cores(buffers: list[np.ndarray]) -> int:
    """Read every buffer once, on as many threads as count."""
    parts = [buffers[at :: available_threads()] for at in range(available_threads())]
    with ThreadPoolExecutor(available_threads()) as pool:
        return sum(pool.map(_sums, parts))


def _ids(kind: str) -> np.ndarray:
    """Draw ids, each alike or by Zipf's law over shuffled ranks."""
    generator = np.random.default_rng(0)
    if kind == "uniform":
        return generator.integers(0, FULL_VOCAB_SIZE, TOKENS, dtype=np.int32)
    weights = 1 / np.arange(1, FULL_VOCAB_SIZE + 1)
    draws = generator.random(TOKENS // 10)
    ranks = np.searchsorted(np.cumsum(weights / weights.sum()), draws).clip(0, FULL_VOCAB_SIZE - 1)
    return np.tile(generator.permutation(FULL_VOCAB_SIZE).astype(np.int32)[ranks], 10)


def _mapped_dataset(kind: str, folder: Path) -> datasets.Dataset:
    """Write rows as `datasets` does, a thousand a record batch, and map them."""
    ids = _ids(kind)
    path = folder / f"{kind}.arrow"
    rows = pa.FixedSizeListArray.from_arrays(pa.array(ids), ROW_TOKENS).cast(pa.list_(pa.int32()))
    table = pa.table({"input_ids": rows})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    return datasets.Dataset.from_file(str(path))


def _map_seconds(dataset: datasets.Dataset, folder: Path) -> float:
    """Time the paper's way: one row of |V| counts a batch, written to the cache and added up."""

    def count(batch: dict[str, Any]) -> dict[str, Any]:
        flat = np.concatenate(batch["input_ids"])
        return {"counts": [np.bincount(flat, minlength=FULL_VOCAB_SIZE)]}

    def work() -> None:
        counted = dataset.with_format("numpy").map(
            count,
            batched=True,
            remove_columns=dataset.column_names,
            cache_file_name=str(folder / "counts.arrow"),
            load_from_cache_file=False,
        )
        sum(row["counts"] for row in counted)

    datasets.disable_progress_bars()
    return best_seconds({"map": work}, repeats=1)["map"]


def _id_results(folder: Path) -> Iterator[Measured]:
    conditions = f"{TOKENS:,} int32 ids, rows of {ROW_TOKENS}, |V| {FULL_VOCAB_SIZE:,}, mapped"
    for kind in ("uniform", "zipf"):
        dataset = _mapped_dataset(kind, folder)
        chunks = dataset.data.table.column("input_ids").chunks
        buffers = [chunk.flatten().to_numpy() for chunk in chunks]
        for counts in (scan, scan_growth):  # compiles the loops
            counts(dataset.select(range(1000)), full_vocab_size=FULL_VOCAB_SIZE)
        ways: Ways = {
            "scan": partial(scan, dataset, full_vocab_size=FULL_VOCAB_SIZE),
            "growth": partial(scan_growth, dataset, full_vocab_size=FULL_VOCAB_SIZE),
            "sum": partial(_sums, buffers),
            "sum on all cores": partial(_sums_on_all_cores, buffers),
        }
        best = best_seconds(ways, repeats=REPEATS)
        ours = best["scan"]
        rate = TOKENS / ours / 1e6
        where = f"{conditions}, {kind} ids, {os.cpu_count()} cores, {rate:,.0f} Mtok/s"
        beside_scan = f"scan_growth, {kind} ids: time beside scan"
        yield Measured(beside_scan, best["growth"] / ours, "×", MUST_GROWTH, "1 ×", where)
        beside_sum, floor = f"scan, {kind} ids: rate beside np.sum over the buffers", best["sum"]
        yield Measured(beside_sum, floor / ours, "×", MUST_SUM, "1 ×", where, more_is_better=True)
        on_all, lowest = f"{beside_sum}, on all cores", best["sum on all cores"]
        yield Measured(on_all, lowest / ours, "×", None, "0.5 ×", where, more_is_better=True)
        if kind == "uniform":
            some = dataset.select(range(MAPPED_ROWS))
            mapped = MAPPED_ROWS * ROW_TOKENS / _map_seconds(some, folder) / 1e6
            beside_map = "scan: rate beside Dataset.map with np.bincount"
            where += f"; map on the first {MAPPED_ROWS:,} rows, {mapped:.1f} Mtok/s"
            yield Measured(beside_map, rate / mapped, "×", MUST_MAP, "", where, more_is_better=True)


def _generated() -> tuple[dict[str, Tokenizer], list[str]]:
    """Make texts of invented words by Zipf's law, and a tokenizer trained on some of them."""
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(generator.choice(letters, generator.integers(2, 10))) for _ in range(30_000)]
    draws = np.minimum(generator.zipf(1.2, 1_000_000), len(words)) - 1
    texts = [" ".join(words[rank] for rank in row) for row in draws.reshape(-1, 20)]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=8000, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts[:2000], trainer)
    return {"trained WordPiece": tokenizer}, texts


def _real(folder: Path) -> tuple[dict[str, Tokenizer], list[str]]:
    """Take every tokenizer there is, and the sentences of SST-2's training split."""
    files = sorted((folder / "tokenizers").glob("*/tokenizer.json"))
    tokenizers = {file.parent.name: Tokenizer.from_file(str(file)) for file in files}
    lines = (folder / "glue" / "SST-2" / "train.tsv").read_text("utf-8").split("\n")[1:-1]
    return tokenizers, [line.split("\t")[0] for line in lines]


def _text_results() -> Iterator[Measured]:
    folder = os.environ.get("SUBVOCAB_DATA")
    tokenizers, texts = _real(Path(folder)) if folder else _generated()
    source = "SST-2 train" if folder else "generated texts"
    for name, tokenizer in tokenizers.items():
        ways: Ways = {
            "bare": partial(tokenizer.encode_batch, texts),
            "scan": partial(scan, texts, tokenizer=tokenizer),
            "growth": partial(scan_growth, texts, tokenizer=tokenizer),
        }
        bare, ours, growing = best_seconds(ways, repeats=REPEATS).values()
        where = f"{source}, {len(texts):,} texts, bare {bare:.2f} s, {os.cpu_count()} cores"
        beside_bare = f"scan, texts: time beside bare encode_batch, {name}"
        yield Measured(beside_bare, ours / bare, "×", MUST_TEXT, "1 ×", where)
        beside_scan = f"scan_growth, texts: time beside scan, {name}"
        yield Measured(beside_scan, growing / ours, "×", MUST_GROWTH, "1 ×", where)


def run() -> list[Measured]:
    """Measure everything; about two minutes on two cores.

    Returns:
        Ratios for ids and for texts.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = list(_id_results(Path(folder)))
    return [*results, *_text_results()]
