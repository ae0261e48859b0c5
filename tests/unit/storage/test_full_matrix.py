"""Tests of reading an embedding matrix where it lies."""

from __future__ import annotations

import copy
import os
import pickle
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from subvocab.errors import CheckpointError, OutOfVocabularyError, VocabularyMismatchError
from subvocab.storage import FullMatrix, read_checkpoint, write_matrix
from subvocab.storage.header import encode_header
from tests.unit.storage.matrices import BYTES, DIM, SIZE

ROW_BYTES = DIM * 4


def touch_later(path: Path) -> None:
    """Write to a file in place, at a time that differs."""
    later = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(later, later))


# Opening


def test_open_tells_size_and_type(matrix: FullMatrix) -> None:
    """What the header says, in the words of the library."""
    assert (matrix.full_vocab_size, matrix.embedding_dim) == (SIZE, DIM)
    assert (matrix.dtype, matrix.row_bytes) == ("F32", ROW_BYTES)


def test_repr_names_the_tensor_and_the_file(matrix: FullMatrix, file: Path) -> None:
    """What a person needs to recognise it."""
    assert repr(matrix) == f"FullMatrix('e' in {file}, 12 × 3 F32)"


def test_open_refuses_a_tensor_that_is_absent(file: Path) -> None:
    """The names that exist are listed."""
    expected = (
        f"`wte` is not among the 3 tensors of {file}: bias, e, z. List them all with "
        "`subvocab inspect`."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        FullMatrix.open(file, "wte")


def test_open_refuses_another_height(file: Path) -> None:
    """The vocabulary must be that of the matrix."""
    expected = (
        f"`e` in {file} has 12 rows, expected 50,000. Use the checkpoint that the vocabulary was "
        "taken for, or fit the vocabulary with `resized`."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(expected)}$"):
        FullMatrix.open(file, "e", full_vocab_size=50_000)


def test_open_takes_the_height_expected(file: Path) -> None:
    """The same number passes."""
    assert FullMatrix.open(file, "e", full_vocab_size=SIZE).full_vocab_size == SIZE


@pytest.mark.parametrize(("name", "shape"), [("bias", "(5,)"), ("z", "(2, 2, 2)")])
def test_full_matrix_refuses_other_than_two_axes(file: Path, name: str, shape: str) -> None:
    """A row a token needs two axes."""
    expected = (
        f"`{name}` in {file} has shape {shape}, expected two axes: one row a token. Name an "
        "embedding matrix."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        FullMatrix(read_checkpoint(file).tensors[name])


def test_full_matrix_refuses_rows_that_are_no_whole_bytes(tmp_path: Path) -> None:
    """Two rows of three half bytes share one."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(encode_header({"e": ("F4", (2, 3), 0)}, None) + b"123")
    expected = (
        f"`e` in {path} has 3 numbers of F4 a row, which are no whole bytes. Store it in a wider "
        "dtype."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        FullMatrix.open(path, "e")


def test_full_matrix_is_its_own_copy(matrix: FullMatrix) -> None:
    """Copying a model must not copy what is immutable."""
    assert copy.deepcopy(matrix) is matrix
    assert copy.copy(matrix) is matrix


def test_full_matrix_survives_pickling(matrix: FullMatrix) -> None:
    """Worker processes read the same file."""
    again = pickle.loads(pickle.dumps(matrix))  # noqa: S301  our own

    assert again == matrix
    assert np.array_equal(again.rows(np.array([3])), BYTES[3:4])


# Reading rows


@pytest.mark.parametrize(
    "ids", [[], [0], [11], [2, 3, 4, 9], [9, 2, 2, 0], list(range(SIZE))], ids=str
)
def test_rows_gives_rows_as_asked(matrix: FullMatrix, ids: list[int]) -> None:
    """Any order, repeats, runs, nothing at all."""
    token_ids = np.array(ids, dtype=np.int32)

    assert np.array_equal(matrix.rows(token_ids), BYTES[token_ids])


@pytest.mark.parametrize(
    ("ids", "named"), [([-1, 3], "-1"), ([12], "12"), ([99, 13, 99, 0], "13, 99")]
)
def test_rows_refuses_ids_outside(matrix: FullMatrix, ids: list[int], named: str) -> None:
    """A negative id must not count from the end."""
    expected = (
        f"Token ids {named} lie outside the 12 rows of `e` in {matrix.tensor.path}. Use the "
        "tokenizer of this checkpoint."
    )

    with pytest.raises(OutOfVocabularyError, match=f"^{re.escape(expected)}$") as caught:
        matrix.rows(np.array(ids))
    assert list(caught.value.token_ids) == [int(token_id) for token_id in named.split(", ")]


def test_rows_are_the_caller_s_own(matrix: FullMatrix) -> None:
    """Writing to the result changes neither file nor later results."""
    matrix.rows(np.array([0]))[:] = 255

    assert np.array_equal(matrix.rows(np.array([0])), BYTES[:1])


def test_rows_may_be_read_by_many_threads(matrix: FullMatrix) -> None:
    """No position in the file is shared."""
    wrong: list[int] = []

    def read_often(token_id: int) -> None:
        read = [matrix.rows(np.array([token_id]))[0] for _ in range(50)]
        wrong.extend(token_id for row in read if not np.array_equal(row, BYTES[token_id]))

    threads = [threading.Thread(target=read_often, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


def test_rows_keep_no_file_open(matrix: FullMatrix) -> None:
    """Nothing is left for anyone to close."""
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208  descriptors, not files

    matrix.rows(np.array([0]))

    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


# A file that changes


def test_rows_refuses_a_file_written_to(matrix: FullMatrix, file: Path) -> None:
    """Rows of another moment are not those trained from."""
    touch_later(file)
    expected = (
        f"{file} has changed since `e` was opened, so its rows may no longer be those trained "
        "from. If a model was saved in its place, load that one, and save to another folder."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        matrix.rows(np.array([0]))


def test_rows_refuses_a_file_replaced(matrix: FullMatrix, file: Path) -> None:
    """The same bytes and time in another file are another file."""
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=times)
    other.replace(file)

    with pytest.raises(CheckpointError, match="has changed since `e` was opened"):
        matrix.rows(np.array([0]))


def test_rows_refuses_a_file_that_is_gone(matrix: FullMatrix, file: Path) -> None:
    """The message says why a file is needed at all."""
    file.unlink()
    expected = (
        f"{file} is gone (No such file or directory), but `e` is read from it as long as it is in "
        "use. Put it back, or open the matrix where it lies now."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(expected)}$"):
        matrix.rows(np.array([0]))


def test_rows_notices_a_change_while_reading(
    matrix: FullMatrix, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is looked at again when the rows are read."""

    def truncate(*_: object) -> int:
        os.truncate(file, 10)
        return 0

    monkeypatch.setattr(os, "preadv", truncate)

    with pytest.raises(CheckpointError, match="has changed since `e` was opened"):
        matrix.rows(np.array([0]))


def test_chunks_refuses_a_change_between_parts(matrix: FullMatrix, file: Path) -> None:
    """Each part is checked, not only the first."""
    parts = matrix.chunks(rows_per_chunk=5)
    next(parts)
    touch_later(file)

    with pytest.raises(CheckpointError, match="has changed since `e` was opened"):
        next(parts)


# The whole matrix


def test_chunks_cover_the_matrix(matrix: FullMatrix) -> None:
    """Parts of the size asked for, the last of the rest."""
    parts = list(matrix.chunks(rows_per_chunk=5))

    assert [(first, len(rows)) for first, rows in parts] == [(0, 5), (5, 5), (10, 2)]
    assert np.array_equal(np.concatenate([rows for _, rows in parts]), BYTES)


def test_chunks_choose_their_size(matrix: FullMatrix) -> None:
    """A small matrix is one part."""
    assert len(list(matrix.chunks())) == 1


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_matrices_can_be_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Nothing to map, nothing to fail."""
    matrix = write_matrix(tmp_path / "x.safetensors", "e", "F32", shape, [])
    nothing = np.empty(0, dtype=np.int64)

    assert matrix.overlay(nothing, matrix.rows(nothing)).shape == (shape[0], shape[1] * 4)
    assert sum(len(rows) for _, rows in matrix.chunks()) == shape[0]
    assert len(matrix.fingerprint) == 64


def test_chunks_of_rows_of_nothing_end(tmp_path: Path) -> None:
    """A header of a hundred bytes may name as many rows as 63 bits can count."""
    header = encode_header({"e": ("U8", (2**62, 0), 0)}, None)
    (tmp_path / "file").write_bytes(header)

    parts = [rows.shape for _, rows in FullMatrix.open(tmp_path / "file", "e").chunks()]

    assert parts == [(2**62, 0)]
