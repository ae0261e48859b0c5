"""The tokens of V that a dataset never uses, and why some never can be (paper, Table 1)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from subvocab.data.encoding import side_by_side
from subvocab.errors import DataError, VocabularyMismatchError
from subvocab.vocabulary import TokenCounts

BYTE_TOKEN = re.compile(r"<(0x[0-9A-Fa-f]{2})>")
WORD_MARK = "▁"
SPACE = "␣"
NO_TOKEN = "(no token)"  # noqa: S105  (no password)
CARRIERS = ("", " ", "a", "q", "x", "z", "0", ".", "é", "я", " a", " q")
"""What a token's own text is put behind to find out whether it can be produced."""
FOLLOWERS = ("a", "q", "x")
"""What is put behind it, where tokens tell whether a word ends with them."""


class TokenKind(StrEnum):
    """Why a token may be unused.

    Attributes:
        SPECIAL: The tokenizer declares it special: models and collators insert it.
        BYTE: It stands for bytes that are no whole character.
        UNREACHABLE: The tokenizer does not produce it from its own text, or has no token
            of this id, as for rows that pad a matrix.
        PLAIN: Text that the dataset lacks.
    """

    SPECIAL = "special"
    BYTE = "byte"
    UNREACHABLE = "unreachable"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class UnusedToken:
    r"""A token that was never seen.

    Attributes:
        token_id: Its id.
        text: What it stands for, readable: ``␣`` is a space, ``\n`` a new line, ``0xE2``
            a byte.
        kind: Why it may be unused.
    """

    token_id: int
    text: str
    kind: TokenKind


def unused_tokens(counts: TokenCounts, tokenizer: Any) -> list[UnusedToken]:
    """List the tokens that were never seen.

    Args:
        counts: How often each token was seen.
        tokenizer: The tokenizer they were counted with: a fast one of transformers, or
            one of `tokenizers`.

    Returns:
        The tokens, by id.

    Raises:
        DataError: If the tokenizer is none of `tokenizers`.
        VocabularyMismatchError: If it has more ids than the counts.

    Source:
        Table 1 of the paper shows such tokens; the four kinds are ours.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> counts = TokenCounts(np.array([0, 7, 0]))
        >>> words = WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]")
        >>> unused_tokens(counts, Tokenizer(words))[-1].text
        'cat'
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        raise DataError(
            f"A `{type(tokenizer).__name__}` does not say how it makes tokens, expected a fast "
            "tokenizer of transformers or one of `tokenizers`. Load it with `use_fast=True`."
        )
    names = {at: name for name, at in backend.get_vocab(with_added_tokens=True).items()}
    largest = max(names, default=-1)
    if largest >= counts.full_vocab_size:
        raise VocabularyMismatchError(
            f"The tokenizer's largest id is {largest:,}, but the counts are over "
            f"{counts.full_vocab_size:,} tokens. Give the tokenizer the texts were counted with."
        )
    added = backend.get_added_tokens_decoder()
    special = {at for at, token in added.items() if token.special}
    special.update(counts.special_token_ids[counts.special_token_ids != 0].tolist())
    spell = _speller(backend)
    spelled = {at: name if at in added else spell(name) for at, name in names.items()}
    unused = np.flatnonzero(counts.counts == 0).tolist()
    reachable = _reachable(backend, [(at, spelled[at]) for at in unused if at in spelled])
    found = []
    for at in unused:
        kind, name = TokenKind.UNREACHABLE, names.get(at, NO_TOKEN)
        own = spelled.get(at)
        if at in special:
            kind = TokenKind.SPECIAL
        elif isinstance(own, bytes):
            kind, name = TokenKind.BYTE, " ".join(f"0x{byte:02X}" for byte in own)
        elif own is not None:
            kind = TokenKind.PLAIN if at in reachable else kind
            name = _readable(name if own in name else own)
        found.append(UnusedToken(at, name, kind))
    return found


def _speller(backend: Tokenizer) -> Callable[[str], str | bytes]:
    """Tell how this tokenizer writes text in its tokens: give the text, or bytes that are none."""
    values, suffix = _byte_values(), _word_end(backend)
    in_bytes = "ByteLevel" in _part_types(backend.decoder) | _part_types(backend.pre_tokenizer)
    prefix = backend.model.continuing_subword_prefix if _is_word_piece(backend) else ""

    def spell(token: str) -> str | bytes:
        token = token.removesuffix(suffix)
        if in_bytes:  # other letters, which no text gives, stand for themselves
            known = values.keys() >= set(token)
            return _text_of(bytes(map(values.__getitem__, token))) if known else token
        if found := BYTE_TOKEN.fullmatch(token):
            return bytes([int(found[1], 16)])
        return token.removeprefix(prefix).replace(WORD_MARK, " ")

    return spell


def _part_types(part: Any) -> set[str]:
    """Name the types of a decoder or pre-tokenizer, and of those it consists of."""
    state = json.loads(part.__getstate__()) if part else {}
    inner = [*state.get("decoders", []), *state.get("pretokenizers", [])]
    return {one["type"] for one in [state, *inner] if one}


def _is_word_piece(backend: Tokenizer) -> bool:
    return isinstance(backend.model, WordPiece)


def _word_end(backend: Tokenizer) -> str:
    """Give the mark of tokens that end a word, as CLIP has it; empty if there is none."""
    return getattr(backend.model, "end_of_word_suffix", None) or ""


def _byte_values() -> dict[str, int]:
    """Give the byte behind each letter of byte-level BPE: printable Latin-1 stands for itself."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


def _text_of(spelled: bytes) -> str | bytes:
    """Decode bytes, unless they are no whole characters."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return spelled


def _reachable(backend: Tokenizer, spelled: list[tuple[int, str | bytes]]) -> set[int]:
    """Find the tokens that come out when their own text is encoded, alone or beside others."""
    texts = {at: text for at, text in spelled if isinstance(text, str)}
    found: set[int] = set()
    followers = ("", *FOLLOWERS) if _word_end(backend) else ("",)
    for follower, carrier in product(followers, CARRIERS):
        missing = np.array([at for at in texts if at not in found], dtype=np.int64)
        if not missing.size:
            break
        batch = [carrier + texts[at] + follower for at in missing.tolist()]
        ids, lengths = side_by_side(backend.encode_batch_fast(batch, add_special_tokens=False))
        found.update(ids[ids == np.repeat(missing, lengths)].tolist())
    return found


def _readable(text: str) -> str:
    """Show spaces, and what does not print."""
    return "".join(
        SPACE if c == " " else c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )
