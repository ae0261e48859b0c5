"""Tests of a matrix with some of its rows replaced, in memory alone."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from subvocab.errors import CheckpointError, OutOfVocabularyError, VocabularyMismatchError
from subvocab.storage import FullMatrix, write_matrix
from tests.unit.storage.matrices import BYTES


def test_overlay_replaces_rows_but_not_on_disk(matrix: FullMatrix, file: Path) -> None:
    """The mapping is private: no write reaches the file."""
    before = file.read_bytes()

    overlay = matrix.overlay(np.array([7, 2]), BYTES[:2] + 1)
    overlay[0] = 9

    assert np.array_equal(overlay[[7, 2]], BYTES[:2] + 1)
    assert np.array_equal(overlay[3:7], BYTES[3:7])
    assert file.read_bytes() == before
    assert np.array_equal(matrix.rows(np.array([0])), BYTES[:1])


def test_overlay_refuses_a_file_cut_short(matrix: FullMatrix, file: Path) -> None:
    """The file is looked at before it is mapped: pages beyond its end would kill the process."""
    os.truncate(file, 10)

    with pytest.raises(CheckpointError, match="has changed since `e` was opened"):
        matrix.overlay(np.empty(0, dtype=np.int64), BYTES[:0])


def test_overlay_outlives_its_file(matrix: FullMatrix, file: Path) -> None:
    """Deleting or replacing the file does no harm to a mapping of it."""
    overlay = matrix.overlay(np.empty(0, dtype=np.int64), BYTES[:0])
    file.unlink()

    assert np.array_equal(overlay, BYTES)


def test_overlay_costs_only_the_pages_written(tmp_path: Path) -> None:
    """Rows that are not replaced take no private memory."""
    rows = np.zeros((8192, 4096), dtype=np.uint8)
    matrix = write_matrix(tmp_path / "x.safetensors", "e", "U8", rows.shape, [rows])
    before = anonymous_bytes()

    overlay = matrix.overlay(np.arange(8), rows[:8] + 1)

    assert int(overlay[::64].sum()) >= 4096
    assert anonymous_bytes() - before < 2_000_000


def anonymous_bytes() -> int:
    """Ask the system for this process's private memory."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) * 1024


def test_overlay_refuses_rows_of_another_width(matrix: FullMatrix) -> None:
    """Rows of another dtype have another width."""
    expected = (
        "Rows for `e` have shape (2, 6), expected (2, 12): 2 rows of 12 bytes. Pass them as bytes "
        "of F32."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(expected)}$"):
        matrix.overlay(np.array([0, 1]), np.zeros((2, 6), dtype=np.uint8))


def test_overlay_refuses_an_id_given_twice(matrix: FullMatrix) -> None:
    """Which of two rows is meant cannot be known."""
    expected = (
        "Token ids 4 come more than once, so which row of `e` they give is open. Pass each id once."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(expected)}$"):
        matrix.overlay(np.array([4, 1, 4]), BYTES[:3])


def test_overlay_refuses_ids_outside(matrix: FullMatrix) -> None:
    """A negative id must not count from the end."""
    with pytest.raises(OutOfVocabularyError, match="Token ids -1 lie outside the 12 rows"):
        matrix.overlay(np.array([-1]), BYTES[:1])
