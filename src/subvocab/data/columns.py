"""Choose which columns of a part are counted, and as what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import pyarrow as pa

from subvocab.data.arrow import is_text
from subvocab.data.parts import TOKEN_COLUMNS, UNNAMED, Part
from subvocab.errors import DataError, listed

TEXT_COLUMNS = ("text", "sentence")
PAIR = 2


@dataclass(frozen=True)
class Wanted:
    """What a caller asked for.

    Attributes:
        tokens: Columns of token ids, or None for those of ``TOKEN_COLUMNS`` there are.
        labels: Columns of token ids in which -100 is passed over.
        usual_labels: Such columns as nobody named, but the model takes them for that.
        unforeseen: As of `Chosen`, if others were chosen by the rows before.
        texts: One column of text or two that make a pair, or None to choose.
        tokenizes: Whether there is a tokenizer.
    """

    tokens: tuple[str, ...] | None
    labels: tuple[str, ...]
    texts: tuple[str, ...] | None
    tokenizes: bool
    usual_labels: tuple[str, ...] = ()
    unforeseen: tuple[str, ...] = ()

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
    """The columns of one part to count: those of text, or those of ids.

    Attributes:
        texts: One column of text, or two that make a pair.
        tokens: Columns of token ids.
        labels: Columns of token ids in which -100 is passed over.
        unforeseen: Columns that would have been chosen, had the first rows had them. A value
            in one must not be passed over.
    """

    texts: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    unforeseen: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All that is counted."""
        return [*self.texts, *self.tokens, *self.labels]


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
    if not part.schema.names:
        return Chosen()
    chosen = _chosen(part, wanted)
    if not part.grows:
        return chosen
    return replace(chosen, unforeseen=wanted.unforeseen or _unforeseen(part, chosen, wanted))


def _unforeseen(part: Part, chosen: Chosen, wanted: Wanted) -> tuple[str, ...]:
    """Name the columns without a value so far that would be counted too, or instead."""
    if wanted.tokens is not None or wanted.texts is not None:
        return ()
    usual: Iterable[str] = (*TOKEN_COLUMNS, *wanted.usual_labels)
    if chosen.texts:
        usual = takewhile(lambda name: name not in chosen.texts, (*TOKEN_COLUMNS, *TEXT_COLUMNS))
    kinds = {field.name: field.type for field in part.schema}
    empty = (name for name in usual if pa.types.is_null(kinds.get(name, pa.null())))
    return tuple(name for name in empty if name not in chosen.names)


def _chosen(part: Part, wanted: Wanted) -> Chosen:
    """Choose what to count of a part that has columns."""
    names = part.schema.names
    if wanted.texts is not None:
        _check(part, wanted.texts, text=True)
        return Chosen(texts=wanted.texts)
    tokens = wanted.tokens
    if tokens is None:
        tokens = _default_tokens(part, wanted)
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


def _default_tokens(part: Part, wanted: Wanted) -> tuple[str, ...]:
    """Choose the columns of token ids that nobody named; of nulls only beside no text."""
    kinds = {field.name: field.type for field in part.schema}
    usual = (name for name in (*TOKEN_COLUMNS, UNNAMED) if name in kinds)
    tokens = tuple(name for name in usual if not is_text(kinds[name]))
    if wanted.tokenizes and any(map(is_text, kinds.values())):
        tokens = tuple(name for name in tokens if not pa.types.is_null(kinds[name]))
    return tokens


def _default_text(part: Part, texts: Sequence[str]) -> str:
    """Choose the column of text that nobody named."""
    usual = [
        name for name in TEXT_COLUMNS if name in part.schema.names and _may_be_text(part, name)
    ]
    candidates = usual or list(texts)
    if len(candidates) == 1 or usual:
        return candidates[0]
    if not texts:
        raise DataError(
            f"{_whole(part)} has no column of text. Name those of token ids in `columns`, if there "
            f"are any. {_listing(part)}"
        )
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
        if text and not _may_be_text(part, name):
            kind = part.schema.field(name).type
            raise DataError(
                f"Column `{name}`{_of(part)} holds `{kind}`, expected text. {_listing(part)}"
            )


def _may_be_text(part: Part, name: str) -> bool:
    """Tell a column of text, or of nulls in the first rows, which texts may follow."""
    kind = part.schema.field(name).type
    return part.reads_text or is_text(kind) or pa.types.is_null(kind)


def _of(part: Part) -> str:
    return f" of {part.name}" if part.name else ""


def _whole(part: Part) -> str:
    """Name a part at the beginning of a sentence; the name of a file stays as it is."""
    words = part.name or "the source"
    return words[:1].upper() + words[1:] if words.split()[0].isalpha() else words


def _listing(part: Part) -> str:
    columns = [f"`{field.name}` ({field.type})" for field in part.schema]
    return f"Its columns: {listed(columns, limit=20)}."
