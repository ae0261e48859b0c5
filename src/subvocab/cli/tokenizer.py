"""Find the tokenizer that a command line names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subvocab.errors import DataError, VocabularyMismatchError, shortened

if TYPE_CHECKING:
    from subvocab.analysis.savings import ModelShape

NEEDED_TOKENS = {"pad_token": "a padding token", "eos_token": "a token for the end of a text"}


def load_tokenizer(name: str) -> Any:
    """Load a tokenizer.

    Args:
        name: A folder with a tokenizer, a ``tokenizer.json`` file, or a name on the Hub.

    Returns:
        A tokenizer of transformers; for a lone ``tokenizer.json`` one of `tokenizers`,
        since there is nothing that would tell transformers more.

    Raises:
        DataError: If there is none, or it cannot be read.
    """
    path = Path(name)
    if path.is_file():
        return _from_file(path)
    lone = path / "tokenizer.json"
    if lone.is_file() and not (path / "tokenizer_config.json").is_file():
        return _from_file(lone)
    if not path.exists() and (path.is_absolute() or name.startswith(".") or path.suffix):
        raise DataError(
            f"There is no tokenizer {name}. Name a folder, a file, or a name on the Hub."
        )
    return _from_pretrained(name)


def _from_file(path: Path) -> Any:
    """Read a tokenizer.json."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # it raises nothing narrower
        raise DataError(
            f"{path} holds no tokenizer ({shortened(error)}). Name a `tokenizer.json`, or "
            "the folder with one."
        ) from error


def _from_pretrained(name: str) -> Any:
    """Let transformers find a tokenizer."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # what is raised depends on the files, and on the network
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"No tokenizer could be loaded from {name}: {reason.rstrip('.')}. Name a folder with a "
            "`tokenizer.json`, or a name on the Hub that can be reached."
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # made up from the model's configuration
        raise DataError(
            f"No tokenizer lies in {name}: all that is known are {len(tokenizer)} special tokens. "
            "Name a folder with a `tokenizer.json`, or that file."
        )
    return tokenizer


def folder_of(model: str) -> str:
    """Name where the other files of a model lie, such as its tokenizer.

    Args:
        model: A folder, a file in it such as ``config.json``, or a name on the Hub.

    Returns:
        The folder of a file; anything else as it is.
    """
    path = Path(model)
    return str(path.parent) if path.is_file() else model


def check_rows(tokens: int, tokenizer: str, shape: ModelShape) -> None:
    """Refuse a vocabulary with ids that a model has no row for.

    Args:
        tokens: Of the vocabulary, whether these texts use them or not.
        tokenizer: Its tokenizer's name.
        shape: The model.

    Raises:
        VocabularyMismatchError: If the tokens are more than the rows of the matrix.
    """
    if tokens > shape.full_vocab_size:
        raise VocabularyMismatchError(
            f"The vocabulary of {tokenizer} has {tokens:,} tokens, but the embedding matrix of "
            f"`{shape.name}` has {shape.full_vocab_size:,} rows. Name a tokenizer and a model that "
            "were made for each other."
        )


def load_training_tokenizer(
    name: str, model: Path, *, needed: Sequence[str] = ("pad_token",)
) -> Any:
    """Load a tokenizer that training can use.

    Args:
        name: As for `load_tokenizer`.
        model: The model's folder; its configuration tells the special tokens that a lone
            ``tokenizer.json`` does not.
        needed: Special tokens to know: to pad a batch, ``pad_token``.

    Returns:
        A tokenizer of transformers.

    Raises:
        DataError: If there is none, or a token that is needed is not known.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415
    from transformers import AutoConfig, PreTrainedTokenizerFast  # noqa: PLC0415

    tokenizer = load_tokenizer(name)
    if isinstance(tokenizer, Tokenizer):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    for token in needed:
        if getattr(tokenizer, token) is None:
            ids = getattr(AutoConfig.from_pretrained(model), f"{token}_id", None)
            if ids is None:
                raise DataError(
                    f"Neither the tokenizer {name} nor the model in {model} names "
                    f"{NEEDED_TOKENS[token]}. Set `{token}` in its `tokenizer_config.json`."
                )
            first = ids[0] if isinstance(ids, list) else ids
            setattr(tokenizer, token, tokenizer.convert_ids_to_tokens(first))
    return tokenizer
