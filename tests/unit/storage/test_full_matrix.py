"""Tests of reading an embedding matrix where it lies."""

from __future__ import annotations

import copy
import gc
import hashlib
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from subvocab.errors import CheckpointError, OutOfVocabularyError, VocabularyMismatchError
from subvocab.storage import FullMatrix, read_checkpoint, write_matrix
from subvocab.storage.header import encode_header

SIZE, DIM = 12, 3
VALUES = np.arange(SIZE * DIM, dtype=np.float32).reshape(SIZE, DIM)
BYTES = VALUES.view(np.uint8)
ROW_BYTES = DIM * 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a checkpoint of one matrix and two other tensors."""
    path = tmp_path / "model.safetensors"
    save_file({"bias": np.zeros(5), "e": VALUES, "z": np.ones((2, 2, 2))}, path)
    return path


@pytest.fixture
def matrix(file: Path) -> FullMatrix:
    """Open that matrix."""
    return FullMatrix.open(file, "e")


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


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_matrices_can_be_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Nothing to map, nothing to fail."""
    matrix = write_matrix(tmp_path / "x.safetensors", "e", "F32", shape, [])
    nothing = np.empty(0, dtype=np.int64)

    assert matrix.overlay(nothing, matrix.rows(nothing)).shape == (shape[0], shape[1] * 4)
    assert sum(len(rows) for _, rows in matrix.chunks()) == shape[0]
    assert len(matrix.fingerprint) == 64


# The fingerprint


def test_fingerprint_is_that_of_the_content(matrix: FullMatrix, tmp_path: Path) -> None:
    """Another file, name and place in the file: the same matrix."""
    other = write_matrix(tmp_path / "other.safetensors", "wte", "F32", (SIZE, DIM), [VALUES])

    assert other.fingerprint == matrix.fingerprint


@pytest.mark.parametrize("row", [0, 1777, 2999])
def test_fingerprint_differs_between_checkpoints(tmp_path: Path, row: int) -> None:
    """First, last and many rows between are looked at; so are dtype and shape."""
    rows = np.random.default_rng(0).integers(0, 256, (3000, 4), dtype=np.uint8)
    changed = rows.copy()
    changed[row : row + 3] += 1

    prints = {
        write_matrix(tmp_path / f"{dtype}{dim}{k}", "e", dtype, (3000, dim), [content]).fingerprint
        for k, content in enumerate((rows, changed))
        for dtype, dim in (("U8", 4), ("I8", 4), ("F16", 2))
    }

    assert len(prints) == 6


def test_fingerprint_is_the_one_documented(tmp_path: Path) -> None:
    """It is written into checkpoints, so it must not change between versions."""
    matrix = write_matrix(tmp_path / "x", "e", "U8", (2, 2), [np.arange(4, dtype=np.uint8)])

    assert matrix.fingerprint == hashlib.sha256(b"U8 2 2\n" + bytes(range(4))).hexdigest()


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


def test_chunks_of_rows_of_nothing_end(tmp_path: Path) -> None:
    """A header of a hundred bytes may name as many rows as 63 bits can count."""
    header = encode_header({"e": ("U8", (2**62, 0), 0)}, None)
    (tmp_path / "file").write_bytes(header)

    parts = [rows.shape for _, rows in FullMatrix.open(tmp_path / "file", "e").chunks()]

    assert parts == [(2**62, 0)]
