"""Which tokenizers never look across the space between two words, and for which words.

Only three structures are known here, each with its proof; for any other a text must be
encoded whole. For a space (U+0020) between characters x and y:

* BERT. The normalizer changes single characters and runs of combining marks, and a space
  is neither; the pre-tokenizer splits at every space.
* Byte-level BPE. A word takes its space along. No branch of the patterns in
  ``_PATTERNS`` matches a space after x that is not white, so a match ends at x, and
  normalization to NFC composes nothing with a space before it.
* Unigram over white-split words. The charsmap works on grapheme clusters; a space shares
  one with y only if y extends clusters, with x only if x prepends to them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from tokenizers import Tokenizer, models

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL,  # Qwen 2 and 3
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL,  # Llama 3
}


@dataclass(frozen=True)
class WordRule:
    """How a kind of tokenizer sees words.

    Attributes:
        takes_space: True if a word is encoded with the space before it.
        holds: Tells whether the proof holds for a word and the spaces around it.
    """

    takes_space: bool
    holds: Callable[[str], bool]


def word_rule(tokenizer: Tokenizer) -> WordRule | None:
    """Find the rule that is proven for a tokenizer.

    Args:
        tokenizer: A fast tokenizer.

    Returns:
        The rule, or None if it must encode texts whole.
    """
    rule = _structure_rule(tokenizer)
    if rule is None or tokenizer.encode_special_tokens:
        return None
    if not _adds_around(_description(tokenizer.post_processor)):
        return None
    awkward = []
    for token in tokenizer.get_added_tokens_decoder().values():
        if any(map(str.isspace, token.content)):
            return None
        if token.normalized and tokenizer.normalizer is not None:
            return None
        if token.lstrip or token.rstrip or token.single_word:
            awkward.append(token.content)
    if not awkward:
        return rule
    holds = rule.holds
    return WordRule(
        rule.takes_space,
        lambda word: holds(word) and not any(content in word for content in awkward),
    )


def _structure_rule(tokenizer: Tokenizer) -> WordRule | None:
    """Find the rule for normalizer, pre-tokenizer and model."""
    normalizer = _description(tokenizer.normalizer)
    splitter = _description(tokenizer.pre_tokenizer)
    model = tokenizer.model
    if isinstance(model, models.WordPiece):
        if normalizer.get("type") == "BertNormalizer" and splitter == {"type": "BertPreTokenizer"}:
            return WordRule(takes_space=False, holds=lambda _word: True)
    elif isinstance(model, models.BPE):
        plain = not normalizer or normalizer == {"type": "NFC"}
        if plain and not model.dropout and _is_byte_level(splitter):
            return WordRule(takes_space=True, holds=_has_no_white_ends)
    elif isinstance(model, models.Unigram) and _is_charsmap(normalizer) and _is_metaspace(splitter):
        return WordRule(takes_space=False, holds=_keeps_clusters)
    return None


def _description(component: Any) -> dict[str, Any]:
    """Read a tokenizer's component as its JSON says it."""
    if component is None:
        return {}
    described: dict[str, Any] = json.loads(component.__getstate__())
    return described


def _is_byte_level(splitter: dict[str, Any]) -> bool:
    """Tell GPT-2's splitting, or one of ``_PATTERNS`` before the change to bytes."""
    steps = splitter.get("pretokenizers", [splitter])
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return False
    if len(steps) == 1:
        return bool(last.get("use_regex", True))
    first = steps[0]
    return bool(
        len(steps) == 2  # noqa: PLR2004
        and first["type"] == "Split"
        and first["pattern"].get("Regex") in _PATTERNS
        and first["behavior"] == "Isolated"
        and not first["invert"]
        and not last.get("use_regex", True)
    )


def _is_charsmap(normalizer: dict[str, Any]) -> bool:
    """Tell SentencePiece's normalization, with runs of spaces made one."""
    steps = normalizer.get("normalizers", [normalizer])
    runs = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    return all(step.get("type") == "Precompiled" or step == runs for step in steps)


def _is_metaspace(splitter: dict[str, Any]) -> bool:
    """Tell splitting at white space with a mark before every word."""
    steps = splitter.get("pretokenizers", [])
    return bool(
        [step["type"] for step in steps] == ["WhitespaceSplit", "Metaspace"]
        and steps[1]["prepend_scheme"] == "always"
        and steps[1]["split"]
    )


def _adds_around(processor: dict[str, Any]) -> bool:
    """Tell a post-processor that puts the same special tokens around any text."""
    kind = processor.get("type")
    if kind == "Sequence":
        return all(map(_adds_around, processor["processors"]))
    if kind == "TemplateProcessing":
        wanted = {"single": ["A"], "pair": ["A", "B"]}
        return all(
            [part["Sequence"]["id"] for part in processor[name] if "Sequence" in part] == texts
            for name, texts in wanted.items()
        )
    return kind in (None, "BertProcessing", "RobertaProcessing", "ByteLevel")


def _has_no_white_ends(word: str) -> bool:
    """Tell words that touch the spaces around them with what no pattern takes for white."""
    return word != "" and not (_WHITE.match(word[0]) or _WHITE.match(word[-1]))


_WHITE = re.compile(r"[\s\u180e]")


def _keeps_clusters(word: str) -> bool:
    """Tell words that share no grapheme cluster with the spaces around them."""
    if word.isascii():
        return True
    extending, prepending = _cluster_ends()
    return not (extending.match(word[0]) or prepending.match(word[-1]))


@cache
def _cluster_ends() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Match what may extend a grapheme cluster, and what may prepend to one.

    Categories stand in for the two properties, and take in too much rather than too
    little: marks, format characters, what Unicode has not assigned yet, modifiers of
    emoji; for those that prepend also the Brahmic blocks in which such letters occur.
    """
    extends = "\uff9e\uff9f\U0001f3fb-\U0001f3ff\U00032000-\U0010ffff"
    prepends = "\u0d4e\U00011000-\U00011fff\U00032000-\U0010ffff"
    for first, last, category in _category_runs(0x32000):
        if category in ("Mn", "Mc", "Me", "Cf", "Cn"):
            extends += f"{first}-{last}"
        if category in ("Cf", "Cn"):
            prepends += f"{first}-{last}"
    return re.compile(f"[{extends}]"), re.compile(f"[{prepends}]")


def _category_runs(stop: int) -> Iterator[tuple[str, str, str]]:
    """Yield the first and the last of characters in a row that have one category."""
    for category, run in groupby(map(chr, range(0x80, stop)), unicodedata.category):
        characters = list(run)
        yield characters[0], characters[-1], category
