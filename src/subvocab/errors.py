"""Every exception the library raises on purpose.

* SubvocabError
  + OutOfVocabularyError (also LookupError)
  + VocabularyMismatchError (also ValueError)
  + DataError (also ValueError)
  + CheckpointError (also ValueError)
  + UnsupportedModelError (also TypeError)
  + MissingExtraError (also ImportError)
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_QUOTE = 400
"""In letters."""


class SubvocabError(Exception):
    """Base class: ``except SubvocabError`` catches every error raised on purpose."""


class OutOfVocabularyError(SubvocabError, LookupError):
    """A token id lies outside the partial vocabulary.

    Args:
        message: What is, what was expected, what to do.
        token_ids: The missing ids, each once, ascending; kept as an attribute.
    """

    def __init__(self, message: str, *, token_ids: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.token_ids = tuple(token_ids)


class VocabularyMismatchError(SubvocabError, ValueError):
    """A partial vocabulary does not fit the model, checkpoint or dataset at hand."""


class DataError(SubvocabError, ValueError):
    """A dataset cannot be scanned: a column is missing, or holds what is no token id."""


class CheckpointError(SubvocabError, ValueError):
    """A checkpoint file is damaged, or lacks the tensor that was asked for."""


class UnsupportedModelError(SubvocabError, TypeError):
    """A model uses its embedding matrix in a way that a part of its rows cannot serve."""


class MissingExtraError(SubvocabError, ImportError):
    """A feature needs an optional dependency that is not installed."""


def listed(values: Sequence[object], *, limit: int = 5) -> str:
    """Name the first few of many values, and count the rest.

    Args:
        values: What went wrong, in the order to show it.
        limit: How many to name.

    Returns:
        Words for the middle of a message.

    Example:
        >>> listed(range(1205))
        '0, 1, 2, 3, 4 and 1,200 more'
    """
    named = ", ".join(map(shortened, values[:limit]))
    rest = len(values) - limit
    return f"{named} and {rest:,} more" if rest > 0 else named


def shortened(quoted: object) -> str:
    """Cut what is quoted to what a message can hold.

    Args:
        quoted: A name from a file, or what another library raised: it may quote a whole
            damaged file.

    Returns:
        Its text, or both ends of it.

    Example:
        >>> shortened("bad: " + "x" * 1000 + " at line 1")[-20:]
        'xxxxxxxxxx at line 1'
    """
    text = str(quoted)
    half = LONGEST_QUOTE // 2
    return text if len(text) <= LONGEST_QUOTE else f"{text[:half]} … {text[-half:]}"
