"""Write a folder all at once or not at all, from parts of files that exist.

Only `subvocab.storage.merge` uses this. A process killed outright leaves a hidden folder
beside the target, which the next one removes, and never half a target.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int64, UInt8

from subvocab._atomic import check_new_folder, naming, staged_folder
from subvocab._progress import progress_bar
from subvocab.errors import CheckpointError
from subvocab.storage._bytes import copy_range, opened, runs, write_from
from subvocab.storage._space import space_for
from subvocab.storage.header import FileIdentity, StoredTensor

# Weights of the same model in another format, or parts of one; they would no longer agree.
STALE: tuple[str, ...] = (
    *("*.onnx", "*.onnx_data", "*.gguf", "*.h5", "*.msgpack", "*.tflite"),
    *("consolidated*", "openvino_model*", "rust_model*"),
)
# A module's folder may well hold its weights in these, but not the folder of the model.
STALE_BESIDE_WEIGHTS: tuple[str, ...] = (
    *("pytorch_model*", "model*.safetensors", "*.safetensors.index.json", "optimizer.*"),
)
SKIPPED_FOLDERS = (".git", ".cache", "checkpoint-*")


@dataclass(frozen=True)
class Patch:
    """Rows to write over a matrix within a new file.

    Attributes:
        offset: Where the matrix begins in the new file.
        token_ids: The rows to replace.
        parts: Position in ``token_ids`` and bytes of the rows from there on; read once.
    """

    offset: int
    token_ids: Int64[np.ndarray, "n"]
    parts: Iterable[tuple[int, UInt8[np.ndarray, "_ row_bytes"]]]


@dataclass(frozen=True)
class FilePlan:
    """What a new file is made of.

    Attributes:
        model: The existing file whose permissions it gets.
        head: Its first bytes.
        pieces: Parts of existing files that follow, in order.
        patches: Rows to write over that.
    """

    model: Path
    head: bytes = b""
    pieces: tuple[StoredTensor, ...] = ()
    patches: tuple[Patch, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of the new file."""
        return len(self.head) + sum(piece.nbytes for piece in self.pieces)


def copy_of(path: Path, *patches: Patch) -> FilePlan:
    """Plan a copy of a file, perhaps with rows replaced.

    Args:
        path: An existing file; a symlink is followed.
        *patches: The rows.

    Returns:
        The plan.
    """
    status = path.stat()
    identity = FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    size = identity.size_bytes
    whole = StoredTensor(path.name, path, "U8", (size,), 0, size, identity)
    return FilePlan(path, pieces=(whole,), patches=patches)


def companions(folder: Path, *, exclude: Collection[str]) -> dict[PurePosixPath, FilePlan]:
    """Plan copies of what lies beside the weights: config, tokenizer, folders of modules.

    Args:
        folder: Of the model.
        exclude: Names to leave out, relative to the folder. Weights in other formats,
            which would no longer agree, ``.git`` and Trainer checkpoints are left out too.

    Returns:
        The plans, by name relative to the folder.
    """
    found = _files(folder, PurePosixPath(), (folder.resolve(),))
    return {name: copy_of(folder / name) for name in found if str(name) not in exclude}


def _files(folder: Path, under: PurePosixPath, chain: tuple[Path, ...]) -> Iterator[PurePosixPath]:
    """Walk a folder through symlinks, but not in circles."""
    stale = STALE if under.parts else (*STALE, *STALE_BESIDE_WEIGHTS)
    for path in sorted(folder.iterdir()):
        name = under / path.name
        if path.is_dir():
            true_path = path.resolve()
            if true_path not in chain and not _matches(path.name, SKIPPED_FOLDERS):
                yield from _files(path, name, (*chain, true_path))
        elif _matches(path.name, stale):
            continue
        elif path.is_file():
            yield name
        elif path.is_symlink():
            raise CheckpointError(
                f"{path} is a link to {path.readlink()}, where there is no file. Fetch the model "
                "again, or remove the link."
            )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def write_folder(
    out: Path, plans: Mapping[PurePosixPath, FilePlan], *, progress: bool = False
) -> None:
    """Write files into a new folder: all of them, or none and no folder.

    Args:
        out: The folder. It may exist if it is empty.
        plans: What to write, by name relative to the folder.
        progress: Whether to show a bar.

    Raises:
        CheckpointError: If the folder cannot be made, the disk is full, or a file
            changes while it is copied.
    """
    needed_bytes = sum(plan.nbytes for plan in plans.values())
    bar = progress_bar("Writing", total=needed_bytes, enabled=progress)
    with staged_folder(out) as folder, space_for(needed_bytes, out.parent), bar as advance:
        for name, plan in plans.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with naming(out / name):
                _write_file(folder / name, plan, advance)


def _write_file(target: Path, plan: FilePlan, advance: Callable[[float], None]) -> None:
    """Write one new file."""
    with target.open("xb") as file:
        file.write(plan.head)
        file.flush()
        for piece in plan.pieces:
            with opened(piece) as source:
                copy_range(source, file.fileno(), piece.offset, piece.nbytes, advance)
        for patch in plan.patches:
            for first, rows in patch.parts:
                token_ids = patch.token_ids[first : first + len(rows)]
                for begin, end, token_id in runs(token_ids):
                    offset = patch.offset + token_id * rows.shape[1]
                    write_from(file.fileno(), rows[begin:end], offset)
        os.fchmod(file.fileno(), stat.S_IMODE(plan.model.stat().st_mode))
        # Some disks tell only now that they are full, and here that is explained.
        os.fsync(file.fileno())


def check_target(out: Path, *sources: Path) -> None:
    """Refuse a target that would touch what exists.

    Args:
        out: The folder to write.
        *sources: Folders that are copied from.

    Raises:
        CheckpointError: If the target holds something, lies inside a source, or has no
            folder to lie in.
    """
    check_new_folder(out)
    for source in sources:
        if out.resolve().is_relative_to(source.resolve()):
            raise CheckpointError(
                f"{out} lies inside {source}, which is copied. Name a folder outside it."
            )
