"""Find the tokenizer that a command line names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from subvocab.errors import DataError


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
            f"{path} holds no tokenizer ({error}). Name a `tokenizer.json`, or the folder with one."
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


def load_training_tokenizer(name: str, model: Path) -> Any:
    """Load a tokenizer that can pad a batch.

    Args:
        name: As for `load_tokenizer`.
        model: The model's folder; its configuration tells the padding token that a lone
            ``tokenizer.json`` does not.

    Returns:
        A tokenizer of transformers.

    Raises:
        DataError: If there is none, or no padding token is known.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415
    from transformers import AutoConfig, PreTrainedTokenizerFast  # noqa: PLC0415

    tokenizer = load_tokenizer(name)
    if isinstance(tokenizer, Tokenizer):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    if tokenizer.pad_token_id is None:
        pad_id = AutoConfig.from_pretrained(model).pad_token_id
        if pad_id is None:
            raise DataError(
                f"Neither the tokenizer {name} nor the model in {model} names a padding token. Set "
                "`pad_token` in its `tokenizer_config.json`."
            )
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id)
    return tokenizer
