"""Tests of what is believed of a safetensors header, and what is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from subvocab.storage.header import MAX_HEADER_BYTES, encode_header, read_header
from tests.unit.storage.checkpoints import REMEDY, message_of


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
