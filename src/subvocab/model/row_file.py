"""The file of a row adapter: a record of tensors, read as if written by an enemy.

For each table, by its first name: ``token_ids``, ``rows`` or ``differences``, and ``rest_shift`` if
there is one; all else is JSON in the file's metadata. No pickle, so reading one runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from subvocab._atomic import replacing
from subvocab._typing import StrPath
from subvocab.errors import CheckpointError
from subvocab.model.table_rows import TableRows
from subvocab.model.tensors import STORED_DTYPES, torch_dtype
from subvocab.storage.header import read_header
from subvocab.vocabulary import PartialVocabulary
from subvocab.vocabulary.record import FINGERPRINT_KEY, KIND_KEY

KIND = "row_adapter"
TABLES_KEY = "subvocab.tables"
VERSION_KEY = "subvocab.format_version"
FORMAT_VERSION = "1"
TOKEN_IDS, ROWS, DIFFERENCES, REST_SHIFT = "token_ids", "rows", "differences", "rest_shift"
MATRIX = 2


def write_rows(path: StrPath, tables: Mapping[str, TableRows], *, fingerprint: str) -> None:
    """Write the file of a row adapter, all at once or not at all.

    Args:
        path: The file; its folder must exist.
        tables: Rows by the first name of their table.
        fingerprint: Of the adapter.
    """
    tensors: dict[str, Tensor] = {}
    for name, table in tables.items():
        tensors[f"{name}.{TOKEN_IDS}"] = table.token_ids
        tensors[f"{name}.{DIFFERENCES if table.differences else ROWS}"] = table.values.contiguous()
        if table.rest_shift is not None:
            tensors[f"{name}.{REST_SHIFT}"] = table.rest_shift.contiguous()
    metadata = {
        KIND_KEY: KIND,
        FINGERPRINT_KEY: fingerprint,
        VERSION_KEY: FORMAT_VERSION,
        TABLES_KEY: json.dumps({name: table.description() for name, table in tables.items()}),
    }
    with replacing(Path(path)) as staged:
        staged.write_bytes(save(tensors, metadata))


def read_rows_file(path: StrPath) -> tuple[dict[str, TableRows], str]:
    """Read the file of a row adapter back.

    Args:
        path: A file that `write_rows` wrote.

    Returns:
        Rows by the first name of their table, and the fingerprint that is written beside them.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds something else.
    """
    header = read_header(path)
    metadata = dict(header.metadata or {})
    if metadata.get(KIND_KEY) != KIND:
        raise CheckpointError(
            f"{path} holds `{metadata.get(KIND_KEY)}`, expected `{KIND}`. Look into it with "
            "`subvocab inspect`."
        )
    if metadata.get(VERSION_KEY) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {metadata.get(VERSION_KEY)}, expected {FORMAT_VERSION}. "
            "Use the version of subvocab that wrote it."
        )
    try:
        tensors = load_file(header.path)
        described = json.loads(metadata[TABLES_KEY])
        tables = {name: _table(name, entry, tensors) for name, entry in described.items()}
        if tensors or not tables:
            raise ValueError(f"tensors that no table names: {sorted(tensors)}")  # noqa: TRY301
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} holds no row adapter: {error!r}. Save it anew.") from error
    return tables, metadata.get(FINGERPRINT_KEY, "")


def _table(name: str, entry: dict[str, Any], tensors: dict[str, Tensor]) -> TableRows:
    """Take the tensors of one table, and compare them with what is said of it."""
    names, size, changed = entry["names"], entry["full_vocab_size"], entry["differences"]
    dtype, fingerprint = entry["base_dtype"], entry["base_fingerprint"]
    token_ids = tensors.pop(f"{name}.{TOKEN_IDS}")
    values = tensors.pop(f"{name}.{DIFFERENCES if changed else ROWS}")
    shift = tensors.pop(f"{name}.{REST_SHIFT}", None)
    texts = [*names, dtype, fingerprint]
    if not (isinstance(changed, bool) and all(isinstance(text, str) for text in texts)):
        raise TypeError(f"`{name}` is described as {entry}")
    if type(size) is not int or not isinstance(names, list) or name not in names:
        raise TypeError(f"`{name}` is described as {entry}")
    torch_dtype(dtype)  # raises if no matrix can have it
    PartialVocabulary(token_ids.numpy(), size)  # raises unless they ascend in [0, |V|)
    for tensor in (values,) if shift is None else (values, shift):
        if tensor.dtype not in STORED_DTYPES:
            raise TypeError(f"`{name}` has values of {tensor.dtype}")
    if values.dim() != MATRIX or len(values) != len(token_ids):
        raise ValueError(f"`{name}` has {tuple(values.shape)} values for {len(token_ids)} tokens")
    if shift is not None and shift.shape != values.shape[1:]:
        raise ValueError(f"`{name}` has a shift of shape {tuple(shift.shape)}")
    return TableRows(tuple(names), size, token_ids, values, changed, shift, dtype, fingerprint)
