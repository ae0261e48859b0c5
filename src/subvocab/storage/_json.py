"""Read JSON that a stranger may have written."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from subvocab.errors import CheckpointError, shortened


def read_json(content: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object strictly.

    Args:
        content: UTF-8 text.
        what: Where it comes from, to begin messages with.

    Returns:
        The object.

    Raises:
        CheckpointError: If the text is not JSON, not an object, nested too deeply, names
            a key twice (readers would differ in which of the two they believe), or holds
            half a character, which could be neither written nor shown.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
        )
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise CheckpointError(f"{what} is nested too deeply, expected three levels.") from None
    except ValueError as error:
        raise CheckpointError(f"{what} is not JSON: {shortened(error)}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} is a JSON {type(value).__name__}, expected an object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, and refuse a key that comes twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} comes twice")
    return value


def _finite(number: str) -> float:
    """Refuse what Python reads as infinite or as no number, which the standard does not know."""
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number[:80]} is no number")
    return value
