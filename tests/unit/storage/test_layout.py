"""Tests of what is found in a checkpoint's folder and index, and what is not believed of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from subvocab.errors import CheckpointError
from subvocab.storage import read_checkpoint
from subvocab.storage.header import MAX_HEADER_BYTES
from tests.unit.storage.checkpoints import INDEX, REMEDY, message_of


def write_shards(folder: Path, weight_map: dict[str, Any]) -> Path:
    """Write two real shards and the index given."""
    save_file({"a": np.zeros(2, np.float32)}, folder / "one.safetensors")
    save_file({"b": np.ones((2, 3), np.float16)}, folder / "two.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


# What is found


def test_read_checkpoint_finds_tensors_of_a_file(tmp_path: Path) -> None:
    """Bytes at the offset found are the tensor's."""
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"a": matrix, "b": np.zeros(1, np.int8)}, tmp_path / "x.safetensors")

    checkpoint = read_checkpoint(tmp_path / "x.safetensors")

    tensor = checkpoint.tensors["a"]
    content = tensor.path.read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
    assert (tensor.dtype, tensor.shape, content) == ("F32", (2, 3), matrix.tobytes())
    assert checkpoint.files == (tmp_path / "x.safetensors",)


def test_read_checkpoint_finds_the_file_of_a_folder(tmp_path: Path) -> None:
    """A folder stands for its ``model.safetensors``."""
    save_file({"a": np.zeros(1)}, tmp_path / "model.safetensors")

    checkpoint = read_checkpoint(tmp_path)

    assert checkpoint.folder == tmp_path
    assert set(checkpoint.tensors) == {"a"}


@pytest.mark.parametrize("name", ["", INDEX], ids=["folder", "index"])
def test_read_checkpoint_finds_tensors_of_shards(tmp_path: Path, name: str) -> None:
    """A folder or its index stands for all shards, each listed once."""
    write_shards(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})

    checkpoint = read_checkpoint(tmp_path / name)

    assert checkpoint.tensors["b"].path == tmp_path / "two.safetensors"
    assert checkpoint.files == (tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    assert checkpoint.index_file == tmp_path / INDEX


def test_read_checkpoint_follows_links_of_the_hub_cache(tmp_path: Path) -> None:
    """Snapshots are folders of links to blobs elsewhere."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    save_file({"a": np.zeros(1)}, tmp_path / "blobs" / "0f3a")
    (tmp_path / "snapshot" / "model.safetensors").symlink_to("../blobs/0f3a")

    checkpoint = read_checkpoint(tmp_path / "snapshot")

    assert checkpoint.tensors["a"].path == tmp_path / "snapshot" / "model.safetensors"


def test_read_checkpoint_makes_relative_paths_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the working folder must not change what is read."""
    save_file({"a": np.zeros(1)}, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)

    assert read_checkpoint(".").tensors["a"].path == tmp_path / "model.safetensors"


def test_find_tensor_names_what_there_is(tmp_path: Path) -> None:
    """A wrong name is answered with the right ones."""
    save_file({f"t{k}": np.zeros(1) for k in range(7)}, tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path).find_tensor("wte")

    assert str(caught.value) == (
        f"`wte` is not among the 7 tensors of {tmp_path}/model.safetensors: t0, t1, t2, t3, t4 "
        "and 2 more. List them all with `subvocab inspect`."
    )


# What is missing or foreign


def test_read_checkpoint_tells_a_missing_file(tmp_path: Path) -> None:
    """A path that leads nowhere is named in full."""
    assert message_of(tmp_path / "x.safetensors") == f"There is no file x.safetensors. {REMEDY}"


def test_read_checkpoint_tells_an_empty_folder(tmp_path: Path) -> None:
    """Both names looked for are given."""
    assert message_of(tmp_path).endswith(
        "holds neither `model.safetensors` nor `model.safetensors.index.json`. Give the folder "
        "that `save_pretrained` wrote."
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "q4.gguf", "tf_model.h5"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_read_checkpoint_shows_the_way_from_other_formats(
    tmp_path: Path, name: str, *, whole_folder: bool
) -> None:
    """Weights of other formats are converted by transformers."""
    (tmp_path / "README.md").touch()
    (tmp_path / name).write_bytes(b"PK")

    assert message_of(tmp_path if whole_folder else tmp_path / name) == (
        f"{name} holds weights in another format, expected safetensors. Load the model with "
        "transformers, write it with `save_pretrained`, and use the folder that gives."
    )


# The index


@pytest.mark.parametrize(
    "name", ["../one.safetensors", "/etc/passwd", "a/b", "a\\b", "C:x", "..", "", ".", 5, None]
)
def test_read_checkpoint_refuses_an_index_that_leads_elsewhere(tmp_path: Path, name: Any) -> None:
    """An index must not make us read files outside its folder."""
    write_shards(tmp_path, {"a": name})

    assert message_of(tmp_path) == (
        f"{INDEX} says that `a` is in {str(name)!r}, expected the plain name of a file in the same "
        "folder. Do not trust this checkpoint."
    )


def test_read_checkpoint_tells_a_missing_shard(tmp_path: Path) -> None:
    """A download that stopped half-way."""
    write_shards(tmp_path, {"a": "three.safetensors"})

    assert message_of(tmp_path) == f"There is no file three.safetensors. {REMEDY}"


def test_read_checkpoint_tells_a_tensor_that_its_shard_lacks(tmp_path: Path) -> None:
    """What the index promises is looked for in the shard."""
    write_shards(tmp_path, {"b": "one.safetensors"})

    assert message_of(tmp_path) == (
        f"{INDEX} says that `b` is in `one.safetensors`, but the 1 tensors there are a. {REMEDY}"
    )


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_read_checkpoint_refuses_an_index_without_a_map(tmp_path: Path, content: str) -> None:
    """Another JSON file is no index."""
    (tmp_path / INDEX).write_text(content)

    assert message_of(tmp_path) == (
        f"{INDEX} has no `weight_map`, expected one by tensor name. {REMEDY}"
    )


def test_read_checkpoint_refuses_an_index_naming_a_tensor_twice(tmp_path: Path) -> None:
    """Readers would differ in which of the two they believe."""
    (tmp_path / INDEX).write_text('{"weight_map": {"a": "x", "a": "y"}}')

    assert message_of(tmp_path) == f"{INDEX} is not JSON: the key 'a' comes twice."


def test_read_checkpoint_refuses_a_huge_index(tmp_path: Path) -> None:
    """It is not read into memory."""
    (tmp_path / INDEX).touch()
    os.truncate(tmp_path / INDEX, MAX_HEADER_BYTES + 1)

    assert message_of(tmp_path) == (
        f"{INDEX} has 100,000,001 bytes, expected an index of at most 100,000,000. {REMEDY}"
    )


def test_read_checkpoint_tells_a_missing_index(tmp_path: Path) -> None:
    """An index that was asked for by name."""
    assert message_of(tmp_path / INDEX) == f"There is no file {INDEX}. {REMEDY}"
