"""Count the ids of texts by encoding each distinct word once.

That is exact where `subvocab.data.word_rules` proves that a tokenizer sees no further than
a word. A text with a word for which the proof does not hold, or that must be truncated, is
encoded whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from subvocab.data.counting import Ids, TokenCounter
from subvocab.data.encoding import (
    Backend,
    Place,
    PlainTextCounter,
    refusing_damaged,
    side_by_side,
)
from subvocab.data.word_rules import WordRule, word_rule

TOO_LONG = 1 << 40
TABLE_WORDS = 1 << 19
TABLE_CHARACTERS = 1 << 25
TRIAL_CHARACTERS = 1 << 17
USEFUL_SHARE = 0.5
TRAILING_SPACE = None


def word_counter(
    backend: Backend, plain: PlainTextCounter, counter: TokenCounter
) -> WordCounter | None:
    """Count by words where that is proven to give the same.

    Args:
        backend: The tokenizer.
        plain: Counts the texts that must be encoded whole.
        counter: Where the ids go.

    Returns:
        The counter of words, or None.
    """
    rule = word_rule(backend.tokenizer)
    return None if rule is None else WordCounter(rule, backend, plain, counter)


class WordCounter:
    """Counts texts by their words; see `subvocab.data.encoding.TextCounter`.

    Args:
        rule: How the tokenizer sees words.
        backend: The tokenizer.
        plain: Counts the texts that must be encoded whole.
        counter: Where the ids go.
    """

    def __init__(
        self, rule: WordRule, backend: Backend, plain: PlainTextCounter, counter: TokenCounter
    ) -> None:
        self._rule = rule
        self._backend = backend
        self._plain = plain
        self._counter = counter
        self._useful = True
        self._seen_characters = 0
        self._encoded_characters = 0
        self._start_table()

    def _start_table(self) -> None:
        """Forget all words."""
        table: defaultdict[Hashable, int] = defaultdict()
        table.default_factory = table.__len__
        self._table = table
        self._ids: list[Int64[np.ndarray, "ids"]] = []
        self._first_words: list[int] = []
        self._lengths = np.empty(0, dtype=np.int64)
        self._uses = np.empty(0, dtype=np.int64)
        self._table_characters = 0

    def add(self, texts: list[str], seconds: list[str] | None, place: Place) -> None:
        """Count some texts.

        Args:
            texts: The texts.
            seconds: The second text of each pair, or None.
            place: Names the place of a text in words.
        """
        if not self._useful:
            self._plain.add(texts, seconds, place)
            return
        sides = [self._look_up(side) for side in (texts, seconds) if side is not None]
        special = self._special_ids(paired=seconds is not None)
        lengths = np.zeros(len(texts), dtype=np.int64)
        for words, sizes in sides:
            lengths += np.add.reduceat(self._lengths[words], np.cumsum(sizes) - sizes)
        limit = self._backend.max_length
        fits = lengths + special.size <= (TOO_LONG - 1 if limit is None else limit)
        for words, sizes in sides:
            kept = words[np.repeat(fits, sizes)]
            if self._counter.notes_first:
                self._note_new(kept)
            self._uses += np.bincount(kept, minlength=self._uses.size)
        self._counter.add(Ids(np.tile(special, int(fits.sum())), lambda _at: place(0)))
        self._add_plainly(texts, seconds, place, ~fits)
        if self._counter.notes_first:
            self._plain.unpack()  # in the order of reading, so before the next batch
        self._judge()

    def _note_new(self, words: Int64[np.ndarray, "words"]) -> None:
        """Note where the ids of words stand that have not been used before."""
        lengths = self._lengths[words]
        starts = np.cumsum(lengths) - lengths
        unused = np.flatnonzero(self._uses[words] == 0)
        new, at = np.unique(words[unused], return_index=True)
        ids, sizes = self._ids_of(new)
        inside = np.arange(ids.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        positions = np.repeat(starts[unused[at]], sizes) + inside
        self._counter.note_first(ids, positions, int(lengths.sum()))

    def _ids_of(
        self, words: Int64[np.ndarray, "words"]
    ) -> tuple[Int64[np.ndarray, "ids"], Int64[np.ndarray, "words"]]:
        """Look up the ids of proven words, side by side, and how many each has.

        Words are ascending; new ones lie together, in what was encoded last.
        """
        if not words.size:
            return np.empty(0, dtype=np.int64), words
        chunk = bisect_right(self._first_words, int(words[0])) - 1
        first = self._first_words[chunk]
        ids = np.concatenate(self._ids[chunk:])
        lengths = np.where(self._lengths[first:] == TOO_LONG, 0, self._lengths[first:])
        wanted = np.zeros(lengths.size, dtype=bool)
        wanted[words - first] = True
        return ids[np.repeat(wanted, lengths)], lengths[wanted]

    def _add_plainly(
        self,
        texts: list[str],
        seconds: list[str] | None,
        place: Place,
        chosen: Bool[np.ndarray, "texts"],
    ) -> None:
        """Encode the chosen texts whole."""
        rows = np.flatnonzero(chosen).tolist()
        if rows:
            self._plain.add(
                [texts[row] for row in rows],
                None if seconds is None else [seconds[row] for row in rows],
                lambda text: place(rows[text]),
            )

    def _look_up(
        self, texts: list[str]
    ) -> tuple[Int64[np.ndarray, "words"], Int64[np.ndarray, "texts"]]:
        """Number the words of all texts side by side, and count those of each text."""
        split: list[list[Any]] = [text.split(" ") for text in texts]
        if self._rule.takes_space:
            for words in split:
                if len(words) > 1 and not words[-1]:
                    words[-1] = TRAILING_SPACE
                words[0] = (words[0],)
        known = len(self._table)
        numbers = list(map(self._table.__getitem__, chain.from_iterable(split)))
        self._seen_characters += sum(map(len, texts))
        if len(self._table) > known:
            self._encode_words(list(self._table)[known:])
        return np.array(numbers, dtype=np.int64), np.array(list(map(len, split)), dtype=np.int64)

    def _encode_words(self, keys: list[Any]) -> None:
        """Encode new words, and mark those whose texts must be encoded whole."""
        holds = self._rule.holds
        words, proven = [], []
        for key in keys:
            if key is TRAILING_SPACE:
                words.append(" ")
                proven.append(True)
            elif isinstance(key, tuple):
                words.append(key[0])
                proven.append(not key[0] or holds(key[0]))
            else:
                words.append(" " + key if self._rule.takes_space else key)
                proven.append(holds(key))
        ids, lengths = side_by_side(self._backend.encode(words, whole=True))
        outside = np.repeat(np.arange(len(words)), lengths)[ids >= self._counter.full_vocab_size]
        unproven = ~np.array(proven, dtype=bool)
        unproven[outside] = True
        self._first_words.append(self._lengths.size)
        self._ids.append(ids[~np.repeat(unproven, lengths)])
        lengths[unproven] = TOO_LONG
        self._lengths = np.concatenate([self._lengths, lengths])
        self._uses = np.concatenate([self._uses, np.zeros_like(lengths)])
        characters = sum(map(len, words))
        self._encoded_characters += characters
        self._table_characters += characters

    def _special_ids(self, *, paired: bool) -> Int64[np.ndarray, "special"]:
        """Take the ids that the tokenizer puts around every text, or pair."""
        tokenizer = self._backend.tokenizer
        tokenizer.no_truncation()
        with refusing_damaged():
            encoded = tokenizer.encode("", "") if paired else tokenizer.encode("")
        return np.array(encoded.ids, dtype=np.int64)

    def _judge(self) -> None:
        """Empty a table that is full; give up if most of a text is new words."""
        if len(self._table) > TABLE_WORDS or self._table_characters > TABLE_CHARACTERS:
            self._hand_over()
        if self._seen_characters > TRIAL_CHARACTERS:
            self._useful = self._encoded_characters < USEFUL_SHARE * self._seen_characters
            if not self._useful:
                self._hand_over()

    def finish(self) -> None:
        """Count what has not been counted yet."""
        self._hand_over()
        self._plain.finish()

    def _hand_over(self) -> None:
        """Count the ids of every word as often as the word was used, and forget the words."""
        lengths = np.where(self._lengths == TOO_LONG, 0, self._lengths)
        ids = np.concatenate([*self._ids, np.empty(0, dtype=np.int64)])
        self._counter.add_times(ids, np.repeat(self._uses, lengths))
        self._start_table()
