"""Choose which columns of a part are counted, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from subvocab.data.arrow import is_text
from subvocab.data.parts import TOKEN_COLUMNS, UNNAMED, Part
from subvocab.errors import DataError

TEXT_COLUMNS = ("text", "sentence")
PAIR = 2


@dataclass(frozen=True)
class Wanted:
    """What a caller asked for.

    Attributes:
        tokens: Columns of token ids, or None for those of ``TOKEN_COLUMNS`` there are.
        labels: Columns of token ids in which -100 is passed over.
        usual_labels: Such columns as nobody named, but the model takes them for that.
        texts: One column of text or two that make a pair, or None to choose.
        tokenizes: Whether there is a tokenizer.
    """

    tokens: tuple[str, ...] | None
    labels: tuple[str, ...]
    texts: tuple[str, ...] | None
    tokenizes: bool
    usual_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.texts is not None and not self.tokenizes:
            raise DataError("`text_columns` were named, but no tokenizer. Pass `tokenizer`.")
        if self.texts is not None and (self.tokens or self.labels):
            raise DataError(
                "Columns of text and columns of token ids were both named, expected one of them. "
                "Scan twice and add the counts."
            )
        if self.texts is not None and not 1 <= len(self.texts) <= PAIR:
            raise DataError(
                f"{len(self.texts)} text columns were named, expected one, or two that are encoded "
                "as a pair. Scan others apart and add the counts."
            )


@dataclass(frozen=True)
class Chosen:
    """The columns of one part to count: those of text, or those of ids."""

    texts: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def choose_columns(part: Part, wanted: Wanted) -> Chosen:
    """Choose what to count of a part.

    Args:
        part: The part.
        wanted: What the caller asked for.

    Returns:
        The columns; none for a part without any column, which has no rows.

    Raises:
        DataError: If a column is missing, or none can be chosen; lists what there is.
    """
    names = part.schema.names
    if not names:
        return Chosen()
    if wanted.texts is not None:
        _check(part, wanted.texts, text=True)
        return Chosen(texts=wanted.texts)
    tokens = wanted.tokens
    if tokens is None:
        tokens = tuple(name for name in (*TOKEN_COLUMNS, UNNAMED) if name in names)
        tokens = tuple(name for name in tokens if not is_text(part.schema.field(name).type))
    usual = tuple(name for name in wanted.usual_labels if tokens and name in names)
    labels = wanted.labels or usual
    tokens = tuple(name for name in tokens if name not in labels)
    if tokens or labels:
        _check(part, (*tokens, *labels), text=False)
        return Chosen(tokens=tokens, labels=labels)
    texts = tuple(field.name for field in part.schema if is_text(field.type))
    if not wanted.tokenizes:
        reason = "it has texts, which need a `tokenizer`" if texts else "name one in `columns`"
        raise DataError(
            f"{_whole(part)} has no column {' or '.join(TOKEN_COLUMNS)}; {reason}. {_listing(part)}"
        )
    return Chosen(texts=(_default_text(part, texts),))


def _default_text(part: Part, texts: Sequence[str]) -> str:
    """Choose the column of text that nobody named."""
    usual = [
        name for name in TEXT_COLUMNS if name in (part.schema.names if part.reads_text else texts)
    ]
    candidates = usual or list(texts)
    if len(candidates) == 1 or usual:
        return candidates[0]
    raise DataError(
        f"{_whole(part)} has {len(texts)} columns of text, and none of them is named "
        f"{' or '.join(TEXT_COLUMNS)}. Name one, or two that make a pair, in `text_columns`. "
        f"{_listing(part)}"
    )


def _check(part: Part, names: Sequence[str], *, text: bool) -> None:
    """See that columns exist, and that text is text."""
    for name in names:
        if name not in part.schema.names:
            raise DataError(f"{_whole(part)} has no column `{name}`. {_listing(part)}")
        kind = part.schema.field(name).type
        if text and not (part.reads_text or is_text(kind) or pa.types.is_null(kind)):
            raise DataError(
                f"Column `{name}`{_of(part)} holds `{kind}`, expected text. {_listing(part)}"
            )


def _of(part: Part) -> str:
    return f" of {part.name}" if part.name else ""


def _whole(part: Part) -> str:
    """Name a part at the beginning of a sentence; the name of a file stays as it is."""
    words = part.name or "the source"
    return words[:1].upper() + words[1:] if words.split()[0].isalpha() else words


def _listing(part: Part) -> str:
    columns = ", ".join(f"`{field.name}` ({field.type})" for field in part.schema)
    return f"Its columns: {columns}."
