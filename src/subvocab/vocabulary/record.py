"""One file format for the small values that are kept: arrays with named text beside them.

A record is a safetensors file: no pickle, so reading one runs nothing. Its metadata names
the kind of value and its fingerprint, which is computed anew and compared on reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Integer
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from subvocab._atomic import replacing
from subvocab._typing import StrPath
from subvocab.errors import CheckpointError, VocabularyMismatchError, shortened

KIND_KEY = "subvocab.kind"
FINGERPRINT_KEY = "subvocab.fingerprint"


@runtime_checkable
class Named(Protocol):
    """A value that is named by its content."""

    @property
    def fingerprint(self) -> str:
        """Its name."""


Value = TypeVar("Value", bound=Named)


def fingerprint(*arrays: Integer[np.ndarray, "_"]) -> str:
    """Name integer arrays by their content, the same on every machine.

    Args:
        *arrays: One-dimensional arrays; each counts with its length.

    Returns:
        The sha256 of lengths and values as little-endian 64-bit integers, in hex.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.size.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(array, dtype="<i8").data)
    return digest.hexdigest()


def sealed(array: Any) -> Integer[np.ndarray, "size"]:
    """Copy an array so that nobody can write to it.

    Args:
        array: Integers of any width, in one dimension.

    Returns:
        A read-only copy as int64.

    Raises:
        VocabularyMismatchError: If it is something else.
    """
    found = np.asarray(array)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise VocabularyMismatchError(
            f"An array of {found.dtype} and of shape {found.shape} was given, expected integers in "
            "one dimension. Convert it first, if they are token ids or counts."
        )
    copy = found.astype(np.int64)
    copy.flags.writeable = False
    return copy


def save_record(
    path: StrPath, kind: str, tensors: Mapping[str, np.ndarray], *, fingerprint: str
) -> None:
    """Write a record, all at once or not at all.

    Args:
        path: The file to write; its folder must exist.
        kind: What is being saved, such as ``token_counts``.
        tensors: The arrays, by name.
        fingerprint: The value's own.
    """
    metadata = {KIND_KEY: kind, FINGERPRINT_KEY: fingerprint}
    with replacing(Path(path)) as staged:
        staged.write_bytes(save(dict(tensors), metadata=metadata))


def record_kind(path: StrPath) -> str | None:
    """Tell what kind of value a file holds.

    Args:
        path: Any file.

    Returns:
        The kind, or None if it is a safetensors file of another origin.

    Raises:
        CheckpointError: If the file is no safetensors file.
    """
    with _opened(Path(path)) as file:
        return _metadata(file).get(KIND_KEY)


def load_record(path: StrPath, kind: str) -> tuple[dict[str, np.ndarray], str]:
    """Read a record back.

    Args:
        path: A file that ``save_record`` wrote.
        kind: What it must hold.

    Returns:
        The arrays by name, and the fingerprint written beside them, which
        ``load_value`` compares with that of the value it builds.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    # Opened once: another process may put a new file in its place at any time.
    with _opened(path) as file:
        metadata = _metadata(file)
        found = metadata.get(KIND_KEY)
        if found != kind:
            raise CheckpointError(
                f"{path} holds `{shortened(found)}`, expected `{kind}`. Look into it with "
                "`subvocab inspect`."
            )
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, TypeError) as error:
            raise CheckpointError(
                f"{path} holds arrays that are no integers ({shortened(error)}). Write it "
                "anew from the dataset."
            ) from error
    return tensors, metadata.get(FINGERPRINT_KEY, "")


def load_value(
    path: StrPath, kind: str, build: Callable[[Mapping[str, np.ndarray]], Value]
) -> Value:
    """Read a record back, and make of it the value that it was.

    Args:
        path: A file that ``save_record`` wrote.
        kind: What it must hold.
        build: Makes the value of the arrays; what it raises is told as damage.

    Returns:
        The value, with the fingerprint that is written in the file.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds something else.
    """
    tensors, written = load_record(path, kind)
    try:
        value = build(tensors)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} holds no {kind.replace('_', ' ')}: {shortened(error)}"
        ) from error
    if written != value.fingerprint:
        raise CheckpointError(
            f"{path} is damaged: it says fingerprint {written[:12] or '(none)'}, but its values "
            f"give {value.fingerprint[:12]}. Write it anew from the dataset."
        )
    return value


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file, and turn every failure into one kind of error."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        opened = safe_open(path, "np")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({shortened(error)}). Write it anew, or "
            "fetch it again."
        ) from error
    with opened as file:
        yield file


def _metadata(file: Any) -> dict[str, str]:
    """Read the text beside the arrays."""
    return dict(file.metadata() or {})
