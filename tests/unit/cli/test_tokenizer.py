"""A tokenizer is found where the command line says, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from subvocab.analysis.savings import ModelShape
from subvocab.cli.tokenizer import (
    check_rows,
    folder_of,
    load_tokenizer,
    load_training_tokenizer,
)
from subvocab.errors import DataError, VocabularyMismatchError
from tests import tiny_tokenizers
from tests.models import tiny_config


@pytest.fixture
def lone(tmp_path: Path) -> Path:
    """Save a `tokenizer.json` in a folder of its own."""
    (tmp_path / "lone").mkdir()
    tiny_tokenizers.wordpiece().save(str(tmp_path / "lone" / "tokenizer.json"))
    return tmp_path / "lone"


def test_load_tokenizer_takes_a_folder(base: Path) -> None:
    """With a `tokenizer_config.json` transformers knows all there is to know."""
    assert isinstance(load_tokenizer(str(base)), PreTrainedTokenizerFast)


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_load_tokenizer_takes_a_lone_file(lone: Path, name: str) -> None:
    """A `tokenizer.json` is enough, named itself or by its folder."""
    tokenizer = load_tokenizer(str(lone / name))

    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.get_vocab() == Tokenizer.from_file(str(lone / "tokenizer.json")).get_vocab()


def test_load_tokenizer_refuses_one_that_is_made_up(tmp_path: Path) -> None:
    """From a configuration alone transformers makes a tokenizer that knows no word."""
    tiny_config("bert").save_pretrained(tmp_path)

    with pytest.raises(DataError) as caught:
        load_tokenizer(str(tmp_path))

    assert str(caught.value) == (
        f"No tokenizer lies in {tmp_path}: all that is known are 5 special tokens. Name a folder "
        "with a `tokenizer.json`, or that file."
    )


def test_load_tokenizer_refuses_what_is_not_there(tmp_path: Path) -> None:
    """A path is not looked for on the Hub."""
    with pytest.raises(DataError) as caught:
        load_tokenizer(str(tmp_path / "none"))

    assert str(caught.value) == (
        f"There is no tokenizer {tmp_path / 'none'}. Name a folder, a file, or a name on the Hub."
    )


def test_folder_of_takes_a_file_for_its_folder(base: Path) -> None:
    """Folders, and names on the Hub, stay."""
    assert folder_of(str(base / "config.json")) == str(base)
    assert folder_of(str(base)) == str(base)
    assert folder_of("FacebookAI/roberta-base") == "FacebookAI/roberta-base"


def test_check_rows_refuses_a_token_without_a_row() -> None:
    """As many rows as tokens are enough."""
    shape = ModelShape("small", 1_000, ())

    check_rows(1_000, "tiny", shape)
    with pytest.raises(VocabularyMismatchError) as caught:
        check_rows(1_001, "tiny", shape)

    assert str(caught.value) == (
        "The vocabulary of tiny has 1,001 tokens, but the embedding matrix of `small` has 1,000 "
        "rows. Name a tokenizer and a model that were made for each other."
    )


def test_load_training_tokenizer_takes_the_padding_of_the_model(base: Path, lone: Path) -> None:
    """A lone file names no padding token; the model's configuration does."""
    tokenizer = load_training_tokenizer(str(lone), base)

    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", 0)


def test_load_training_tokenizer_needs_a_padding_token(tmp_path: Path, lone: Path) -> None:
    """Texts of different lengths make no batch without one."""
    tiny_config("bert", pad_token_id=None).save_pretrained(tmp_path)

    with pytest.raises(DataError) as caught:
        load_training_tokenizer(str(lone), tmp_path)

    assert str(caught.value) == (
        f"Neither the tokenizer {lone} nor the model in {tmp_path} names a padding token. Set "
        "`pad_token` in its `tokenizer_config.json`."
    )
