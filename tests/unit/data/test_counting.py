"""Counting is right on any number of threads, and errors name the first offender."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from subvocab.data import counting
from subvocab.data.counting import Ids, TokenCounter
from subvocab.errors import DataError


def _place(position: int) -> str:
    return f"position {position}"


def _count(ids: np.ndarray, *, size: int, threads: int = 1, labels: bool = False) -> list[int]:
    with TokenCounter(size, threads=threads) as counter:
        counter.add(Ids(ids, _place, labels=labels))
        counts: list[int] = counter.total().tolist()
    return counts


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint16", "uint64"])
def test_total_equals_bincount(monkeypatch: pytest.MonkeyPatch, threads: int, dtype: str) -> None:
    """Cut anywhere and counted by anyone, the sum is the same."""
    monkeypatch.setattr(counting, "JOB_TOKENS", 50)
    ids = np.random.default_rng(0).integers(0, 100, 1013).astype(dtype)

    with TokenCounter(100, threads=threads) as counter:
        counter.add(Ids(ids[:700], _place))
        counter.add(Ids(ids[700:], _place))
        total = counter.total()

    assert total.tolist() == np.bincount(ids, minlength=100).tolist()


def test_total_counts_more_than_a_tally_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of 32 bits are emptied before one could overflow."""
    monkeypatch.setattr(counting, "JOB_TOKENS", 10)
    monkeypatch.setattr(counting, "LARGEST_COUNT", 25)

    assert _count(np.ones(1000, dtype=np.int32), size=2) == [0, 1000]


@pytest.mark.parametrize("bad", [-1, 100, -(2**31), 2**31 - 1])
def test_add_names_the_first_id_outside(monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    """The error is that of the first offender, though threads find a later one sooner."""
    monkeypatch.setattr(counting, "JOB_TOKENS", 10)
    ids = np.zeros(1000, dtype=np.int32)
    ids[[437, 700]] = bad

    with pytest.raises(DataError, match=f"Token id {bad:,} at position 437 lies outside"):
        _count(ids, size=100, threads=4)


def test_labels_pass_over_the_ignored_label_only() -> None:
    """-100 is no token; any other negative id is still an error."""
    ids = np.array([-100, 3, -100, -1])

    assert _count(ids[:3], size=10, labels=True) == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    with pytest.raises(DataError, match="id -1 at position 3"):
        _count(ids, size=10, labels=True)


def test_the_largest_ids_do_not_come_round_to_the_ignored_label() -> None:
    """2^64 - 100 is an id outside V."""
    with pytest.raises(DataError, match="Token id 18,446,744,073,709,551,516 at position 1 lies"):
        _count(np.array([3, 2**64 - 100], dtype=np.uint64), size=10, labels=True)


def test_an_unmarked_label_column_is_told_how_to_mark_it() -> None:
    """-100 elsewhere is an error that names the way out."""
    with pytest.raises(DataError) as caught:
        _count(np.array([-100]), size=10)

    assert str(caught.value) == (
        "Token id -100 at position 0 lies outside the vocabulary of 10. It marks labels to "
        "ignore: name the column in `label_columns`."
    )


def test_kernel_works_where_it_cannot_be_kept(tmp_path: Path) -> None:
    """Without a folder for compiled code, the loop is compiled anew and counts as well."""
    program = (
        "from numba.core.caching import CacheImpl\n"
        "CacheImpl._locator_classes = []\n"
        "import subvocab.data.kernel as kernel, numpy as np\n"
        "counts = np.zeros(3, dtype=np.int64)\n"
        "kernel.count_ids(np.array([1, 1, 2]), counts, 0)\n"
        "print(counts.tolist(), type(kernel.count_ids._cache).__name__)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert done.stdout.split("\n")[0] == "[0, 2, 1] NullCache"


def test_data_layer_loads_neither_torch_nor_datasets() -> None:
    """Scanning runs on workers that have only NumPy, Arrow and tokenizers loaded."""
    program = (
        "import sys, subvocab.data; heavy = {'torch', 'transformers', 'datasets', 'numba'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )

    assert done.stdout.strip() == "[]"
