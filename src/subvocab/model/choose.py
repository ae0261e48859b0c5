"""Which tables of a model are shrunk, and which V′ each of them gets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from subvocab.errors import VocabularyMismatchError
from subvocab.model.head import HeadMode
from subvocab.model.tables import EmbeddingTable, find_per_layer_tables, find_tables
from subvocab.vocabulary import PartialVocabulary

LITTLE_GAINED = 0.9
"""Share of V from which on shrinking is hardly worth it."""


def choose_tables(
    model: nn.Module,
    vocabulary: PartialVocabulary | Mapping[str, PartialVocabulary],
    *,
    head: HeadMode,
) -> list[tuple[EmbeddingTable, PartialVocabulary]]:
    """Find the tables to shrink, and the V′ of each.

    Args:
        model: The model.
        vocabulary: V′, or one for each part of the model.
        head: What to make of output heads.

    Returns:
        Tables with their vocabularies, to which the tokens are added that the model may
        insert by itself.

    Raises:
        UnsupportedModelError: If a table is of a kind that cannot be shrunk.
        VocabularyMismatchError: If a vocabulary fits no table.
    """
    check_is_vocabulary(vocabulary)
    parts = vocabulary if isinstance(vocabulary, Mapping) else {None: vocabulary}
    chosen: dict[int, tuple[EmbeddingTable, PartialVocabulary]] = {}
    for part, own in parts.items():
        tables = find_tables(model, own.full_vocab_size, part=part, head=head)
        own = complete(own, model, tables)  # noqa: PLW2901 - the same, and more
        warn_if_little_is_gained(own)
        for table in tables:
            chosen[id(table.parameter)] = (table, own)
        for table in find_per_layer_tables(model, tables):
            ids = own.token_ids[own.token_ids < len(table.parameter)]
            chosen[id(table.parameter)] = (table, PartialVocabulary(ids, len(table.parameter)))
    return list(chosen.values())


def check_is_vocabulary(vocabulary: object) -> None:
    """Refuse what is no partial vocabulary, such as the counts that one is made of.

    Args:
        vocabulary: What was given as V′.

    Raises:
        VocabularyMismatchError: If it is neither one, nor one for each part of a model.
    """
    given = list(vocabulary.values()) if isinstance(vocabulary, Mapping) else [vocabulary]
    for one in given:
        if not isinstance(one, PartialVocabulary):
            raise VocabularyMismatchError(
                f"`vocabulary` is a `{type(one).__name__}`, expected a `PartialVocabulary`. "
                "Call `subvocab.scan(...).partial_vocabulary()`, or load one with "
                "`PartialVocabulary.load(path)`."
            )


def complete(
    vocabulary: PartialVocabulary, model: nn.Module, tables: list[EmbeddingTable]
) -> PartialVocabulary:
    """Add the tokens that a model may insert by itself.

    Args:
        vocabulary: V′ of the data.
        model: The model; its configurations name tokens as ``*_token_id``.
        tables: Its tables; their padding tokens are kept.

    Returns:
        V′ with those tokens and token 0, which some models put in place of images.
    """
    found = {0}
    for table in tables:
        found |= {m.padding_idx for m in table.owners.values() if m.padding_idx is not None}
    padding_ids: set[int] = set()
    configs = {
        id(config): config
        for module in model.modules()
        for config in (getattr(module, "config", None), getattr(module, "generation_config", None))
        if callable(getattr(config, "to_dict", None))
    }
    for config in configs.values():
        entries = config.to_dict() if config is not None else {}
        found |= _token_ids_named_in(entries)
        padding_ids |= _token_ids_named_in(entries, ending="pad_token_id")
    if find_per_layer_tables(model, tables):
        # Gemma 4 reads the padding token's row by its id, past the look-up: the two must agree.
        found |= set(range(max(found & padding_ids, default=0) + 1))
    inside = [i for i in sorted(found) if 0 <= i < vocabulary.full_vocab_size]
    return vocabulary.union(np.array(inside))


def _token_ids_named_in(
    config: dict[Any, Any], ending: tuple[str, ...] | str = ("_token_id", "_token_ids")
) -> set[int]:
    """Collect the values of every ``*_token_id`` entry, nested ones included."""
    found: set[int] = set()
    for key, value in config.items():
        if isinstance(value, dict):
            found |= _token_ids_named_in(value, ending)
        elif str(key).endswith(ending):
            values = value if isinstance(value, list | tuple) else [value]
            found |= {v for v in values if isinstance(v, int) and not isinstance(v, bool)}
    return found


def warn_if_little_is_gained(vocabulary: PartialVocabulary) -> None:
    """Warn where nearly every row is kept.

    Args:
        vocabulary: V′.
    """
    share = len(vocabulary) / vocabulary.full_vocab_size
    if share > LITTLE_GAINED:
        warnings.warn(
            f"The partial vocabulary holds {len(vocabulary):,} of {vocabulary.full_vocab_size:,} "
            f"tokens ({share:.0%}): the result is right, but little memory is saved.",
            stacklevel=4,
        )
