"""Take token ids out of Arrow arrays without copying them, whatever the nesting.

Reads buffers through ``flatten``, which honours slices and null rows; ``values`` would
give what lies outside a slice, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Integer

from subvocab.errors import DataError, shortened

_LIST_TYPES = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def _is_list(kind: pa.DataType) -> bool:
    return any(check(kind) for check in _LIST_TYPES)


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column holds text.

    Args:
        kind: The type of its values.

    Returns:
        True for strings, however they are laid out.
    """
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def unwrapped(array: pa.Array) -> pa.Array:
    """See through extension types (such as ``Array2D`` of ``datasets``) and dictionaries.

    Args:
        array: Any array.

    Returns:
        The same values in an array of a built-in type.
    """
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _leaves(array: pa.Array) -> pa.Array:
    """Flatten every level of lists; null lists vanish."""
    array = unwrapped(array)
    while _is_list(array.type):
        array = unwrapped(array.flatten())
    return array


def token_ids(array: pa.Array) -> Integer[np.ndarray, "length"]:
    """Lay the ids of a column side by side.

    Args:
        array: Integers, or lists of them to any depth; nulls are passed over.

    Returns:
        The ids in order: a view of the array's own buffer unless it has null ids.

    Raises:
        DataError: If there is something else than integers in it; says what.

    Example:
        >>> token_ids(pa.array([[[5], [7, 9]], None, [[1]]])).tolist()
        [5, 7, 9, 1]
        >>> token_ids(pa.array([[1, 2], [3]])[1:]).tolist()
        [3]
    """
    leaves = _leaves(array)
    if pa.types.is_null(leaves.type):
        return np.empty(0, dtype=np.int64)
    if not pa.types.is_integer(leaves.type):
        raise DataError(f"holds `{array.type}`, expected integers or lists of integers")
    if leaves.null_count:
        leaves = leaves.drop_null()
    return np.asarray(leaves.to_numpy(zero_copy_only=False))


def find_row(array: pa.Array, position: int) -> int:
    """Tell which row of a column an id came from.

    Args:
        array: What ``token_ids`` was given.
        position: Where the id stands in what ``token_ids`` gave.

    Returns:
        The row.

    Example:
        >>> find_row(pa.array([[5], None, [[]][0], [7, 9]]), 2)
        3
    """
    array = unwrapped(array)
    if not _is_list(array.type):
        valid = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        return int(valid[position])
    inner = find_row(array.flatten(), position)
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    return int(np.searchsorted(np.cumsum(lengths), inner, side="right"))


def as_array(rows: Any) -> pa.Array:
    """Make an Arrow array of rows given in Python.

    Args:
        rows: An array of any library (shared where it can be, the first axis being the
            rows), or a list of rows: numbers, texts, None, lists, arrays.

    Returns:
        The array, of the type that fits all rows.

    Raises:
        DataError: If no type fits all rows; says why.

    Example:
        >>> as_array([[1, 2], np.array([3]), None]).to_pylist()
        [[1, 2], [3], None]
    """
    try:
        if not isinstance(rows, list | tuple):
            rows = np.asarray(rows)
        if isinstance(rows, np.ndarray) and rows.dtype != object:
            flat = pa.array(rows.reshape(-1))
            width = int(np.prod(rows.shape[1:]))
            return flat if rows.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
        return pa.array([_plain(row) for row in rows])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = shortened(str(error).rstrip("."))
        raise DataError(f"holds rows of no one type ({reason})") from error


def _plain(row: Any) -> Any:
    """Turn arrays of other libraries, also inside lists, into flat NumPy ones."""
    if hasattr(row, "__array__") and not isinstance(row, np.generic):
        return np.asarray(row).reshape(-1) if np.ndim(row) else np.asarray(row)[()]
    if isinstance(row, list | tuple) and row and not isinstance(row[0], int | np.generic):
        return [_plain(part) for part in row]
    return row


def as_batch(columns: Iterable[tuple[str, Any]]) -> pa.RecordBatch:
    """Make a record batch of columns given in Python.

    Args:
        columns: Name and rows (see ``as_array``) of each.

    Returns:
        The batch.

    Raises:
        DataError: If a column's rows fit no type, or the columns differ in length.
    """
    arrays = {}
    for name, rows in columns:
        try:
            arrays[name] = as_array(rows)
        except DataError as error:
            raise DataError(f"Column `{name}` {error}. Scan another, with `columns`.") from error
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        raise DataError(f"Columns {', '.join(arrays)} differ in length. Give one value a row.")
    return pa.RecordBatch.from_pydict(arrays)
