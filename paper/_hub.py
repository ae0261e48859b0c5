"""Ask the Hub, and tell in one line why it does not answer.

The libraries try again for a minute before they give up. A host that cannot be reached at all is
found out here first, once, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

from huggingface_hub import constants, get_session

from paper._cells import CannotRunError
from subvocab.errors import SubvocabError

SECONDS = 5

Loaded = TypeVar("Loaded")


def from_hub(load: Callable[[], Loaded], what: str) -> Loaded:
    """Load something from the Hub, or from its cache.

    Args:
        load: Loads it.
        what: Its name, for the message.

    Returns:
        What was loaded.

    Raises:
        CannotRunError: If it cannot be had.
    """
    unreachable = _unreachable()
    if unreachable:
        raise CannotRunError(f"{what} is to come from the Hub, but {unreachable}")
    try:
        return load()
    except Exception as error:  # what is raised depends on the network, and on the files
        raise CannotRunError(f"{what} could not be had from the Hub ({_told(error)})") from error


@cache
def _unreachable() -> str:
    """Tell why the Hub cannot be reached; nothing where it can, or only its cache is wanted."""
    if constants.HF_HUB_OFFLINE:
        return ""
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # noqa: BLE001  its client's errors have no public common class
        return f"{constants.ENDPOINT} cannot be reached ({_told(error)})"
    return ""


def _told(error: BaseException) -> str:
    """Take the first line of a message: of the library's own, where ours stands around it."""
    if isinstance(error, SubvocabError) and error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
