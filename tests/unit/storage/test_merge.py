"""Tests of writing new rows into a copy of a checkpoint: what comes along, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from subvocab.errors import CheckpointError, OutOfVocabularyError, VocabularyMismatchError
from subvocab.storage import FullMatrix, merge_rows, read_checkpoint
from tests.unit.storage.checkpoints import (
    BODY,
    DIM,
    FULL,
    INDEX,
    LEARNED,
    ROWS,
    SIZE,
    TOKEN_IDS,
    merged,
    names,
    refused,
    shard,
)

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
