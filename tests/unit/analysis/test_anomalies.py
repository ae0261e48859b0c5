"""Tests of the tokens that a dataset never uses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from subvocab.analysis.anomalies import TokenKind, unused_tokens
from subvocab.data import scan
from subvocab.errors import DataError, VocabularyMismatchError
from subvocab.vocabulary import TokenCounts
from tests import tiny_tokenizers


def kinds(tokenizer: Tokenizer, size: int | None = None) -> dict[str, TokenKind]:
    """Tell the kind of every token of a tokenizer, none of which was seen."""
    counts = TokenCounts(np.zeros(size or tokenizer.get_vocab_size(), dtype=np.int64))
    found = unused_tokens(counts, tokenizer)
    assert [token.token_id for token in found] == list(range(counts.full_vocab_size))
    return {token.text: token.kind for token in found}


def test_word_pieces() -> None:
    """Pieces need a word before them; what the normalizer changes is never produced."""
    words = ["[PAD]", "the", "ing", "##ing", "##s", "The", "##中", "中", "[unused7]"]
    model = models.WordPiece({w: at for at, w in enumerate(words)} | {"x": 9}, unk_token="[PAD]")  # noqa: S106
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]"])

    found = kinds(tokenizer)

    assert found == {
        "[PAD]": TokenKind.SPECIAL,
        **dict.fromkeys(["the", "ing", "##ing", "##s", "中", "x"], TokenKind.PLAIN),
        **dict.fromkeys(["The", "##中", "[unused7]"], TokenKind.UNREACHABLE),
    }


def test_byte_level_tokens() -> None:
    """Bytes that are no characters are shown as numbers, white space as signs."""
    found = kinds(tiny_tokenizers.byte_level(), 325)

    assert found["0xE6"] is TokenKind.BYTE
    assert found["␣the"] is TokenKind.PLAIN
    assert found["\\n"] is TokenKind.PLAIN
    assert found["<|endoftext|>"] is TokenKind.SPECIAL
    assert found["(no token)"] is TokenKind.UNREACHABLE
    assert not [text for text in found if not text or not text.isprintable()]


def test_letters_that_are_no_bytes() -> None:
    """A byte-level tokenizer never produces a token that is not written in its letters."""
    tokenizer = Tokenizer(models.BPE({"a": 0, "日": 1, " ": 2}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()

    unreachable = TokenKind.UNREACHABLE
    assert kinds(tokenizer) == {"a": TokenKind.PLAIN, "日": unreachable, "␣": unreachable}


@pytest.mark.parametrize("in_bytes", [False, True])
def test_tokens_that_end_a_word(*, in_bytes: bool) -> None:
    """CLIP and GPT-1 mark them: others come out only where letters follow."""
    ids = ["<unk>", "l", "o", "w", "w</w>", "lo", "low</w>", "o</w>", "x", "x</w>", "lox", "L"]
    merges = [("l", "o"), ("lo", "w</w>"), ("lo", "x")]
    vocabulary = {token: at for at, token in enumerate(ids)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", end_of_word_suffix="</w>")  # noqa: S106
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False)
        if in_bytes
        else pre_tokenizers.Whitespace()
    )
    tokenizer.add_special_tokens(["<unk>"])

    found = kinds(tokenizer)

    assert found == {
        "<unk>": TokenKind.SPECIAL,
        **dict.fromkeys(ids[1:-1], TokenKind.PLAIN),
        "L": TokenKind.UNREACHABLE,
    }


def test_byte_fallback_and_word_marks() -> None:
    """As tokenizers made by SentencePiece write bytes and spaces."""
    vocabulary = [("<unk>", 0.0), ("▁the", -1.0), ("a", -2.0), ("<0x0A>", -9.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()

    found = kinds(tokenizer)

    assert found["0x0A"] is TokenKind.BYTE
    assert found["␣the"] is TokenKind.PLAIN


def test_only_what_was_not_seen_is_listed(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """Seen tokens are left out; a special one that never came is named so."""
    counts = scan(["the cat"], tokenizer=wordpiece_tokenizer)

    found = unused_tokens(counts, wordpiece_tokenizer)

    seen = set(np.flatnonzero(counts.counts).tolist())
    assert {token.token_id for token in found} == set(range(counts.full_vocab_size)) - seen
    kind = {token.text: token.kind for token in found}
    assert kind["[MASK]"] is TokenKind.SPECIAL
    assert "[CLS]" not in kind


@pytest.mark.parametrize("tokenizer", [object(), None])
def test_a_tokenizer_that_tells_nothing_is_refused(tokenizer: object) -> None:
    """Slow tokenizers are code."""
    with pytest.raises(DataError, match="does not say how it makes tokens, expected a fast"):
        unused_tokens(TokenCounts(np.zeros(3, dtype=np.int64)), tokenizer)


def test_a_tokenizer_of_more_ids_is_refused() -> None:
    """The counts are of another."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1_234}, unk_token="a"))  # noqa: S106

    message = (
        "The tokenizer's largest id is 1,234, but the counts are over 3 tokens. Give the tokenizer "
        "the texts were counted with."
    )
    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        unused_tokens(TokenCounts(np.zeros(3, dtype=np.int64)), tokenizer)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("bert-base-uncased", "[unused0]", TokenKind.UNREACHABLE),
        ("bert-base-uncased", "##ed", TokenKind.PLAIN),
        ("roberta-base", "madeupword0000", TokenKind.UNREACHABLE),
        ("gpt2", "␣SolidGoldMagikarp", TokenKind.PLAIN),
        ("xlm-roberta", "<mask>", TokenKind.SPECIAL),
        ("qwen3", "<|im_start|>", TokenKind.SPECIAL),
    ],
)
def test_real_tokenizers(data_folder: Path, name: str, text: str, kind: TokenKind) -> None:
    """Tokens that are known for what they are."""
    path = data_folder / "tokenizers" / name / "tokenizer.json"

    assert kinds(Tokenizer.from_file(str(path)))[text] is kind
