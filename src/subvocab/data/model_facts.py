"""What a model, or its configuration, tells about its tokens; neither is imported here."""

from __future__ import annotations

from typing import Any

from subvocab.errors import VocabularyMismatchError

LABELS = "labels"
"""What a model that predicts tokens calls those it is to predict."""


def rows_of(model: Any) -> int | None:
    """Find |V| in the configuration of a model.

    Args:
        model: A transformers model, its configuration, or None.

    Returns:
        The number of rows of its embedding matrix; None where it is not told.
    """
    config = getattr(model, "config", model)
    text_config = getattr(config, "get_text_config", lambda: config)()
    rows = getattr(text_config, "vocab_size", None)
    return rows if isinstance(rows, int) else None


def labels_of(model: Any) -> tuple[str, ...]:
    """Tell which columns of labels are token ids to a model.

    Args:
        model: A transformers model, or anything else.

    Returns:
        ``labels`` for a model with an output head over its tokens, else nothing.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return () if head is None else (LABELS,)


def check_tokenizer(tokenizer_size: int, rows: int) -> None:
    """Refuse a tokenizer some of whose ids have no row.

    Args:
        tokenizer_size: How many ids a tokenizer has.
        rows: Those of the model's embedding matrix.

    Raises:
        VocabularyMismatchError: If there are more ids than rows.
    """
    if tokenizer_size > rows:
        raise VocabularyMismatchError(
            f"The tokenizer has {tokenizer_size:,} ids, but the embedding matrix of the model "
            f"{rows:,} rows. Call `model.resize_token_embeddings(len(tokenizer))` before the model "
            "is shrunk; or, if the data use none of the ids beyond, pass "
            f"`full_vocab_size={rows}`."
        )
