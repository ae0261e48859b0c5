"""Embedding matrices on disk, as bytes: find them, read rows, write rows (no torch)."""

from subvocab.storage.fingerprint import matrix_fingerprint
from subvocab.storage.full_matrix import FullMatrix, write_matrix
from subvocab.storage.header import DTYPE_BITS, StoredTensor
from subvocab.storage.layout import Checkpoint, read_checkpoint
from subvocab.storage.merge import expand_checkpoint, merge_rows

__all__ = [
    "DTYPE_BITS",
    "Checkpoint",
    "FullMatrix",
    "StoredTensor",
    "expand_checkpoint",
    "matrix_fingerprint",
    "merge_rows",
    "read_checkpoint",
    "write_matrix",
]
