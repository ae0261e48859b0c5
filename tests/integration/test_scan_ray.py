"""A corpus on a Ray cluster is counted as on one machine, even if a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.data
from tokenizers import Tokenizer
from typer.testing import CliRunner

from subvocab.cli.app import app
from subvocab.data import encoding, scan, scan_growth
from subvocab.data.columns import Wanted
from subvocab.data.ray import _count_block
from subvocab.data.recipe import Recipe
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts
from tests import tiny_tokenizers
from tests.pages import python_blocks, run_block

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # of its own settings
]

SIZE = 500
TEXTS = tiny_tokenizers.CORPUS * 30
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # By default Ray starts 32 processes to read the footers of any number of Parquet files.
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Start two workers on this machine."""
    # The path of a socket has at most 107 characters, so not below `tmp_path`.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 << 20,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write ids as Parquet, and texts in every format."""
    generator = np.random.default_rng(0)
    for file in range(3):
        rows = [generator.integers(0, SIZE, size).tolist() for size in range(200)]
        labels = [[-100, *row[:2]] for row in rows]
        table = pa.table({"input_ids": rows, "labels": labels, "more": list(range(200))})
        (tmp_path / "ids").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "ids" / f"{file}.parquet", row_group_size=50)
    (tmp_path / "a.txt").write_text("\n".join([*TEXTS, "", "a\x1cb\u2028c", "007"]))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "c.csv").write_text("text,n\nthe cat,1\n12,2\n")
    tiny_tokenizers.wordpiece().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize(
    "options", [{}, {"label_columns": "labels"}, {"columns": "more", "full_vocab_size": 200}]
)
def test_ids_are_counted_as_on_one_machine(folder: Path, options: dict[str, Any]) -> None:
    """Counts and fingerprint are equal, and the context of the dataset stays as it was."""
    options = {"full_vocab_size": SIZE, **options}
    dataset = ray.data.read_parquet(str(folder / "ids"))
    before = repr(dataset.context.execution_options)

    counts = scan(dataset, **options)

    table = pq.read_table(folder / "ids")
    assert counts.fingerprint == scan(table, **options).fingerprint
    assert repr(dataset.context.execution_options) == before


def test_growth_is_that_of_the_order_of_the_dataset() -> None:
    """Blocks may be counted in any order, and are put together in theirs."""
    rows = np.random.default_rng(1).integers(0, SIZE, (300, 4))
    dataset = ray.data.from_items(
        [{"input_ids": row.tolist()} for row in rows], override_num_blocks=35
    )

    assert scan_growth(dataset, full_vocab_size=SIZE) == scan_growth(rows, full_vocab_size=SIZE)


def _left(tokenizer: Any) -> Any:
    tokenizer.truncation_side = "left"
    tokenizer.split_special_tokens = True
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        tiny_tokenizers.wordpiece(),
        tiny_tokenizers.unigram(),
        _left(tiny_tokenizers.as_transformers(tiny_tokenizers.byte_level())),
    ],
    ids=["wordpiece", "unigram", "transformers"],
)
def test_texts_are_counted_as_on_one_machine(tokenizer: Any) -> None:
    """The tokenizer that is sent is set as the caller's."""
    texts = [*TEXTS, "the cat<|endoftext|>", "a [MASK]"]
    rows = [{"text": text, "n": n} for n, text in enumerate(texts)]
    dataset = ray.data.from_items(rows, override_num_blocks=40)

    counts = scan(dataset, tokenizer=tokenizer, max_length=5)

    assert counts == scan(texts, tokenizer=tokenizer, max_length=5)


def test_any_kind_of_block_is_counted() -> None:
    """Blocks of pandas, tensors, ragged tensors, and none at all."""
    rows = [[1, 2, 3], [4], [5, 6]]
    frame = ray.data.from_pandas(pa.table({"input_ids": rows}).to_pandas())
    even = ray.data.from_numpy(np.arange(12).reshape(4, 3))

    def ragged(batch: dict[str, Any]) -> dict[str, Any]:
        return {"input_ids": [np.arange(n + 1) for n in batch["id"]]}

    uneven = ray.data.range(5).map_batches(ragged)
    none = ray.data.range(3).map_batches(lambda batch: {"input_ids": batch["id"][:0]})

    assert scan(frame, full_vocab_size=9) == scan(rows, full_vocab_size=9)
    assert scan(even, full_vocab_size=12, columns="data").counts.tolist() == [1] * 12
    assert scan(uneven, full_vocab_size=5).counts.tolist() == [5, 4, 3, 2, 1]
    assert scan(none, full_vocab_size=5).total_tokens == 0


def test_an_id_outside_is_told_with_its_row() -> None:
    """Rows of a block, and where the block begins; blocks keep their order."""
    dataset = ray.data.range(80, override_num_blocks=40)

    with pytest.raises(DataError) as error:
        scan(dataset, full_vocab_size=51, columns="id")

    assert str(error.value) == (
        "Token id 51 at column `id`, row 1 of the block lies outside the vocabulary of 51. Give "
        "the `full_vocab_size` of the model, which is the number of rows of its embedding matrix, "
        "and the tokenizer that made the ids. The block begins at row 50."
    )


def test_a_collator_runs_over_a_sample() -> None:
    """What it adds is kept, and the rows are counted on the cluster."""
    dataset = ray.data.from_items([{"input_ids": [row % 7]} for row in range(300)])

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"input_ids": [[*row["input_ids"], 8] for row in rows]}

    counts = scan(dataset, full_vocab_size=9, collator=collate)

    assert counts.special_token_ids.tolist() == [0, 8]
    assert counts.counts.tolist() == [43, 43, 43, 43, 43, 43, 42, 0, 0]


def test_a_missing_column_is_told_at_once() -> None:
    """The columns are looked at before anything is counted."""
    with pytest.raises(DataError, match="The source has no column `ids`"):
        scan(ray.data.range(3), full_vocab_size=9, columns="ids")


@pytest.mark.parametrize(("sent", "imported"), [(True, False), (False, True)])
def test_a_worker_imports_no_torch(*, sent: bool, imported: bool) -> None:
    """A tokenizer of transformers is sent as text; sent as it is, it would bring both along."""
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece())
    recipe = Recipe(
        full_vocab_size=len(tokenizer),
        wanted=Wanted(tokens=None, labels=(), texts=("text",), tokenizes=True),
        tokenizer=encoding.sendable(tokenizer) if sent else tokenizer,
        max_length=None,
        special_token_ids=np.array([0]),
        notes_first=False,
    )

    def count(block: pa.Table, recipe: Recipe) -> tuple[int, set[str]]:
        counted = _count_block(block, recipe)
        return sum(counted.column("times")[0].as_py()), set(sys.modules)

    in_a_new_process = ray.remote(max_calls=1)(count)
    tokens, modules = ray.get(in_a_new_process.remote(pa.table({"text": TEXTS}), recipe))

    assert tokens == scan(TEXTS, tokenizer=tokenizer).total_tokens
    assert ("transformers" in modules) == imported
    assert not (modules & {"torch", "transformers"}) or imported


def test_a_killed_worker_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Two workers are killed while they hold a block; Ray counts it once more."""
    rows = np.random.default_rng(0).integers(0, SIZE, (400, 20))

    def fatal(batch: dict[str, Any]) -> dict[str, Any]:
        for row in (57, 311):
            mark = tmp_path / str(row)
            if row in batch["row"] and not mark.exists():
                mark.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
        return {"input_ids": batch["input_ids"]}

    items = [{"row": row, "input_ids": ids.tolist()} for row, ids in enumerate(rows)]
    dataset = ray.data.from_items(items, override_num_blocks=40).map_batches(fatal)

    counts = scan(dataset, full_vocab_size=SIZE)

    killed = [int((tmp_path / str(row)).read_text()) for row in (57, 311)]
    assert all(not Path(f"/proc/{pid}").exists() for pid in killed)
    assert counts == scan(rows, full_vocab_size=SIZE)


def test_files_are_counted_as_on_one_machine(folder: Path) -> None:
    """Each file is read as this process would read it, whatever its format."""
    files = [folder / name for name in ("a.txt", "b.jsonl", "c.csv")]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    counts = scan(files, tokenizer=tokenizer, text_columns="text", engine="ray")
    growth = scan_growth(folder / "ids", full_vocab_size=SIZE, engine="ray")

    assert counts == scan(files, tokenizer=tokenizer, text_columns="text")
    assert growth == scan_growth(folder / "ids", full_vocab_size=SIZE)


def test_a_fault_in_a_file_is_told_as_on_one_machine(folder: Path) -> None:
    """File and line are named."""
    (folder / "b.jsonl").write_text('{"text": "a"}\n[1]\n')
    files = [folder / "a.txt", folder / "b.jsonl"]

    with pytest.raises(DataError) as here:
        scan(files, tokenizer=tiny_tokenizers.wordpiece())
    with pytest.raises(DataError) as there:
        scan(files, tokenizer=tiny_tokenizers.wordpiece(), engine="ray")

    assert str(there.value) == str(here.value)


def test_the_command_counts_on_ray(folder: Path) -> None:
    """Wildcards of a URL are expanded, and the counts kept are those of one machine."""
    files = (folder / "ids" / "*.parquet").as_uri().replace("%2A", "*")
    out = folder / "counts.safetensors"
    options = ["--full-vocab-size", str(SIZE), "--label-column", "labels", "--out", str(out)]

    done = CliRunner().invoke(app, ["scan", files, "--engine", "ray", "--json", *options])

    table = pq.read_table(folder / "ids")
    expected = scan(table, full_vocab_size=SIZE, label_columns="labels")
    assert done.exit_code == 0, done.output
    assert TokenCounts.load(out) == expected
    assert json.loads(done.stdout.splitlines()[-1])["total_tokens"] == expected.total_tokens


@pytest.mark.usefixtures("libraries_as_before")
def test_the_page_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All snippets of docs/scanning.md, with the results that it promises."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {
        "datasets": datasets,
        "tokenizer": tiny_tokenizers.wordpiece(),
        "train": TEXTS[:50],
        "more": TEXTS[50:],
        "files": sorted(map(str, (folder / "ids").iterdir())),
        "folder": str(folder / "ids"),
    }
    ids = scan(folder / "ids", full_vocab_size=1000)
    expected = [scan(TEXTS, tokenizer=names["tokenizer"]), ids, ids, ids]

    for program, counts in zip(python_blocks("docs/scanning.md"), expected, strict=True):
        run_block(program, names)
        assert names["counts"] == counts

    assert names["growth"].counts == ids
