"""Tests of writing whole checkpoints: what comes along, and what no failure may leave."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from subvocab.errors import CheckpointError, OutOfVocabularyError, VocabularyMismatchError
from subvocab.storage import (
    FullMatrix,
    expand_checkpoint,
    merge_rows,
    read_checkpoint,
)
from subvocab.vocabulary import PartialVocabulary

SIZE, DIM = 10, 4
FULL = np.arange(SIZE * DIM, dtype=np.float32).reshape(SIZE, DIM)
BODY = np.full((3, 5), 7, dtype=np.float32)
TOKEN_IDS = np.array([1, 2, 7])
LEARNED = -np.ones((3, DIM), dtype=np.float32)
VOCABULARY = PartialVocabulary(TOKEN_IDS, SIZE)
ROWS = {"e": (TOKEN_IDS, LEARNED.view(np.uint8))}
INDEX = "model.safetensors.index.json"


def merged() -> np.ndarray:
    """Compute the expected matrix the obvious way."""
    matrix = FULL.copy()
    matrix[TOKEN_IDS] = LEARNED
    return matrix


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write a model folder of one file of weights, with what usually lies beside it."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({"e": FULL, "body": BODY}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("pool")
    return folder


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    """Write a compact checkpoint with the learned rows and a trained body."""
    folder = tmp_path / "compact"
    folder.mkdir()
    tensors = {"e": LEARNED, "body": BODY + 1}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "k": "v"})
    return folder


@pytest.fixture
def matrix(base: Path) -> FullMatrix:
    """Open the base's matrix."""
    return FullMatrix.open(base, "e")


def shard(folder: Path, first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Replace a folder's weights by two shards and an index."""
    (folder / "model.safetensors").unlink()
    weight_map = dict.fromkeys(first, "m1.safetensors") | dict.fromkeys(second, "m2.safetensors")
    save_file(first, folder / "m1.safetensors")
    save_file(second, folder / "m2.safetensors")
    size = sum(tensor.nbytes for tensor in (*first.values(), *second.values()))
    metadata = {"total_size": float(size), "total_parameters": size // 4, "more": True}
    (folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))


def names(folder: Path) -> set[str]:
    """List the files of a folder and of those in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def refused(error: type[Exception], message: str) -> pytest.RaisesExc[Exception]:
    """Expect an error of exactly this text."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


# merge_rows


def test_merge_rows_writes_rows_and_keeps_the_rest(base: Path, tmp_path: Path) -> None:
    """The base's matrix with the new rows, its other tensors, its metadata."""
    checkpoint = merge_rows(base, tmp_path / "out", ROWS)

    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(tensors["e"], merged())
    assert np.array_equal(tensors["body"], BODY)
    assert checkpoint == read_checkpoint(tmp_path / "out")


def test_merge_rows_only_reads_the_base(base: Path, tmp_path: Path) -> None:
    """The file that a live model maps must not change."""
    before = (base / "model.safetensors").read_bytes()

    merge_rows(base, tmp_path / "out", ROWS)

    assert (base / "model.safetensors").read_bytes() == before


def test_merge_rows_takes_the_folder_along(base: Path, tmp_path: Path) -> None:
    """Config, tokenizer and the folders of modules, a module's own weights too."""
    (base / "2_Dense").mkdir()
    (base / "2_Dense" / "pytorch_model.bin").write_text("dense")

    merge_rows(base, tmp_path / "out", ROWS)

    assert names(tmp_path / "out") == names(base)
    assert (tmp_path / "out" / "1_Pooling" / "config.json").read_text() == "pool"


def test_merge_rows_leaves_stale_weights_behind(base: Path, tmp_path: Path) -> None:
    """Weights in other formats would still hold the old rows."""
    expected = names(base)
    for name in ("onnx", ".git", ".cache", "checkpoint-500"):
        (base / name).mkdir()
        (base / name / "model.onnx").write_text("stale")
    for name in (".git", ".cache", "checkpoint-500"):
        (base / name / "more").write_text("skipped")
    for name in (
        *("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "q4.gguf"),
        *("flax_model.msgpack", "model.fp16.safetensors", INDEX, "optimizer.pt", "rust_model.bin"),
    ):
        (base / name).write_text("stale")

    merge_rows(base, tmp_path / "out", ROWS)

    assert names(tmp_path / "out") == expected


def test_merge_rows_makes_files_of_links(base: Path, tmp_path: Path) -> None:
    """A blob that snapshots share is never written through its link."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for name in ("model.safetensors", "config.json"):
        (base / name).rename(blobs / name)
        (base / name).symlink_to(blobs / name)
    before = (blobs / "model.safetensors").read_bytes()

    merge_rows(base, tmp_path / "out", ROWS)

    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert np.array_equal(load_file(tmp_path / "out" / "model.safetensors")["e"], merged())
    assert (blobs / "model.safetensors").read_bytes() == before


def test_merge_rows_follows_linked_folders_but_not_in_circles(base: Path, tmp_path: Path) -> None:
    """A link to a folder is a folder; a link upwards has no end."""
    (base / "again").symlink_to(base / "1_Pooling")
    (base / "1_Pooling" / "up").symlink_to(base)

    merge_rows(base, tmp_path / "out", ROWS)

    assert names(tmp_path / "out") == {
        *("config.json", "model.safetensors", "1_Pooling/config.json", "again/config.json"),
    }


def test_merge_rows_refuses_a_link_to_nothing(base: Path, tmp_path: Path) -> None:
    """A model without its config would be found out much later."""
    (base / "config.json").unlink()
    (base / "config.json").symlink_to("gone")

    with refused(
        CheckpointError,
        f"{base}/config.json is a link to gone, where there is no file. Fetch the model again, or "
        "remove the link.",
    ):
        merge_rows(base, tmp_path / "out", ROWS)


def test_merge_rows_skips_what_is_no_file(base: Path, tmp_path: Path) -> None:
    """Reading from a pipe would wait for ever."""
    os.mkfifo(base / "pipe")

    merge_rows(base, tmp_path / "out", ROWS)

    assert not (tmp_path / "out" / "pipe").exists()


def test_merge_rows_keeps_permissions(base: Path, tmp_path: Path) -> None:
    """Files of a team stay readable by the team; read-only files can be copied."""
    (base / "model.safetensors").chmod(0o440)
    (base / "config.json").chmod(0o664)

    merge_rows(base, tmp_path / "out", ROWS)

    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert (modes["model.safetensors"], modes["config.json"]) == (0o440, 0o664)


def test_merge_rows_copies_shards_without_new_rows(base: Path, tmp_path: Path) -> None:
    """Only shards that hold a changed matrix differ."""
    shard(base, {"e": FULL}, {"body": BODY})

    merge_rows(base, tmp_path / "out", ROWS)

    out = tmp_path / "out"
    assert np.array_equal(load_file(out / "m1.safetensors")["e"], merged())
    assert (out / "m2.safetensors").read_bytes() == (base / "m2.safetensors").read_bytes()
    assert (out / INDEX).read_bytes() == (base / INDEX).read_bytes()


def test_merge_rows_of_a_file_copies_the_weights_alone(base: Path, tmp_path: Path) -> None:
    """The new folder can be loaded, whatever the file's name was."""
    (base / "model.safetensors").rename(base / "mine.safetensors")

    merge_rows(base / "mine.safetensors", base / "out", ROWS)

    assert names(base / "out") == {"model.safetensors"}
    assert np.array_equal(load_file(base / "out" / "model.safetensors")["e"], merged())
    assert names(tmp_path) > {"base/mine.safetensors"}


def test_merge_rows_of_an_index_copies_the_weights_alone(base: Path, tmp_path: Path) -> None:
    """The index gets the name by which it is found."""
    shard(base, {"e": FULL}, {"body": BODY})
    (base / INDEX).rename(base / "model.fp32.json")

    merge_rows(base / "model.fp32.json", tmp_path / "out", ROWS)

    assert names(tmp_path / "out") == {"m1.safetensors", "m2.safetensors", INDEX}


def test_merge_rows_takes_rows_in_any_order(base: Path, tmp_path: Path) -> None:
    """Rows go where their ids say."""
    rows = LEARNED * np.array([[1.0], [2.0], [3.0]], dtype=np.float32)

    merge_rows(base, tmp_path / "out", {"e": (np.array([9, 0, 4]), rows.view(np.uint8))})

    found = load_file(tmp_path / "out" / "model.safetensors")["e"]
    assert np.array_equal(found[[9, 0, 4]], rows)


def test_merge_rows_takes_a_whole_matrix(base: Path, tmp_path: Path) -> None:
    """From disk, a part at a time."""
    halved = FullMatrix.spill("any", "F32", FULL.shape, [FULL[:4] / 2, FULL[4:] / 2])

    merge_rows(base, tmp_path / "out", {"e": halved})

    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(tensors["e"], FULL / 2)
    assert np.array_equal(tensors["body"], BODY)


def test_merge_rows_refuses_a_matrix_of_another_shape(base: Path, tmp_path: Path) -> None:
    """It would write over the next tensor."""
    taller = FullMatrix.spill("any", "F32", (SIZE + 1, DIM), [FULL, FULL[:1]])

    with pytest.raises(VocabularyMismatchError) as caught:
        merge_rows(base, tmp_path / "out", {"e": taller})

    assert str(caught.value) == (
        "`e` has shape (10, 4) of F32, but is to be replaced by (11, 4) of F32. Pass a matrix like "
        "it."
    )


def test_merge_rows_takes_numbers_for_a_tensor_of_one_axis(tmp_path: Path) -> None:
    """Biases over the vocabulary."""
    biases = np.arange(SIZE, dtype=np.float32)
    save_file({"bias": biases}, tmp_path / "b.safetensors")
    learned = np.array([[-1], [-2]], dtype=np.float32)

    rows = {"bias": (np.array([2, 7]), learned.view(np.uint8))}
    merge_rows(tmp_path / "b.safetensors", tmp_path / "out", rows)

    biases[[2, 7]] = [-1, -2]
    assert np.array_equal(load_file(tmp_path / "out" / "model.safetensors")["bias"], biases)


def test_merge_rows_refuses_a_tensor_that_is_absent(base: Path, tmp_path: Path) -> None:
    """The names that exist are listed."""
    with pytest.raises(CheckpointError, match=r"`wte` is not among the 2 tensors of .*: body, e"):
        merge_rows(base, tmp_path / "out", {"wte": ROWS["e"]})


def test_merge_rows_refuses_ids_outside(base: Path, tmp_path: Path) -> None:
    """A row outside the matrix would be another tensor's bytes."""
    with pytest.raises(OutOfVocabularyError, match="Token ids 10 lie outside the 10 rows of `e`"):
        merge_rows(base, tmp_path / "out", {"e": (np.array([10]), ROWS["e"][1][:1])})


def test_merge_rows_refuses_rows_of_another_width(base: Path, tmp_path: Path) -> None:
    """Rows of another dtype would be written over their neighbours."""
    with pytest.raises(VocabularyMismatchError, match=r"have shape \(3, 8\), expected \(3, 16\)"):
        merge_rows(base, tmp_path / "out", {"e": (TOKEN_IDS, ROWS["e"][1][:, :8])})


# The target


def test_merge_rows_writes_into_an_empty_folder(base: Path, tmp_path: Path) -> None:
    """A folder made beforehand is taken."""
    (tmp_path / "out").mkdir()

    merge_rows(base, tmp_path / "out", ROWS)

    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["full", "file", "link", "base"])
def test_merge_rows_overwrites_nothing(base: Path, tmp_path: Path, kind: str) -> None:
    """Whatever is there stays."""
    out = tmp_path / "out"
    if kind == "full":
        out.mkdir()
        (out / "mine").write_text("mine")
    elif kind == "file":
        out.write_text("mine")
    elif kind == "link":
        (tmp_path / "empty").mkdir()
        out.symlink_to(tmp_path / "empty")
    else:
        out = base

    with refused(
        CheckpointError,
        f"{out} exists already, and nothing is ever overwritten. Name a new folder, or an empty "
        "one.",
    ):
        merge_rows(base, out, ROWS)


def test_merge_rows_refuses_a_target_inside_the_base(base: Path) -> None:
    """The new checkpoint would be part of the old one."""
    with refused(
        CheckpointError,
        f"{base}/1_Pooling/out lies inside {base}, which is copied. Name a folder outside it.",
    ):
        merge_rows(base, base / "1_Pooling" / "out", ROWS)


def test_merge_rows_refuses_a_target_without_a_parent(base: Path, tmp_path: Path) -> None:
    """A misspelt path makes no folders."""
    with refused(
        CheckpointError, f"There is no folder {tmp_path}/typo to write `out` in. Make it."
    ):
        merge_rows(base, tmp_path / "typo" / "out", ROWS)


def test_merge_rows_gives_way_to_a_folder_that_appears(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have taken the name in the meantime."""
    out = tmp_path / "out"
    rename = Path.rename

    def occupy(self: Path, target: Path) -> Path:
        out.mkdir()
        (out / "theirs").write_text("theirs")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", occupy)

    with pytest.raises(CheckpointError, match="out exists already, and nothing is"):
        merge_rows(base, out, ROWS)
    assert names(tmp_path) == {*(f"base/{name}" for name in names(base)), "out/theirs"}


# Failures on the way


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
@pytest.mark.parametrize("call", ["fsync", "copy_file_range", "pwrite", "fchmod"])
def test_merge_rows_leaves_nothing_when_it_fails(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    failure: BaseException,
) -> None:
    """Whatever step fails: no target, no staged files, and the base as it was."""

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, fail)

    with pytest.raises(type(failure)):
        merge_rows(base, tmp_path / "out", ROWS)
    assert os.listdir(tmp_path) == ["base"]  # noqa: PTH208  hidden ones too


def test_merge_rows_shows_other_failures_to_rename(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is not ours to explain is passed on."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", fail)

    with pytest.raises(OSError, match="Input/output error"):
        merge_rows(base, tmp_path / "out", ROWS)
    assert os.listdir(tmp_path) == ["base"]  # noqa: PTH208


def test_merge_rows_notices_a_base_that_changes(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of half the old and half the new file is no copy."""
    copy_file_range = os.copy_file_range

    def change(source: int, target: int, count: int, offset: int) -> int:
        os.truncate(base / "config.json", 1)
        return copy_file_range(source, target, count, offset)

    monkeypatch.setattr(os, "copy_file_range", change)

    with pytest.raises(CheckpointError, match=r"has changed since `config.json` was opened"):
        merge_rows(base, tmp_path / "out", ROWS)


def test_merge_rows_notices_a_base_that_ends_early(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file cut short while it is copied must not be waited for."""

    def cut(*_: object) -> int:
        os.truncate(base / "config.json", 0)
        return 0

    monkeypatch.setattr(os, "copy_file_range", cut)
    monkeypatch.setattr(os, "sendfile", cut)

    with pytest.raises(CheckpointError, match=r"has changed since `config.json` was opened"):
        merge_rows(base, tmp_path / "out", ROWS)


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.ENOSYS, None])
def test_merge_rows_copies_where_blocks_cannot_be_shared(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int | None
) -> None:
    """Between file systems, and where the system call fails or copies nothing."""

    def unsupported(*_: object) -> int:
        if reason is None:
            return 0
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "copy_file_range", unsupported)

    merge_rows(base, tmp_path / "out", ROWS)

    assert np.array_equal(load_file(tmp_path / "out" / "model.safetensors")["e"], merged())


def test_merge_rows_looks_for_space_first(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of copying must not end in a full disk that could be foreseen."""
    needed = sum((base / name).stat().st_size for name in names(base))
    usage = shutil.disk_usage(tmp_path)._replace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(CheckpointError) as caught:
        merge_rows(base, tmp_path / "out", ROWS)

    assert str(caught.value) == (
        f"Writing to {tmp_path} needs {needed:,} bytes, but {needed - 1:,} are free. Free some, or "
        "write to another disk."
    )
    assert os.listdir(tmp_path) == ["base"]  # noqa: PTH208


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_merge_rows_explains_a_disk_that_fills(
    base: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Space may go to others while we write; then all is as it was."""
    os.truncate(base / "config.json", 2 << 20)
    usage = shutil.disk_usage

    def optimistic(folder: Path) -> object:
        monkeypatch.setattr(shutil, "disk_usage", usage)
        return usage(folder)._replace(free=1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", optimistic)

    with pytest.raises(
        CheckpointError,
        match=r"^The disk was full while writing\. Writing to .* needs 2,\d+,\d+ bytes, but [\d,]+ "
        r"are free\. Free some, or write to another disk\.$",
    ):
        merge_rows(base, small_disk / "out", ROWS)
    assert not os.listdir(small_disk)  # noqa: PTH208


def test_merge_rows_explains_a_disk_that_tells_late(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where space is given on flushing, a full disk shows there."""

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(CheckpointError, match=r"^The disk was full while writing\."):
        merge_rows(base, tmp_path / "out", ROWS)


# expand_checkpoint


def test_expand_checkpoint_gives_a_whole_model(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Learned rows in the base's matrix, and the trained body beside it."""
    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})

    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(tensors["e"], merged())
    assert np.array_equal(tensors["body"], BODY + 1)


def test_expand_checkpoint_keeps_metadata(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Loaders look for the framework's name there."""
    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})

    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "k": "v"}


def test_expand_checkpoint_without_tables_is_a_copy(compact: Path, tmp_path: Path) -> None:
    """No table, no new byte."""
    expand_checkpoint(compact, tmp_path / "out", {})

    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        compact / "model.safetensors"
    ).read_bytes()


def test_expand_checkpoint_corrects_the_sums_of_the_index(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Loaders plan memory by ``total_size``."""
    shard(compact, {"e": LEARNED}, {"body": BODY})

    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})

    index = json.loads((tmp_path / "out" / INDEX).read_text())
    size = FULL.nbytes + BODY.nbytes
    assert index["metadata"] == {"total_size": size, "total_parameters": size // 4, "more": True}
    assert index["weight_map"] == {"e": "m1.safetensors", "body": "m2.safetensors"}


@pytest.mark.parametrize("metadata", [None, {}, {"total_size": "many"}, {"total_size": 1.5}])
def test_expand_checkpoint_leaves_sums_alone_that_are_none(
    compact: Path, matrix: FullMatrix, tmp_path: Path, metadata: object
) -> None:
    """An index need not have them."""
    shard(compact, {"e": LEARNED}, {"body": BODY})
    index = json.loads((compact / INDEX).read_text()) | {"metadata": metadata}
    (compact / INDEX).write_text(json.dumps(index))

    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})

    found = json.loads((tmp_path / "out" / INDEX).read_text())
    assert found["metadata"] == metadata


def test_expand_checkpoint_takes_missing_files_from_the_base(
    compact: Path, base: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """The compact folder's own files win, and no weights of the base come."""
    (compact / "config.json").write_text("trained")
    (base / "odd-00001.safetensors").write_text("weights")
    (base / "vocab.json").write_text("tokens")

    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)}, extra_files_from=base)

    out = tmp_path / "out"
    assert names(out) == {
        *("config.json", "vocab.json", "model.safetensors", "1_Pooling/config.json"),
    }
    assert (out / "config.json").read_text() == "trained"


def test_expand_checkpoint_leaves_excluded_files_behind(
    compact: Path, base: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """What describes the compact form has no place in the whole one."""
    (compact / "subvocab.json").write_text("compact")

    expand_checkpoint(
        compact,
        tmp_path / "out",
        {"e": (matrix, VOCABULARY)},
        extra_files_from=base,
        exclude={"subvocab.json", "1_Pooling/config.json"},
    )

    assert names(tmp_path / "out") == {"model.safetensors", "config.json"}


def test_expand_checkpoint_of_a_file_writes_the_weights_alone(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """A file stands for itself, as in ``merge_rows``."""
    (compact / "config.json").write_text("{}")

    expand_checkpoint(compact / "model.safetensors", tmp_path / "out", {"e": (matrix, VOCABULARY)})

    assert names(tmp_path / "out") == {"model.safetensors"}


def test_expand_checkpoint_refuses_a_target_inside_the_base(
    compact: Path, base: Path, matrix: FullMatrix
) -> None:
    """The base is copied from too."""
    with pytest.raises(CheckpointError, match=r"lies inside .*base, which is copied"):
        expand_checkpoint(compact, base / "out", {"e": (matrix, VOCABULARY)}, extra_files_from=base)


def test_expand_checkpoint_refuses_another_vocabulary(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Rows would go to other tokens."""
    other = PartialVocabulary(np.array([1, 2]), SIZE)

    with refused(
        VocabularyMismatchError,
        f"`e` in {compact}/model.safetensors has shape (3, 4) of F32, expected (2, 4) of F32: the "
        f"rows of V′, in the dtype of `e` in {matrix.tensor.path}. Use the vocabulary and base "
        "checkpoint of the training run, or save one of the two in the other's dtype.",
    ):
        expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, other)})


def test_expand_checkpoint_refuses_another_dtype(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Bytes of float16 are no float32."""
    save_file({"e": LEARNED.astype(np.float16)}, compact / "model.safetensors")

    with pytest.raises(VocabularyMismatchError, match=r"\(3, 4\) of F16, expected \(3, 4\) of F32"):
        expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})


def test_expand_checkpoint_refuses_a_matrix_of_another_height(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """The base must be the one the vocabulary was taken for."""
    with refused(
        VocabularyMismatchError,
        f"`e` in {matrix.tensor.path} has 10 rows, but the partial vocabulary was taken from 11. "
        "Use the base checkpoint that training began from.",
    ):
        expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY.resized(11))})


def test_expand_checkpoint_refuses_a_table_that_is_absent(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """The names that exist are listed."""
    with pytest.raises(CheckpointError, match=r"`wte` is not among the 2 tensors of .*: body, e"):
        expand_checkpoint(compact, tmp_path / "out", {"wte": (matrix, VOCABULARY)})


def test_expand_checkpoint_leaves_dropped_tensors_behind(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Token ids that stand beside a compact table are no part of a whole model."""
    expand_checkpoint(
        compact, tmp_path / "out", {"e": (matrix, VOCABULARY)}, dropped_tensors={"body"}
    )

    whole = load_file(tmp_path / "out" / "model.safetensors")
    assert list(whole) == ["e"]
    assert np.array_equal(whole["e"], merged())


def test_expand_checkpoint_drops_tensors_from_the_index(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Neither the map nor the sums mention them any more."""
    shard(compact, {"e": LEARNED}, {"body": BODY, "more": BODY})

    expand_checkpoint(
        compact, tmp_path / "out", {"e": (matrix, VOCABULARY)}, dropped_tensors={"body"}
    )

    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert set(index["weight_map"]) == {"e", "more"}
    assert index["metadata"]["total_size"] == FULL.nbytes + BODY.nbytes
    assert index["metadata"]["total_parameters"] == FULL.size + BODY.size
    assert set(read_checkpoint(tmp_path / "out").tensors) == {"e", "more"}
