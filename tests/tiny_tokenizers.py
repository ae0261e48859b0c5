"""Tiny tokenizers of every family, built in code: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps

from tokenizers import (
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "the cat sat on the mat, the dog didn't",
    "a naïve café in São Paulo: 12 cups, 345 grams",
    "日本語 and 中文 in one line; the end of it",
    "a    b    c    d \n\n \n\n e",  # so that white space has tokens of its own
]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
BERT_SPECIAL = [*SPECIAL.values(), "[CLS]", "[SEP]"]


def _always_alike(build: Callable[[], Tokenizer]) -> Callable[[], Tokenizer]:
    """Train once a process: where pieces are equally frequent, training chooses by chance."""
    trained = cache(lambda: build().to_str())

    @wraps(build)
    def copy_of_it() -> Tokenizer:
        return Tokenizer.from_str(trained())

    return copy_of_it


@_always_alike
def wordpiece() -> Tokenizer:
    """Build a tokenizer as BERT's.

    Returns:
        A WordPiece tokenizer with special tokens around a text and between a pair.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=180, special_tokens=BERT_SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


@_always_alike
def byte_level() -> Tokenizer:
    """Build a tokenizer as GPT-2's.

    Returns:
        A byte-level BPE tokenizer that adds no special tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """Build a tokenizer as XLM-RoBERTa's, without its table of characters.

    Returns:
        A Unigram tokenizer over words split at white space.
    """
    letters = sorted(set("".join(CORPUS)) - {" ", "\n"})
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁the", "at", "▁c", "▁d", "in", "é", *letters]
    vocabulary = [(piece, -float(rank)) for rank, piece in enumerate(dict.fromkeys(pieces))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    return tokenizer


def as_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Give a tokenizer the interface of transformers.

    Args:
        tokenizer: One of the above.

    Returns:
        A fast tokenizer that knows its special tokens by role.
    """
    roles = {
        "[PAD]": "pad_token",
        "[UNK]": "unk_token",
        "[MASK]": "mask_token",
        "[CLS]": "cls_token",
        "[SEP]": "sep_token",
        "<s>": "bos_token",
        "</s>": "eos_token",
        "<pad>": "pad_token",
        "<unk>": "unk_token",
        "<|endoftext|>": "eos_token",
    }
    known = {
        role: token for token, role in roles.items() if tokenizer.token_to_id(token) is not None
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **known)
