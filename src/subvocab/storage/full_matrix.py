"""E where it lies on disk: the rows of the full embedding matrix, never held whole.

Rows are bytes here, so every dtype passes and no bit can change. What the bytes mean is the
business of `subvocab.model`; changing a checkpoint is that of `subvocab.storage.merge`.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from subvocab._atomic import lock, naming, remove_leftovers, replacing
from subvocab._typing import StrPath
from subvocab.errors import (
    CheckpointError,
    OutOfVocabularyError,
    VocabularyMismatchError,
    listed,
    shortened,
)
from subvocab.storage._bytes import SPILL_PREFIX, SPILL_SUFFIX, opened, read_into, read_rows
from subvocab.storage._stream import write_tensor
from subvocab.storage.fingerprint import content_hash, matrix_fingerprint
from subvocab.storage.header import DTYPE_BITS, StoredTensor
from subvocab.storage.layout import read_checkpoint

CHUNK_BYTES = 4 << 20
MATRIX_DIMENSIONS = 2


@dataclass(frozen=True)
class FullMatrix:
    """One two-dimensional tensor of a checkpoint, read from disk when it is asked for.

    Immutable, so a deep copy is the same object; a pickle holds the path and no rows, but the
    fingerprint, by which learned rows find their base when a temporary file is gone.
    No file stays open between calls: nothing is to be closed, and threads and forked processes
    read at the same time. Each call checks that the file is still the one whose header was read.

    Attributes:
        tensor: Where the matrix lies.

    Raises:
        CheckpointError: If the tensor is no matrix of whole bytes a row.

    Source:
        §4: E ∈ ℝ^{|V|×d}, which the paper keeps in memory beside E′.
    """

    tensor: StoredTensor

    def __post_init__(self) -> None:
        name, shape, dtype = shortened(self.tensor.name), self.tensor.shape, self.tensor.dtype
        if len(shape) != MATRIX_DIMENSIONS:
            raise CheckpointError(
                f"`{name}` in {self.tensor.path} has shape {shape}, expected two axes: one row "
                "a token. Name an embedding matrix."
            )
        if shape[1] * DTYPE_BITS[dtype] % 8:
            raise CheckpointError(
                f"`{name}` in {self.tensor.path} has {shape[1]:,} numbers of {dtype} a row, which "
                "are no whole bytes. Store it in a wider dtype."
            )

    @classmethod
    def open(
        cls, path: StrPath, tensor_name: str, *, full_vocab_size: int | None = None
    ) -> FullMatrix:
        """Find a matrix in a checkpoint.

        Args:
            path: A safetensors file, an index, or a folder (see ``read_checkpoint``).
            tensor_name: Its name there, such as ``model.embed_tokens.weight``.
            full_vocab_size: |V|, if the matrix must have so many rows.

        Returns:
            The matrix. Cost: headers are read, no row is.

        Raises:
            CheckpointError: If there is no such checkpoint, tensor or matrix.
            VocabularyMismatchError: If it has another number of rows.
        """
        matrix = cls(read_checkpoint(path).find_tensor(tensor_name))
        if full_vocab_size is not None and matrix.full_vocab_size != full_vocab_size:
            raise VocabularyMismatchError(
                f"`{tensor_name}` in {matrix.tensor.path} has {matrix.full_vocab_size:,} rows, "
                f"expected {full_vocab_size:,}. Use the checkpoint that the vocabulary was taken "
                "for, or fit the vocabulary with `resized`."
            )
        return matrix

    @classmethod
    def spill(
        cls,
        tensor_name: str,
        dtype: str,
        shape: tuple[int, int],
        chunks: Iterable[np.ndarray],
        *,
        folder: StrPath | None = None,
    ) -> FullMatrix:
        """Move a matrix from memory to a temporary file.

        The file is deleted when the result is garbage or the interpreter exits, by the
        process that wrote it: forked children and pickled copies read it, no more. The
        file of a process that was killed is deleted by the next one that spills there.

        Args:
            tensor_name: A name for it.
            dtype: As safetensors names it.
            shape: |V| and d.
            chunks: Its rows as in ``write_matrix``.
            folder: Where to put the file; by default where the system keeps temporary
                files, which on some machines is memory.

        Returns:
            The matrix.

        Raises:
            CheckpointError: If the chunks do not fill the shape, or the disk is full.
        """
        remove_leftovers(Path(folder or tempfile.gettempdir()), f"{SPILL_PREFIX}*{SPILL_SUFFIX}")
        descriptor, name = tempfile.mkstemp(SPILL_SUFFIX, SPILL_PREFIX, folder)
        path = Path(name)
        try:
            lock(descriptor)
            with naming(path):
                write_tensor(path, tensor_name, dtype, shape, chunks)
            matrix = cls.open(path, tensor_name)
        except BaseException:
            _remove_own(path, os.getpid(), descriptor)
            raise
        weakref.finalize(matrix, _remove_own, path, os.getpid(), descriptor)
        return matrix

    @property
    def full_vocab_size(self) -> int:
        """|V|, the number of rows."""
        return self.tensor.shape[0]

    @property
    def embedding_dim(self) -> int:
        """d, the number of columns."""
        return self.tensor.shape[1]

    @property
    def dtype(self) -> str:
        """Type of the numbers, as safetensors names it."""
        return self.tensor.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.embedding_dim * DTYPE_BITS[self.dtype] // 8

    @cached_property
    def fingerprint(self) -> str:
        """Name of the content, whatever file or shard holds it: another checkpoint, another name.

        See ``matrix_fingerprint``. Cost: a few milliseconds, whatever the size.
        """
        shape = (self.full_vocab_size, self.embedding_dim)
        return matrix_fingerprint(self.dtype, shape, self.rows)

    @cached_property
    def content(self) -> str:
        """The sha256 of dtype, shape and every row. Cost: the matrix is read once."""
        shape = (self.full_vocab_size, self.embedding_dim)
        return content_hash(self.dtype, shape, (part for _, part in self.chunks()))

    def rows(self, token_ids: Integer[np.ndarray, "n"]) -> UInt8[np.ndarray, "n row_bytes"]:
        """Read rows.

        Args:
            token_ids: In ``[0, |V|)``, in any order, repeated or not.

        Returns:
            Their bytes, in the order asked for; a new array. Cost: one read a run of
            neighbouring ids; private memory for the result only if the ids ascend,
            twice that if not.

        Raises:
            OutOfVocabularyError: If an id lies outside ``[0, |V|)``.
            CheckpointError: If the file has changed since it was opened, or is gone.
        """
        self._check_range(token_ids)
        wanted = token_ids.astype(np.int64)
        ascending = bool((np.diff(wanted) > 0).all())
        distinct, place = (wanted, None) if ascending else np.unique(wanted, return_inverse=True)
        read = np.empty((distinct.size, self.row_bytes), dtype=np.uint8)
        with naming(self.tensor.path), opened(self.tensor) as descriptor:
            read_rows(descriptor, distinct, read, self.tensor.offset)
        return read if place is None else read[place]

    def overlay(
        self, token_ids: Integer[np.ndarray, "n"], rows: UInt8[np.ndarray, "n row_bytes"]
    ) -> UInt8[np.ndarray, "full row_bytes"]:
        """Give the whole matrix with some rows replaced, without holding it whole.

        The result is a private mapping of the file: rows not replaced are pages of the
        file, which the system drops and reads again as it likes. It may be written to;
        the file never changes by that. As long as it lives, the file must not be
        written to by others (replacing or deleting the file does no harm).

        Args:
            token_ids: Rows to replace, each once, in ``[0, |V|)``.
            rows: Their new bytes.

        Returns:
            The whole matrix. Cost: private memory for the pages (4 KB) written to.

        Raises:
            OutOfVocabularyError: If an id lies outside ``[0, |V|)``.
            VocabularyMismatchError: If an id comes twice.
            CheckpointError: If the file has changed since it was opened, or is gone.
        """
        self.check_rows(token_ids, rows)
        shape = (self.full_vocab_size, self.row_bytes)
        if not self.tensor.nbytes:
            return np.empty(shape, dtype=np.uint8)
        with opened(self.tensor) as descriptor, open(descriptor, "rb", closefd=False) as file:
            mapped = np.memmap(file, np.uint8, "c", offset=self.tensor.offset, shape=shape)
        matrix = np.asarray(mapped)
        matrix[token_ids] = rows
        return matrix

    def chunks(
        self, *, rows_per_chunk: int | None = None
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "rows row_bytes"]]]:
        """Read the whole matrix, a part at a time.

        Args:
            rows_per_chunk: Rows a part; by default as many as 4 MB hold.

        Yields:
            The first token id of a part, and its rows in a new array.

        Raises:
            CheckpointError: If the file has changed since it was opened, or is gone.
        """
        step = rows_per_chunk or max(1, CHUNK_BYTES // max(1, self.row_bytes))
        if not self.row_bytes:  # rows of nothing cost nothing, however many a header names
            step = max(1, self.full_vocab_size)
        for first in range(0, self.full_vocab_size, step):
            count = min(step, self.full_vocab_size - first)
            part = np.empty((count, self.row_bytes), dtype=np.uint8)
            with naming(self.tensor.path), opened(self.tensor) as descriptor:
                read_into(descriptor, part, self.tensor.offset + first * self.row_bytes)
            yield first, part

    def check_rows(
        self, token_ids: Integer[np.ndarray, "n"], rows: UInt8[np.ndarray, "n row_bytes"]
    ) -> None:
        """Refuse rows that do not fit into this matrix.

        Args:
            token_ids: Where they shall go.
            rows: Their bytes.

        Raises:
            OutOfVocabularyError: If an id lies outside ``[0, |V|)``.
            VocabularyMismatchError: If an id comes twice, or there are not as many rows
                as ids, each of ``row_bytes``.
        """
        self._check_range(token_ids)
        if rows.shape != (token_ids.size, self.row_bytes):
            raise VocabularyMismatchError(
                f"Rows for `{self.tensor.name}` have shape {rows.shape}, expected "
                f"{(token_ids.size, self.row_bytes)}: {token_ids.size:,} rows of "
                f"{self.row_bytes:,} bytes. Pass them as bytes of {self.dtype}."
            )
        distinct, counts = np.unique(token_ids, return_counts=True)
        if distinct.size != token_ids.size:
            raise VocabularyMismatchError(
                f"Token ids {listed(distinct[counts > 1].tolist())} come more than once, so which "
                f"row of `{self.tensor.name}` they give is open. Pass each id once."
            )

    def __copy__(self) -> FullMatrix:
        return self

    def __deepcopy__(self, _memo: object) -> FullMatrix:
        return self

    def __getstate__(self) -> dict[str, object]:
        with suppress(CheckpointError):  # the file may be gone already
            _ = self.fingerprint
        return self.__dict__

    def __repr__(self) -> str:
        return (
            f"FullMatrix({self.tensor.name!r} in {self.tensor.path}, {self.full_vocab_size:,} × "
            f"{self.embedding_dim:,} {self.dtype})"
        )

    def _check_range(self, token_ids: Integer[np.ndarray, "n"]) -> None:
        """Refuse ids that are no rows."""
        outside = np.unique(token_ids[(token_ids < 0) | (token_ids >= self.full_vocab_size)])
        if outside.size:
            raise OutOfVocabularyError(
                f"Token ids {listed(outside.tolist())} lie outside the {self.full_vocab_size:,} "
                f"rows of `{self.tensor.name}` in {self.tensor.path}. Use the tokenizer of this "
                "checkpoint.",
                token_ids=outside.tolist(),
            )


def write_matrix(
    path: StrPath,
    tensor_name: str,
    dtype: str,
    shape: tuple[int, int],
    chunks: Iterable[np.ndarray],
) -> FullMatrix:
    """Write a matrix to a new safetensors file, all at once or not at all.

    Args:
        path: The file; its folder must exist.
        tensor_name: The matrix's name.
        dtype: As safetensors names it.
        shape: |V| and d.
        chunks: Its bytes, in order, in arrays of any type and shape: one is held at a
            time, if the iterable makes them one at a time.

    Returns:
        The matrix in that file.

    Raises:
        CheckpointError: If the dtype is none of safetensors', the chunks do not fill the
            shape, or the disk is full.
    """
    with replacing(Path(path)) as staged:
        write_tensor(staged, tensor_name, dtype, shape, chunks)
    return FullMatrix.open(path, tensor_name)


def _remove_own(path: Path, process_id: int, descriptor: int) -> None:
    """Delete a spill file, in the process that wrote it, and give up the lock."""
    if os.getpid() == process_id:
        path.unlink(missing_ok=True)
        os.close(descriptor)
