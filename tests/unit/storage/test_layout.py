"""Tests of what is believed of a checkpoint's headers and index, and what is not."""

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
from subvocab.storage.header import (
    MAX_HEADER_BYTES,
    encode_header,
    read_header,
)

REMEDY = "Fetch the file again, or write it anew with `save_pretrained`."
INDEX = "model.safetensors.index.json"


def write_raw(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write a safetensors file with any header, lying or not."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    announced = len(content) if length is None else length
    path.write_bytes(announced.to_bytes(8, "little") + content + data)
    return path


def entry(begin: int, end: int, shape: Any = None, dtype: Any = "U8") -> dict[str, Any]:
    """Describe a tensor of bytes."""
    return {
        "dtype": dtype,
        "shape": [end - begin] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def write_shards(folder: Path, weight_map: dict[str, Any]) -> Path:
    """Write two real shards and the index given."""
    save_file({"a": np.zeros(2, np.float32)}, folder / "one.safetensors")
    save_file({"b": np.ones((2, 3), np.float16)}, folder / "two.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def message_of(path: Path) -> str:
    """Read a checkpoint that must be refused; the message without the folder's name."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    folder = path if path.is_dir() else path.parent
    return str(caught.value).replace(f"{folder}{os.sep}", "")


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


def test_read_header_keeps_metadata_and_order(tmp_path: Path) -> None:
    """Expanding a checkpoint writes both back."""
    header = {"z": entry(0, 1), "__metadata__": {"format": "pt"}, "a": entry(1, 2)}
    path = write_raw(tmp_path / "x.safetensors", header, b"12")

    found = read_header(path)

    assert found.metadata == {"format": "pt"}
    assert list(found.tensors) == ["z", "a"]


def test_read_header_takes_empty_tensors(tmp_path: Path) -> None:
    """A tensor without elements takes no bytes, wherever it stands."""
    header = {"a": entry(0, 1), "e": entry(1, 1, [0, 5]), "s": entry(1, 2, [])}
    path = write_raw(tmp_path / "x.safetensors", header, b"12")

    assert read_header(path).tensors["e"].nbytes == 0


def test_read_header_takes_a_file_without_tensors(tmp_path: Path) -> None:
    """The format allows it."""
    assert not read_header(write_raw(tmp_path / "x.safetensors", {})).tensors


def test_encode_header_aligns_the_data() -> None:
    """Data begins at a multiple of 8, as the library writes it."""
    assert len(encode_header({"a": ("F32", (1, 2), 0)}, {"k": "é"})) % 8 == 0


def test_find_tensor_names_what_there_is(tmp_path: Path) -> None:
    """A wrong name is answered with the right ones."""
    save_file({f"t{k}": np.zeros(1) for k in range(7)}, tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path).find_tensor("wte")

    assert str(caught.value) == (
        f"`wte` is not among the 7 tensors of {tmp_path}/model.safetensors: t0, t1, t2, t3, t4 "
        "and 2 more. List them all with `subvocab inspect`."
    )


# Headers that lie

ONE = {"a": entry(0, 1)}
NO_NAME = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
LIES: dict[str, tuple[Any, bytes, str]] = {
    "truncated": (
        {"a": entry(0, 4)},
        b"123",
        "x.safetensors has {size} bytes, but its header describes {more}: it is cut short. "
        + REMEDY,
    ),
    "trailing": (
        ONE,
        b"12",
        "x.safetensors has {size} bytes, but its header describes {less}: it is longer than it "
        "should be. " + REMEDY,
    ),
    "overlap": (
        {"a": entry(0, 3), "b": entry(2, 4)},
        b"1234",
        "`b` in the header of x.safetensors overlaps the tensor before it: it begins at byte "
        "{at2} of the file, expected {at3}. " + REMEDY,
    ),
    "hole": (
        {"a": entry(0, 1), "b": entry(2, 3)},
        b"123",
        "`b` in the header of x.safetensors leaves a hole: it begins at byte {at2} of the file, "
        "expected {at1}. " + REMEDY,
    ),
    "hole at the front": (
        {"a": entry(1, 2)},
        b"12",
        "`a` in the header of x.safetensors leaves a hole: it begins at byte {at1} of the file, "
        "expected {at0}. " + REMEDY,
    ),
    "size": (
        {"a": entry(0, 4, [3], "F32")},
        b"1234",
        "`a` in the header of x.safetensors has 4 bytes, but its shape (3,) of F32 takes 12. "
        + REMEDY,
    ),
    "half a byte": (
        {"a": entry(0, 1, [3], "F4")},
        b"1",
        "`a` in the header of x.safetensors has 1 bytes, but its shape (3,) of F4 takes 1.5. "
        + REMEDY,
    ),
    "dtype": (
        {"a": entry(0, 1, dtype="I4")},
        b"1",
        "`a` in the header of x.safetensors has dtype 'I4', expected one of F4, F6_E2M3, F6_E3M2, "
        "BOOL, U8, I8, F8_E5M2, F8_E4M3, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ, I16, U16, F16, BF16, "
        "I32, U32, F32, I64, U64, F64, C64. " + REMEDY,
    ),
    "negative shape": (
        {"a": entry(0, 1, [-1, -1])},
        b"1",
        "`a` in the header of x.safetensors has shape [-1, -1], expected at most 64 sizes of zero "
        "or more, and no more bytes than 63 bits can count. " + REMEDY,
    ),
    "shape of nothing, yet too large": (
        {"a": entry(0, 0, [0, 2**62], "F32")},
        b"",
        "`a` in the header of x.safetensors has shape [0, 4611686018427387904], expected at most "
        "64 sizes of zero or more, and no more bytes than 63 bits can count. " + REMEDY,
    ),
    "offsets": (
        {"a": entry(1, 0, [1])},
        b"1",
        "`a` in the header of x.safetensors has data offsets [1, 0], expected its begin and its "
        "end. " + REMEDY,
    ),
    "no dtype": (
        {"a": {"shape": [1], "data_offsets": [0, 1]}},
        b"1",
        "`a` in the header of x.safetensors has no `dtype`, `shape` and `data_offsets`. " + REMEDY,
    ),
    "no entry": (
        {"a": 5},
        b"1",
        "`a` in the header of x.safetensors has no `dtype`, `shape` and `data_offsets`. " + REMEDY,
    ),
    "metadata": (
        {"__metadata__": {"a": 1}},
        b"",
        "`__metadata__` in the header of x.safetensors is not a mapping of text to text. " + REMEDY,
    ),
    "twice": (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}}',
        b"1",
        "The header of x.safetensors is not JSON: the key 'a' comes twice.",
    ),
    "no JSON": (
        b"{",
        b"",
        f"The header of x.safetensors is not JSON: {NO_NAME}.",
    ),
    "no object": (b"[]", b"", "The header of x.safetensors is a JSON list, expected an object."),
    "NaN": (b'{"a": NaN}', b"", "The header of x.safetensors is not JSON: NaN is no number."),
    "infinite": (
        b'{"a": 1e999}',
        b"",
        "The header of x.safetensors is not JSON: 1e999 is no number.",
    ),
    "deep": (
        b'{"a":' + b"[" * 100_000,
        b"",
        "The header of x.safetensors is nested too deeply, expected three levels.",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_read_checkpoint_refuses_a_header_that_lies(tmp_path: Path, lie: str) -> None:
    """Whatever a header says is compared with itself and with the file."""
    header, data, expected = LIES[lie]
    path = write_raw(tmp_path / "x.safetensors", header, data)
    size = path.stat().st_size
    begin = size - len(data)
    values = {"size": size, "more": size + 1, "less": size - 1}
    values |= {f"at{k}": begin + k for k in range(4)}

    assert message_of(path) == expected.format(**values)


@pytest.mark.parametrize(
    "bad",
    [
        entry(0, 1, [2**63]),
        entry(0, 1, [2**40, 2**40]),
        entry(0, 1, [1.0]),
        entry(0, 1, [True]),
        entry(0, 1, "1"),
        entry(0, 1, [1] * 65),
        entry(0, 1, dtype=["U8"]),
        entry(0, 1) | {"data_offsets": [0]},
        entry(0, 1) | {"data_offsets": [0, "1"]},
        entry(0, 1) | {"data_offsets": None},
        entry(0, 1) | {"data_offsets": [-1, 0]},
    ],
)
def test_read_checkpoint_refuses_values_of_other_types(tmp_path: Path, bad: Any) -> None:
    """Numbers that are none, or too large, neither pass nor crash."""
    path = write_raw(tmp_path / "x.safetensors", {"a": bad}, b"1")

    assert message_of(path).startswith("`a` in the header of x.safetensors has ")


@pytest.mark.parametrize("length", [3, 10**9, 2**64 - 1])
def test_read_checkpoint_refuses_a_header_longer_than_the_file(tmp_path: Path, length: int) -> None:
    """The announced length allocates nothing before it is compared."""
    path = write_raw(tmp_path / "x.safetensors", b"{}", length=length)

    assert message_of(path) == (
        f"x.safetensors is no whole safetensors file: it announces a header of {length:,} bytes, "
        f"expected at most 2. {REMEDY}"
    )


def test_read_checkpoint_refuses_a_header_beyond_the_limit(tmp_path: Path) -> None:
    """A sparse file of any size cannot make us read more than 100 MB."""
    path = write_raw(tmp_path / "x.safetensors", b"{}", length=MAX_HEADER_BYTES + 1)
    os.truncate(path, MAX_HEADER_BYTES * 2)

    assert message_of(path).endswith(f"expected at most 100,000,000. {REMEDY}")


def test_read_checkpoint_refuses_an_empty_file(tmp_path: Path) -> None:
    """A download that never began."""
    (tmp_path / "x.safetensors").touch()

    assert message_of(tmp_path / "x.safetensors") == (
        "x.safetensors has 0 bytes, expected a safetensors file, which has at least 8. " + REMEDY
    )


def test_read_checkpoint_refuses_bytes_that_are_no_text(tmp_path: Path) -> None:
    """Headers are UTF-8."""
    path = write_raw(tmp_path / "x.safetensors", b'{"\xff": 1}')

    assert message_of(path).startswith("The header of x.safetensors is not JSON: 'utf-8' codec")


def test_read_checkpoint_explains_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's reason is passed on, as one of our errors."""
    path = write_raw(tmp_path / "x.safetensors", {})

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)

    assert message_of(path) == "x.safetensors cannot be read: Permission denied."


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
