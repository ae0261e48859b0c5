"""Make a whole checkpoint from rows or from a compact one, on disk (paper §4).

Both ways plan a new folder out of parts of existing files, and write rows over them: nothing
is ever held whole, no byte outside the rows is touched, and no existing file is written to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from subvocab._typing import StrPath
from subvocab.errors import VocabularyMismatchError
from subvocab.storage._folder import (
    FilePlan,
    Patch,
    check_target,
    companions,
    copy_of,
    write_folder,
)
from subvocab.storage.full_matrix import FullMatrix
from subvocab.storage.header import StoredTensor, encode_header, read_header
from subvocab.storage.layout import (
    INDEX_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    read_checkpoint,
    read_index,
)
from subvocab.vocabulary import PartialVocabulary

ROWS_PER_PART = 8192

Rows = tuple[Integer[np.ndarray, "n"], UInt8[np.ndarray, "n row_bytes"]]
Table = tuple[FullMatrix, PartialVocabulary]
Plans = dict[PurePosixPath, FilePlan]


def merge_rows(
    base: StrPath, out: StrPath, rows: Mapping[str, Rows | FullMatrix], *, progress: bool = False
) -> Checkpoint:
    """Copy a checkpoint with some rows of its embedding matrices replaced.

    Rows elsewhere, every other tensor and the headers keep their exact bytes. The new
    folder appears all at once or not at all; the old one is only read.

    Args:
        base: A checkpoint folder, which is copied whole (symlinks become files; weights
            in other formats, which would no longer agree, stay behind). Or a safetensors
            file or an index: then the weights alone are copied.
        out: The folder to write. It must not exist, or be empty.
        rows: Token ids, each once, and the bytes of their rows in the stored dtype, by
            tensor name. Bytes, so that bfloat16 and float8 pass through untouched. Or a
            matrix on disk, to replace all rows. A tensor of one axis has rows of one number.
        progress: Whether to show a bar.

    Returns:
        The new checkpoint; its weights lie in ``model.safetensors``, or in the shards
        they lay in. Cost: the time of copying the files; a few MB of memory.

    Raises:
        CheckpointError: If the base is damaged or lacks a tensor, ``out`` is taken, or
            the disk is full.
        OutOfVocabularyError: If a token id has no row.
        VocabularyMismatchError: If rows do not fit, or an id comes twice.

    Source:
        §4 "After fine-tuning": E[f⁻¹(i)] = E′[i] for all i. The paper writes
        columns, E[:, i], for E ∈ ℝ^{|V|×d}; the shape says rows, and so do we.
    """
    checkpoint, folder, out = _checked(base, out)
    patches: dict[Path, list[Patch]] = {file: [] for file in checkpoint.files}
    for name, new_rows in rows.items():
        tensor = checkpoint.find_tensor(name)
        matrix = FullMatrix(replace(tensor, shape=(*tensor.shape, 1)[: max(2, len(tensor.shape))]))
        patches[tensor.path].append(_patch(matrix, new_rows))
    plans = {_place(checkpoint, file): copy_of(file, *patches[file]) for file in checkpoint.files}
    if checkpoint.index_file:
        plans[PurePosixPath(INDEX_NAME)] = copy_of(checkpoint.index_file)
    if folder:
        plans = companions(folder, exclude=()) | plans
    write_folder(out, plans, progress=progress)
    return read_checkpoint(out)


def expand_checkpoint(
    compact: StrPath,
    out: StrPath,
    tables: Mapping[str, Table],
    *,
    dropped_tensors: Collection[str] = (),
    extra_files_from: StrPath | None = None,
    exclude: Collection[str] = (),
    progress: bool = False,
) -> Checkpoint:
    """Make a whole checkpoint of one whose embedding matrices have only the rows of V′.

    The new checkpoint has the same tensors in the same order, with the same text beside
    them, in files of the same names. Each table's rows are those of its full matrix, with
    those of the compact checkpoint in place of the tokens of V′.

    Args:
        compact: A checkpoint folder, which is copied whole but for its tables (as in
            ``merge_rows``). Or a safetensors file or an index: then the weights alone.
        out: The folder to write. It must not exist, or be empty.
        tables: The full matrix and the partial vocabulary, by the name that the table
            has in the compact checkpoint.
        dropped_tensors: Names of tensors to leave behind, such as the token ids that
            stand beside a compact table.
        extra_files_from: A folder to take more files from, where the compact one has none
            of that name: the config and tokenizer of the base model. No weights of it.
        exclude: Names of files to leave behind, relative to their folder.
        progress: Whether to show a bar.

    Returns:
        The new checkpoint. Cost: the time of copying files of its size; a few MB of memory.

    Raises:
        CheckpointError: If a checkpoint is damaged or lacks a tensor, ``out`` is taken, or
            the disk is full.
        VocabularyMismatchError: If a table, its matrix and its vocabulary do not fit.

    Source:
        §4 "After fine-tuning": E[f⁻¹(i)] = E′[i] for all i.
    """
    checkpoint, folder, out = _checked(compact, out, extra_files_from)
    for name, table in tables.items():
        _check_table(checkpoint.find_tensor(name), *table)
    plans: Plans = {
        _place(checkpoint, file): _expanded(file, checkpoint, tables, dropped_tensors)
        for file in checkpoint.files
    }
    if checkpoint.index_file:
        plans[PurePosixPath(INDEX_NAME)] = _expanded_index(checkpoint, tables, dropped_tensors)
    if folder:
        plans = companions(folder, exclude=exclude) | plans
    if extra_files_from is not None:
        found = companions(Path(extra_files_from), exclude=exclude).items()
        extra = {name: plan for name, plan in found if not _is_weights(name)}
        plans = extra | plans
    write_folder(out, plans, progress=progress)
    return read_checkpoint(out)


def _checked(
    source: StrPath, out: StrPath, extra_files_from: StrPath | None = None
) -> tuple[Checkpoint, Path | None, Path]:
    """Read a checkpoint, tell the folder to copy, and refuse a bad target."""
    checkpoint = read_checkpoint(source)
    folder = checkpoint.folder if Path(source).is_dir() else None
    out = Path(os.path.abspath(out))  # noqa: PTH100  resolve() would follow a link at the end
    check_target(out, *(Path(path) for path in (folder, extra_files_from) if path is not None))
    return checkpoint, folder, out


def _place(checkpoint: Checkpoint, file: Path) -> PurePosixPath:
    """Name a file of weights in the new folder."""
    return PurePosixPath(file.name if checkpoint.index_file else WEIGHTS_NAME)


def _is_weights(name: PurePosixPath) -> bool:
    return len(name.parts) == 1 and name.suffix == ".safetensors"


def _patch(matrix: FullMatrix, rows: Rows | FullMatrix) -> Patch:
    """Plan to write rows over those of a matrix."""
    if isinstance(rows, FullMatrix):
        if (rows.tensor.shape, rows.dtype) != (matrix.tensor.shape, matrix.dtype):
            raise VocabularyMismatchError(
                f"`{matrix.tensor.name}` has shape {matrix.tensor.shape} of {matrix.dtype}, but "
                f"is to be replaced by {rows.tensor.shape} of {rows.dtype}. Pass a matrix like it."
            )
        return Patch(matrix.tensor.offset, np.arange(rows.full_vocab_size), rows.chunks())
    token_ids, new_rows = rows
    matrix.check_rows(token_ids, new_rows)
    return Patch(matrix.tensor.offset, token_ids.astype(np.int64), _parts(new_rows))


def _parts(
    rows: UInt8[np.ndarray, "n row_bytes"],
) -> Iterator[tuple[int, UInt8[np.ndarray, "_ row_bytes"]]]:
    for first in range(0, len(rows), ROWS_PER_PART):
        yield first, rows[first : first + ROWS_PER_PART]


def _check_table(tensor: StoredTensor, matrix: FullMatrix, vocabulary: PartialVocabulary) -> None:
    """Refuse a table whose three parts do not belong together."""
    if matrix.full_vocab_size != vocabulary.full_vocab_size:
        raise VocabularyMismatchError(
            f"`{matrix.tensor.name}` in {matrix.tensor.path} has {matrix.full_vocab_size:,} rows, "
            f"but the partial vocabulary was taken from {vocabulary.full_vocab_size:,}. Use the "
            "base checkpoint that training began from."
        )
    expected = (len(vocabulary), matrix.embedding_dim)
    if (tensor.dtype, tensor.shape) != (matrix.dtype, expected):
        raise VocabularyMismatchError(
            f"`{tensor.name}` in {tensor.path} has shape {tensor.shape} of {tensor.dtype}, "
            f"expected {expected} of {matrix.dtype}: the rows of V′, in the dtype of "
            f"`{matrix.tensor.name}` in {matrix.tensor.path}. Use the vocabulary "
            "and base checkpoint of the training run, or save one of the two in the other's dtype."
        )


def _expanded(
    file: Path, checkpoint: Checkpoint, tables: Mapping[str, Table], dropped: Collection[str]
) -> FilePlan:
    """Plan a file anew with the tables in it expanded, and without what is dropped."""
    header = read_header(file)
    own = {name for name in tables if checkpoint.tensors[name].path == file}
    kept = [tensor for name, tensor in header.tensors.items() if name not in dropped]
    if not own and len(kept) == len(header.tensors):
        return copy_of(file)
    begins: dict[str, int] = {}
    pieces: list[StoredTensor] = []
    position = 0
    for tensor in sorted(kept, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        begins[tensor.name] = position
        pieces.append(tables[tensor.name][0].tensor if tensor.name in own else tensor)
        position += pieces[-1].nbytes
    new = dict(zip(begins, pieces, strict=True))
    entries = {t.name: (new[t.name].dtype, new[t.name].shape, begins[t.name]) for t in kept}
    head = encode_header(entries, header.metadata)
    patches = (
        Patch(
            len(head) + begins[name],
            tables[name][1].token_ids,
            FullMatrix(header.tensors[name]).chunks(),
        )
        for name in begins
        if name in own
    )
    return FilePlan(file, head, tuple(pieces), tuple(patches))


def _expanded_index(
    checkpoint: Checkpoint, tables: Mapping[str, Table], dropped: Collection[str]
) -> FilePlan:
    """Plan the index anew: the same map without what is dropped, and the sums as they are now."""
    assert checkpoint.index_file is not None  # noqa: S101  asked for sharded checkpoints only
    index = read_index(checkpoint.index_file)
    grown = [(checkpoint.tensors[name], matrix.tensor) for name, (matrix, _) in tables.items()]
    gone = [checkpoint.tensors[name] for name in dropped if index["weight_map"].pop(name, None)]
    size = sum(new.nbytes - old.nbytes for old, new in grown) - sum(old.nbytes for old in gone)
    count = sum(prod(new.shape) - prod(old.shape) for old, new in grown)
    _add(index, "total_size", size)
    _add(index, "total_parameters", count - sum(prod(old.shape) for old in gone))
    content = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    return FilePlan(checkpoint.index_file, content.encode())


def _add(index: dict[str, Any], key: str, growth: int) -> None:
    """Correct one sum of an index, if it is there."""
    metadata = index.get("metadata")
    value = metadata.get(key) if isinstance(metadata, dict) else None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        index["metadata"][key] = int(value) + growth
