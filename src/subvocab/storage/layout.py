"""Where each tensor of a checkpoint lies, whether it is one file or many.

Only headers and the index are read, see `subvocab.storage.full_matrix` for tensors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from subvocab._atomic import naming
from subvocab._typing import StrPath
from subvocab.errors import CheckpointError, listed, shortened
from subvocab.storage._json import read_json
from subvocab.storage.header import (
    FOREIGN_SUFFIXES,
    MAX_HEADER_BYTES,
    REMEDY,
    StoredTensor,
    foreign_format,
    read_header,
)

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model on disk, in one file or in several.

    Attributes:
        folder: Where the files lie.
        tensors: By name. Read-only.
        files: The safetensors files, each once.
        index_file: The index of a sharded checkpoint, or None.
    """

    folder: Path
    tensors: Mapping[str, StoredTensor]
    files: tuple[Path, ...]
    index_file: Path | None = None

    def find_tensor(self, tensor_name: str) -> StoredTensor:
        """Look a tensor up.

        Args:
            tensor_name: Its name in the checkpoint.

        Returns:
            Where it lies.

        Raises:
            CheckpointError: If there is none of that name.
        """
        if tensor_name not in self.tensors:
            where = self.index_file or self.files[0]
            raise CheckpointError(
                f"`{shortened(tensor_name)}` is not among the {len(self.tensors):,} tensors of "
                f"{where}: {listed(sorted(self.tensors))}. List them all with `subvocab inspect`."
            )
        return self.tensors[tensor_name]


def read_checkpoint(path: StrPath) -> Checkpoint:
    """Find every tensor of a checkpoint.

    Args:
        path: A ``.safetensors`` file, the ``.json`` index of a sharded checkpoint, or a
            folder that holds ``model.safetensors`` or ``model.safetensors.index.json``.
            Files may be symlinks, as they are in the Hub's cache.

    Returns:
        The checkpoint. Cost: the headers are read, no tensor is.

    Raises:
        CheckpointError: If files are missing, damaged, lying about themselves, or of
            another format.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow the links
    if path.is_dir():
        path = _weights_in(path)
    if path.suffix == ".json":
        return _read_sharded(path)
    header = read_header(path)
    return Checkpoint(path.parent, header.tensors, (path,))


def _weights_in(folder: Path) -> Path:
    """Find the file to begin with, as `transformers` would choose it."""
    for name in (WEIGHTS_NAME, INDEX_NAME):
        if (folder / name).is_file():
            return folder / name
    for file in sorted(folder.iterdir()):
        if file.suffix in FOREIGN_SUFFIXES and file.is_file():
            raise foreign_format(file)
    raise CheckpointError(
        f"{folder} holds neither `{WEIGHTS_NAME}` nor `{INDEX_NAME}`. Give the folder that "
        "`save_pretrained` wrote."
    )


def _read_sharded(index_file: Path) -> Checkpoint:
    """Read an index and the headers of all shards it names."""
    weight_map = read_index(index_file)["weight_map"]
    shards = {
        name: read_header(index_file.parent / name) for name in dict.fromkeys(weight_map.values())
    }
    tensors = {}
    for name, shard in weight_map.items():
        if name not in shards[shard].tensors:
            raise CheckpointError(
                f"{index_file} says that `{shortened(name)}` is in `{shard}`, but the "
                f"{len(shards[shard].tensors):,} tensors there are "
                f"{listed(sorted(shards[shard].tensors))}. {REMEDY}"
            )
        tensors[name] = shards[shard].tensors[name]
    files = tuple(shard.path for shard in shards.values())
    return Checkpoint(index_file.parent, MappingProxyType(tensors), files, index_file)


def read_index(path: Path) -> dict[str, Any]:
    """Read and check the index of a sharded checkpoint.

    Args:
        path: The ``.json`` file.

    Returns:
        Its content; ``weight_map`` names the file of each tensor, all in one folder.

    Raises:
        CheckpointError: If the index is missing, is no index, or names a file that may
            lie outside the folder.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. {REMEDY}")
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path} has {path.stat().st_size:,} bytes, expected an index of at most "
            f"{MAX_HEADER_BYTES:,}. {REMEDY}"
        )
    with naming(path):
        content = path.read_bytes()
    index = read_json(content, str(path))
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no `weight_map`, expected one by tensor name. {REMEDY}")
    for name, shard in weight_map.items():
        if not _is_plain_name(shard):
            raise CheckpointError(
                f"{path} says that `{shortened(name)}` is in {shortened(shard)!r}, expected the "
                "plain name of a file in the same folder. Do not trust this checkpoint."
            )
    return index


def _is_plain_name(name: object) -> bool:
    """Tell whether a name can be a file's and cannot lead out of its folder, on any system."""
    return (
        isinstance(name, str)
        and name not in {"", ".", ".."}
        and len(name.encode()) <= MAX_NAME_BYTES
        and not any(mark in name for mark in "/\\:\0")
    )
