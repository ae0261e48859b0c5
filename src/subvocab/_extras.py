"""Import what only some features need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from subvocab.errors import MissingExtraError


def import_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: The module, such as ``matplotlib.figure``.
        extra: The extra of this package that installs it.
        purpose: What needs it; the subject of the message.

    Returns:
        The module.

    Raises:
        MissingExtraError: If it is not installed; tells how to install it.

    Example:
        >>> import_extra("json", extra="report", purpose="Drawing").__name__
        'json'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != library:
            raise  # it is there, and broken
        raise MissingExtraError(
            f"{purpose} needs `{library}`, which is not installed. "
            f"Run `pip install 'subvocab[{extra}]'`."
        ) from error
