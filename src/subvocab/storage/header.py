"""The header of a safetensors file: what it holds, and at which byte.

Our own parser, because the library's does not tell byte offsets. Headers come from
strangers, so nothing in them is believed: every size is compared with the file. Several
files that make one checkpoint are the business of `subvocab.storage.layout`.

Source:
    The safetensors format: 8 bytes of header length, a JSON object, the data without holes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from subvocab._typing import StrPath
from subvocab.errors import CheckpointError, shortened
from subvocab.storage._json import read_json

DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
    | dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8)
    | dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | dict.fromkeys(("I16", "U16", "F16", "BF16"), 16)
    | dict.fromkeys(("I32", "U32", "F32"), 32)
    | dict.fromkeys(("I64", "U64", "F64", "C64"), 64)
)
"""Bits of one element, by the name that the format gives the dtype."""

PADDING_BYTES = 8
LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 64
METADATA_KEY = "__metadata__"
FOREIGN_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
REMEDY = "Fetch the file again, or write it anew with `save_pretrained`."


class FileIdentity(NamedTuple):
    """What tells one state of a file from another: changed or replaced, it differs.

    Attributes:
        device: Number of the file system.
        inode: Number of the file in it.
        size_bytes: Length.
        modified_ns: Time of the last write.
    """

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, descriptor: int) -> FileIdentity:
        """Take the identity of an open file.

        Args:
            descriptor: Of any regular file.

        Returns:
            Its identity now.
        """
        status = os.fstat(descriptor)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor where it lies on disk.

    Attributes:
        name: Its name in the checkpoint, such as ``model.embed_tokens.weight``.
        path: The file, absolute.
        dtype: As safetensors names it: ``F32``, ``BF16``, ...
        shape: Its axes; row-major.
        offset: Position of its first byte in the file.
        nbytes: Number of its bytes.
        file_identity: Of the file, when its header was read.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    file_identity: FileIdentity


@dataclass(frozen=True)
class Header:
    """The header of one safetensors file.

    Attributes:
        path: The file, absolute.
        tensors: By name, in the order of the header. Read-only.
        metadata: The text beside the tensors, or None if the file has none. Read-only.
        data_offset: Where the header ends and the data begins.
        file_identity: Of the file, when the header was read.
    """

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] | None
    data_offset: int
    file_identity: FileIdentity


def read_header(path: StrPath) -> Header:
    """Read and check the header of one safetensors file.

    Args:
        path: The file.

    Returns:
        The header.

    Raises:
        CheckpointError: If the file is missing or is no whole safetensors file.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. {REMEDY}")
    if path.suffix in FOREIGN_SUFFIXES:
        raise foreign_format(path)
    try:
        with path.open("rb") as file:
            identity = FileIdentity.of(file.fileno())
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            _check_length(length, path, identity.size_bytes - LENGTH_BYTES)
            content = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    entries = read_json(content, f"The header of {path}")
    metadata = _metadata(entries.pop(METADATA_KEY, None), path)
    tensors = {
        name: _stored_tensor(name, entry, path, LENGTH_BYTES + length, identity)
        for name, entry in entries.items()
    }
    _check_cover(tensors.values(), path, LENGTH_BYTES + length, identity.size_bytes)
    return Header(path, MappingProxyType(tensors), metadata, LENGTH_BYTES + length, identity)


def encode_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str] | None
) -> bytes:
    """Make the header of a new file, padded so that the data begins at a multiple of 8.

    Args:
        tensors: Dtype, shape and first byte within the data, by name, in the order to
            write them.
        metadata: The text beside them, or None.

    Returns:
        Everything that comes before the data.
    """
    entries: dict[str, Any] = {} if metadata is None else {METADATA_KEY: dict(metadata)}
    for name, (dtype, shape, begin) in tensors.items():
        end = begin + prod(shape) * DTYPE_BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    content = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % PADDING_BYTES)
    return len(content).to_bytes(LENGTH_BYTES, "little") + content


def foreign_format(path: Path) -> CheckpointError:
    """Explain that weights are in a format that cannot be read here.

    Args:
        path: The file of weights.

    Returns:
        The error to raise.
    """
    return CheckpointError(
        f"{path} holds weights in another format, expected safetensors. Load the model with "
        "transformers, write it with `save_pretrained`, and use the folder that gives."
    )


def _check_length(length: int, path: Path, available: int) -> None:
    """Compare the announced length of a header with the file, before reading so much."""
    if available < 0:
        raise CheckpointError(
            f"{path} has {available + LENGTH_BYTES:,} bytes, expected a safetensors file, which "
            f"has at least {LENGTH_BYTES}. {REMEDY}"
        )
    if length > (limit := min(MAX_HEADER_BYTES, available)):
        raise CheckpointError(
            f"{path} is no whole safetensors file: it announces a header of {length:,} bytes, "
            f"expected at most {limit:,}. {REMEDY}"
        )


def _metadata(entry: object, path: Path) -> Mapping[str, str] | None:
    """Check the text beside the tensors."""
    if entry is None:
        return None
    if not isinstance(entry, dict) or not all(isinstance(text, str) for text in entry.values()):
        raise CheckpointError(
            f"`{METADATA_KEY}` in the header of {path} is not a mapping of text to text. {REMEDY}"
        )
    return MappingProxyType(entry)


def _counts(value: object, *, limit: int) -> bool:
    """Tell whether a JSON value is a list of at most so many sizes that 64 bits can hold."""
    return (
        isinstance(value, list)
        and len(value) <= limit
        and all(type(number) is int and 0 <= number < 1 << 63 for number in value)
    )


def _fits(shape: list[int], bits: int) -> bool:
    """Tell whether an array can have such axes; one of no length does not excuse the others."""
    return prod(size or 1 for size in shape) * bits < 8 << 63


def _stored_tensor(
    name: str, entry: object, path: Path, data_offset: int, identity: FileIdentity
) -> StoredTensor:
    """Check one entry of a header against the file and against itself."""
    where = f"`{shortened(name)}` in the header of {path}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise CheckpointError(f"{where} has no `dtype`, `shape` and `data_offsets`. {REMEDY}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise CheckpointError(
            f"{where} has dtype {str(dtype)[:40]!r}, expected one of {', '.join(DTYPE_BITS)}. "
            f"{REMEDY}"
        )
    if not _counts(shape, limit=MAX_DIMENSIONS) or not _fits(shape, DTYPE_BITS[dtype]):
        raise CheckpointError(
            f"{where} has shape {str(shape)[:80]}, expected at most {MAX_DIMENSIONS} sizes of "
            f"zero or more, and no more bytes than 63 bits can count. {REMEDY}"
        )
    if not _counts(offsets, limit=2) or len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004
        raise CheckpointError(
            f"{where} has data offsets {str(offsets)[:80]}, expected its begin and its end. "
            f"{REMEDY}"
        )
    begin, end = offsets
    bits = prod(shape) * DTYPE_BITS[dtype]
    if bits != (end - begin) * 8:
        raise CheckpointError(
            f"{where} has {end - begin:,} bytes, but its shape {tuple(shape)} of {dtype} takes "
            f"{bits / 8:,.10g}. {REMEDY}"
        )
    return StoredTensor(name, path, dtype, tuple(shape), data_offset + begin, end - begin, identity)


def _check_cover(
    tensors: Iterable[StoredTensor], path: Path, data_offset: int, size_bytes: int
) -> None:
    """Refuse data that tensors share, that none owns, or that the file lacks."""
    ordered = sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes))
    ends = [data_offset, *(tensor.offset + tensor.nbytes for tensor in ordered)]
    for end, tensor in zip(ends, ordered, strict=False):
        if tensor.offset != end:
            what = "overlaps the tensor before it" if tensor.offset < end else "leaves a hole"
            raise CheckpointError(
                f"`{tensor.name}` in the header of {path} {what}: it begins at byte "
                f"{tensor.offset:,} of the file, expected {end:,}. {REMEDY}"
            )
    if ends[-1] != size_bytes:
        raise CheckpointError(
            f"{path} has {size_bytes:,} bytes, but its header describes {ends[-1]:,}: it is "
            f"{'cut short' if size_bytes < ends[-1] else 'longer than it should be'}. {REMEDY}"
        )
