"""Running text as rows of token ids, for causal and masked language models.

The tokenizer is the caller's; nothing is scanned here, and no batch is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from subvocab.errors import DataError

FEWEST_TOKENS = 2
"""A token, and the next one to foretell."""


def causal_rows(texts: Any, column: str, tokenizer: Any, max_length: int) -> Any:
    """Join texts end to end, and cut them into blocks of one length.

    Args:
        texts: A ``datasets.Dataset``.
        column: Its column of text; empty texts are passed over.
        tokenizer: Of transformers. Each text begins with its BOS, if it adds one, and ends
            with its EOS.
        max_length: Tokens a block.

    Returns:
        A ``datasets.Dataset`` with ``input_ids`` and ``labels``, which are the same; the
        last block is what remains. Cost: the ids are held in memory once.

    Raises:
        DataError: If there is no text, ``max_length`` leaves nothing to foretell, or the
            tokenizer names no EOS.
    """
    if max_length < FEWEST_TOKENS:
        raise DataError(
            f"`max_length` is {max_length}, expected {FEWEST_TOKENS} or more: each token is "
            "foretold from those before it in its block."
        )
    ends = {"begins": beginning_of_text(tokenizer), "ends": end_of_text(tokenizer)}
    encoded = _mapped(texts, _encode_whole, column=column, tokenizer=tokenizer, **ends)
    ids = pa.chunked_array(
        [chunk.flatten() for chunk in encoded.data.column("input_ids").chunks]
    ).to_numpy()
    if ids.size % max_length == 1:  # the last block would have nothing to foretell
        ids = ids[:-1]
    bounds = np.append(np.arange(0, ids.size, max_length), ids.size)
    rows = pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), pa.array(ids))
    return datasets.Dataset(pa.table({"input_ids": rows, "labels": rows}))


def masked_rows(texts: Any, column: str, tokenizer: Any, max_length: int) -> Any:
    """Encode texts one by one, each with its special tokens; a long one becomes several rows.

    Args:
        texts: A ``datasets.Dataset``.
        column: Its column of text; those without tokens are passed over.
        tokenizer: A fast one of transformers.
        max_length: Tokens a row, special tokens included.

    Returns:
        A ``datasets.Dataset`` with ``input_ids``.

    Raises:
        DataError: If there is no text, ``max_length`` leaves no room for it, or the
            tokenizer is a slow one.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"The tokenizer is a `{type(tokenizer).__name__}`, which cannot cut a long text into "
            "rows, expected a fast one. Give the folder of one with a `tokenizer.json`."
        )
    check_room(tokenizer, max_length)

    return _mapped(
        texts, _encode_in_pieces, column=column, tokenizer=tokenizer, max_length=max_length
    )


def check_room(tokenizer: Any, max_length: int, *, pair: bool = False) -> None:
    """See that text fits in beside the special tokens.

    Args:
        tokenizer: Of transformers.
        max_length: Tokens to truncate to.
        pair: Whether texts are encoded two by two.

    Raises:
        DataError: If it does not.
    """
    added = tokenizer.num_special_tokens_to_add(pair=pair)
    if max_length <= added:
        raise DataError(
            f"`max_length` is {max_length}, but the tokenizer adds {added} special tokens to "
            "each text. Leave room for more than those."
        )


def encode_bare(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Encode texts without special tokens around them, and truncate nothing.

    Args:
        tokenizer: Of transformers.
        texts: The texts.

    Returns:
        Their ids.
    """
    if not texts:
        return []
    # Not verbose: it would warn of texts longer than the model takes, which are cut later.
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def beginning_of_text(tokenizer: Any) -> list[int]:
    """Find what the tokenizer puts before a text.

    Args:
        tokenizer: Of transformers.

    Returns:
        Its BOS, if it adds one.
    """
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []


def end_of_text(tokenizer: Any) -> list[int]:
    """Find what ends a text.

    Args:
        tokenizer: Of transformers.

    Returns:
        Its EOS.

    Raises:
        DataError: If it names none.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(
            "The tokenizer names no token for the end of a text, which a language model learns to "
            "end with. Set `eos_token` in its `tokenizer_config.json`."
        )
    return [tokenizer.eos_token_id]


def _encode_whole(
    rows: Mapping[str, Any], *, column: str, tokenizer: Any, begins: list[int], ends: list[int]
) -> dict[str, list[list[int]]]:
    """Encode some texts, those without tokens left out."""
    encoded = encode_bare(tokenizer, rows[column])
    return {"input_ids": [[*begins, *ids, *ends] for ids in encoded if ids]}


def _encode_in_pieces(
    rows: Mapping[str, Any], *, column: str, tokenizer: Any, max_length: int
) -> dict[str, list[list[int]]]:
    """Encode some texts with special tokens, pieces without other tokens left out."""
    encoded = tokenizer(
        rows[column],
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
        return_special_tokens_mask=True,
    )
    marked = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return {"input_ids": [ids for ids, mask in marked if not all(mask)]}


def _mapped(texts: Any, encode: Any, **options: Any) -> Any:
    """Put rows of ids in the place of texts."""
    if not any(text and text.strip() for text in texts[options["column"]]):
        raise DataError("Every text is empty, expected words in one of them at least.")
    rows = texts.map(
        encode,
        batched=True,
        remove_columns=texts.column_names,
        fn_kwargs=options,
        desc="Tokenizing",
    )
    if not len(rows):
        raise DataError("No text has a token, expected some in one of them at least.")
    return rows
