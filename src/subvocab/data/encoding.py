"""Encode texts as a tokenizer's own call would, and count the ids.

The caller's tokenizer is copied where its state would have to change. Neither kind of
tokenizer is imported: one that is passed has been loaded.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64
from tokenizers import Tokenizer

from subvocab.data.counting import Ids, TokenCounter
from subvocab.errors import DataError, shortened

Place = Callable[[int], str]


@runtime_checkable
class TextCounter(Protocol):
    """Something that counts the ids of texts."""

    def add(self, texts: list[str], seconds: list[str] | None, place: Place) -> None:
        """Count some texts, or pairs of texts, with the special tokens around them.

        Args:
            texts: The texts.
            seconds: The second text of each pair, or None.
            place: Names the place of a text in words.
        """

    def finish(self) -> None:
        """Hand over what has not been counted yet."""


@dataclass(frozen=True)
class Backend:
    """A copy of a fast tokenizer, which may be set as needed.

    Attributes:
        tokenizer: The copy, without padding.
        max_length: Tokens to truncate to, or None.
        direction: The side to cut at.
    """

    tokenizer: Tokenizer
    max_length: int | None
    direction: str

    def encode(self, texts: list[Any], *, whole: bool = False) -> list[Any]:
        """Encode a batch.

        Args:
            texts: Texts, or pairs of texts.
            whole: True for the bare ids: no special tokens, nothing truncated.

        Returns:
            The encodings; `side_by_side` unpacks them.

        Raises:
            DataError: If the tokenizer breaks down.
        """
        if whole or self.max_length is None:
            self.tokenizer.no_truncation()
        else:
            self.tokenizer.enable_truncation(self.max_length, direction=self.direction)
        with refusing_damaged():
            encoded: list[Any] = self.tokenizer.encode_batch_fast(
                texts, add_special_tokens=not whole
            )
        return encoded


@contextmanager
def refusing_damaged() -> Iterator[None]:
    """Turn a breakdown of `tokenizers` into an error of this library.

    Yields:
        Nothing.

    Raises:
        DataError: If the block breaks down, which only a damaged file makes it do.
    """
    try:
        yield
    except BaseException as error:
        # The one is no Exception and not public, the other of no class of its own.
        if type(error).__name__ != "PanicException" and type(error) is not Exception:
            raise
        raise DataError(
            f"The tokenizer failed on a text ({shortened(error)}), so its file is damaged. Save "
            "it anew, or load it from where it came from."
        ) from error


class PlainTextCounter:
    """Encodes every text, the next batch on a thread of its own while the last is unpacked.

    Args:
        encode: Gives the ids of each text or pair, as lists or behind ``ids``. No other
            thread may use what it encodes with.
        counter: Where the ids go.
    """

    def __init__(self, encode: Callable[[list[Any]], list[Any]], counter: TokenCounter) -> None:
        self._encode = encode
        self._counter = counter
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="subvocab-encode")
        self._pending: tuple[Future[list[Any]], Place] | None = None

    def add(self, texts: list[str], seconds: list[str] | None, place: Place) -> None:
        """Count some texts; see `TextCounter`.

        Args:
            texts: The texts.
            seconds: The second text of each pair, or None.
            place: Names the place of a text in words.
        """
        batch = texts if seconds is None else list(zip(texts, seconds, strict=True))
        encoding = self._pool.submit(self._encode, batch)
        self.unpack()
        self._pending = encoding, place

    def unpack(self) -> None:
        """Count the batch that was encoded last."""
        if self._pending is None:
            return
        encoding, place = self._pending
        self._pending = None
        ids, lengths = side_by_side(encoding.result())

        def place_of_id(position: int) -> str:
            return place(int(np.searchsorted(np.cumsum(lengths), position, side="right")))

        self._counter.add(Ids(ids, place_of_id))

    def finish(self) -> None:
        """Count what is still being encoded."""
        self.unpack()
        self._pool.shutdown()


def side_by_side(
    encodings: list[Any],
) -> tuple[Int64[np.ndarray, "ids"], Int64[np.ndarray, "texts"]]:
    """Unpack what was encoded.

    Args:
        encodings: Ids as lists, or encodings of `tokenizers`.

    Returns:
        All ids side by side, and how many each text has.
    """
    ids = [encoding if isinstance(encoding, list) else encoding.ids for encoding in encodings]
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(lengths.sum()))
    return flat, lengths


def caller_encode(
    tokenizer: Any,
    max_length: int | None,
) -> Callable[[list[Any]], list[Any]]:
    """Encode by calling a tokenizer, for those that are more than their backend.

    Args:
        tokenizer: A transformers tokenizer.
        max_length: Tokens to truncate to, or None.

    Returns:
        A function of texts or pairs; see `PlainTextCounter`.
    """
    tokenizer = copy.deepcopy(tokenizer)

    def encode(texts: list[Any]) -> list[Any]:
        paired = bool(texts) and isinstance(texts[0], tuple)
        sides = [list(side) for side in zip(*texts, strict=True)] if paired else [texts]
        encoded = tokenizer(*sides, truncation=max_length is not None, max_length=max_length)
        return list(encoded["input_ids"])

    return encode


def backend_of(tokenizer: Any, max_length: int | None) -> Backend | None:
    """Copy the fast tokenizer that does all of a tokenizer's work.

    Args:
        tokenizer: A transformers tokenizer, or one of `tokenizers`.
        max_length: Tokens to truncate to, or None.

    Returns:
        The copy; None for a tokenizer that is slow or does something of its own.

    Raises:
        DataError: If the special tokens alone are longer than ``max_length``.
    """
    if isinstance(tokenizer, SentTokenizer):
        tokenizer = _received(tokenizer)
    inner = tokenizer if isinstance(tokenizer, Tokenizer) else _plain_backend(tokenizer)
    if inner is None:
        return None
    own = _copied(inner)
    own.encode_special_tokens = getattr(
        tokenizer, "split_special_tokens", inner.encode_special_tokens
    )
    truncation = inner.truncation or {}
    direction = getattr(tokenizer, "truncation_side", truncation.get("direction", "right"))
    needed = own.num_special_tokens_to_add(is_pair=False)
    if max_length is not None and max_length < max(needed, 1):
        raise DataError(
            f"`max_length` is {max_length:,}, but the tokenizer adds {needed:,} special tokens to "
            "every text. Give at least that."
        )
    return Backend(own, max_length, direction)


def _copied(tokenizer: Tokenizer) -> Tokenizer:
    """Copy what may be set, without truncation and padding, and share what is only read.

    A deep copy writes and reads JSON, which takes a second for 250,000 tokens; so the parts
    are put together anew, and the deep copy is for added tokens that get other ids so.
    """
    own = Tokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        if getattr(tokenizer, part) is not None:
            setattr(own, part, getattr(tokenizer, part))
    added = tokenizer.get_added_tokens_decoder()
    for _, token in sorted(added.items()):
        own.add_special_tokens([token]) if token.special else own.add_tokens([token])
    found = own.get_added_tokens_decoder()
    if {at: repr(token) for at, token in found.items()} != {
        at: repr(token) for at, token in added.items()
    }:
        own = copy.deepcopy(tokenizer)
        own.no_padding()
    return own


def _plain_backend(tokenizer: Any) -> Tokenizer | None:
    """Take the backend of a transformers tokenizer whose call does nothing more."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    base = getattr(sys.modules.get("transformers"), "PreTrainedTokenizerFast", None)
    if not isinstance(inner, Tokenizer) or base is None or not isinstance(tokenizer, base):
        return None
    calls = ("__call__", "_encode_plus", "_batch_encode_plus", "_call_one")
    kind = type(tokenizer)
    own = any(getattr(kind, call, None) is not getattr(base, call, None) for call in calls)
    return None if own else inner


@dataclass(frozen=True)
class SentTokenizer:
    """A fast tokenizer as text, for workers that have no transformers.

    Attributes:
        description: The content of its ``tokenizer.json``.
        encode_special_tokens: What that content does not tell: whether special tokens in a
            text are split.
        direction: The side to cut at.
    """

    description: str
    encode_special_tokens: bool
    direction: str


def sendable(tokenizer: Any) -> Any:
    """Write a tokenizer down, so that it can be sent to another process.

    Args:
        tokenizer: A transformers tokenizer, one of `tokenizers`, or None.

    Returns:
        What `backend_of` takes in its place; the tokenizer itself if it is more than its
        backend, which makes whoever unpacks it import transformers.
    """
    backend = None if tokenizer is None else backend_of(tokenizer, None)
    if backend is None:
        return tokenizer
    own = backend.tokenizer
    return SentTokenizer(own.to_str(), own.encode_special_tokens, backend.direction)


@lru_cache(maxsize=2)  # reading 250,000 tokens takes seconds, and a worker counts many blocks
def _received(sent: SentTokenizer) -> Tokenizer:
    """Read a tokenizer that was sent; the length to truncate to is set later."""
    tokenizer = Tokenizer.from_str(sent.description)
    tokenizer.encode_special_tokens = sent.encode_special_tokens
    tokenizer.enable_truncation(1 << 16, direction=sent.direction)
    return tokenizer


def vocabulary_size(tokenizer: Any) -> int:
    """Count the tokens that a tokenizer knows.

    Args:
        tokenizer: A transformers tokenizer, or one of `tokenizers`.

    Returns:
        Its number of tokens, added ones included.
    """
    return tokenizer.get_vocab_size() if isinstance(tokenizer, Tokenizer) else len(tokenizer)


def special_token_ids(tokenizer: Any, full_vocab_size: int) -> Int64[np.ndarray, "special"]:
    """List the ids that models and collators insert by themselves.

    Args:
        tokenizer: A transformers tokenizer, one of `tokenizers`, or None.
        full_vocab_size: |V|. Ids beyond it have no row, and are left out.

    Returns:
        Id 0, which models put in place of what they mask, and the tokenizer's special
        ids, ascending.
    """
    ids = {0}
    if isinstance(tokenizer, Tokenizer):
        added = tokenizer.get_added_tokens_decoder()
        ids.update(token_id for token_id, token in added.items() if token.special)
    elif tokenizer is not None:
        ids.update(tokenizer.all_special_ids)
    inside = [token_id for token_id in ids if 0 <= token_id < full_vocab_size]
    return np.array(sorted(inside), dtype=np.int64)
