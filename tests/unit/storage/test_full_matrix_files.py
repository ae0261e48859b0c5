"""Tests of writing a matrix to a file of its own, for good or as long as it is in use."""

from __future__ import annotations

import gc
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from subvocab.errors import CheckpointError
from subvocab.storage import FullMatrix, write_matrix
from tests.unit.storage.matrices import BYTES, DIM, SIZE, VALUES

# Writing


def test_write_matrix_writes_what_the_library_reads(tmp_path: Path) -> None:
    """Parts of any shape and type make one tensor."""
    parts: list[np.ndarray] = [VALUES[:5], VALUES[5:6].ravel(), BYTES[6:], VALUES[:0]]

    matrix = write_matrix(tmp_path / "x.safetensors", "e", "F32", (SIZE, DIM), parts)

    assert np.array_equal(load_file(tmp_path / "x.safetensors")["e"], VALUES)
    assert np.array_equal(matrix.rows(np.arange(SIZE)), BYTES)


def test_write_matrix_takes_parts_that_are_not_contiguous(tmp_path: Path) -> None:
    """The values count, not how they lie in memory."""
    matrix = write_matrix(tmp_path / "x", "e", "F32", (SIZE, DIM), [np.asfortranarray(VALUES)])

    assert np.array_equal(matrix.rows(np.arange(SIZE)), BYTES)


def test_write_matrix_refuses_parts_that_do_not_fill_the_shape(tmp_path: Path) -> None:
    """Nothing is left behind, and what was there stays."""
    path = tmp_path / "x.safetensors"
    path.write_text("old")
    expected = "The chunks of `e` have 132 bytes, expected 144 for the shape (12, 3) of F32."

    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        write_matrix(path, "e", "F32", (SIZE, DIM), [VALUES[1:]])

    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_write_matrix_refuses_an_unknown_dtype(tmp_path: Path) -> None:
    """NumPy's names are not those of safetensors."""
    with pytest.raises(CheckpointError, match=r"^`e` has dtype 'float32', expected one of F4, "):
        write_matrix(tmp_path / "x", "e", "float32", (SIZE, DIM), [VALUES])


# Spilling


def test_spill_lives_as_long_as_the_matrix(tmp_path: Path) -> None:
    """Garbage takes its file along."""
    matrix = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)
    assert np.array_equal(matrix.rows(np.arange(SIZE)), BYTES)
    assert len(list(tmp_path.iterdir())) == 1

    del matrix
    gc.collect()

    assert not list(tmp_path.iterdir())


def test_a_pickle_of_a_spill_keeps_its_name_when_the_file_is_gone(tmp_path: Path) -> None:
    """Its rows are gone with it, and the message says what is left to do."""
    matrix = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)
    written, path = pickle.dumps(matrix), matrix.tensor.path
    fingerprint = matrix.fingerprint
    path.unlink()
    expected = (
        f"{path} is gone: it held the unused rows, and only as long as the process that shrank the "
        "model. What was learned is here still: take it by `subvocab.save_compact`, "
        "`subvocab.compact_state_dict` or `RowAdapter.of`; and next time save the model by "
        "`save_pretrained` before that process ends."
    )

    twin = pickle.loads(written)  # noqa: S301 - our own

    assert twin.fingerprint == fingerprint
    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        twin.rows(np.arange(SIZE))


def test_a_spill_whose_file_is_gone_is_pickled_as_it_is(tmp_path: Path) -> None:
    """There is nothing left to take a name of."""
    matrix = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)
    matrix.tensor.path.unlink()

    assert pickle.loads(pickle.dumps(matrix)) == matrix  # noqa: S301 - our own


def test_spill_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """Temporary folders are shared between users, weights are not."""
    matrix = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)

    assert matrix.tensor.path.stat().st_mode & 0o777 == 0o600


def test_spill_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    """A half-written temporary file is removed."""
    with pytest.raises(CheckpointError, match="The chunks of `e`"):
        FullMatrix.spill("e", "F32", (SIZE, DIM), [], folder=tmp_path)

    assert not list(tmp_path.iterdir())


def test_spill_is_deleted_by_its_own_process_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that drops its copy leaves the file."""
    matrix = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)
    monkeypatch.setattr(os, "getpid", lambda: -1)

    del matrix
    gc.collect()

    assert len(list(tmp_path.iterdir())) == 1


def test_spill_survives_a_forked_child(tmp_path: Path) -> None:
    """A child that ends must not delete the file its parent reads."""
    matrix = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)
    path = matrix.tensor.path
    code = (
        "import gc, os, sys, numpy as np; from subvocab.storage import FullMatrix\n"
        f"folder = {str(tmp_path)!r}\n"
        "m = FullMatrix.spill('e', 'U8', (1, 1), [np.zeros(1, np.uint8)], folder=folder)\n"
        "path = m.tensor.path\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    m.rows(np.array([0])); del m; gc.collect(); sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert path.exists()\n"
        "m.rows(np.array([0])); print(path)\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert not Path(result.stdout.strip()).exists()
    assert path.exists()


def test_spill_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    """Nothing of a process that was killed runs; what it had spilled may be gigabytes."""
    code = (
        "import os, numpy as np; from subvocab.storage import FullMatrix\n"
        f"folder = {str(tmp_path)!r}\n"
        "m = FullMatrix.spill('e', 'U8', (1, 1), [np.zeros(1, np.uint8)], folder=folder)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))

    matrix = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)

    assert list(tmp_path.iterdir()) == [matrix.tensor.path]


def test_spill_in_use_is_not_removed_however_old(tmp_path: Path) -> None:
    """Training may take weeks."""
    first = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)
    os.utime(first.tensor.path, (0, 0))

    second = FullMatrix.spill("e", "F32", (SIZE, DIM), [VALUES], folder=tmp_path)

    assert {*tmp_path.iterdir()} == {first.tensor.path, second.tensor.path}
