"""sentence-transformers: its trainers tokenise texts while they train, so the scan does as they do.

Models of embeddings are fed by the trainer's collator, rerankers by their loss; both call the
model's own ``preprocess``, and what that gives is counted: with prompts, truncated, as in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from torch import Tensor, nn

from subvocab._progress import progress_bar
from subvocab.data.counting import Ids, TokenCounter, available_threads
from subvocab.data.encoding import special_token_ids
from subvocab.errors import UnsupportedModelError, listed
from subvocab.model.tables import find_lookups
from subvocab.vocabulary import PartialVocabulary, TokenCounts

BATCH_ROWS = 256


def scan_trainer(
    trainer: Any,
    *,
    tokenizer: Any = None,
    full_vocab_size: int | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> TokenCounts:
    """Count the tokens that a trainer of sentence-transformers will feed to its model.

    Args:
        trainer: A trainer of embedding models, sparse ones among them, or of rerankers. Its
            training data is read once; a stream must be one that can be read again.
        tokenizer: The model's own; names the special ids.
        full_vocab_size: |V|, by default the rows of the model's table.
        threads: How many count; by default as many as there are cores.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        The counts. Of a reranker, each text is counted beside the other texts of its row and
        by itself, since a loss may pair it with texts of other rows. What no attention is
        paid to is kept, not counted.

    Raises:
        DataError: If an id lies outside ``[0, |V|)``.
        UnsupportedModelError: If the trainer has no training data, or its model has tables of
            several sizes.

    Example:
        ``scan_trainer(trainer).partial_vocabulary()``, for `subvocab.shrink_trainer`.
    """
    size = full_vocab_size or _full_vocab_size(trainer.model)
    datasets = _datasets(trainer)
    unattended = special_token_ids(tokenizer, size)
    total = sum(len(one) for one in datasets if hasattr(one, "__len__")) or None
    with (
        TokenCounter(size, threads=threads or available_threads()) as counter,
        progress_bar("Scanning", total=total, enabled=progress) as advance,
    ):
        for dataset in datasets:
            for columns in dataset.iter(batch_size=BATCH_ROWS):
                rows = [
                    dict(zip(columns, row, strict=True))
                    for row in zip(*columns.values(), strict=True)
                ]
                for features in _features(trainer, rows):
                    seen, beside = _token_ids(features)
                    counter.add(Ids(seen, lambda _: "the training data"))
                    unattended = np.union1d(unattended, beside)
                advance(len(rows))
        return TokenCounts(counter.total(), unattended)


def prepare_trainer(
    trainer: Any,
    vocabulary: PartialVocabulary,  # noqa: ARG001 - every integration's signature
    options: Mapping[str, Any],  # noqa: ARG001
) -> None:
    """See that nothing but the model will train its table.

    Args:
        trainer: The trainer.
        vocabulary: V′.
        options: For `subvocab.shrink`.

    Raises:
        UnsupportedModelError: If a loss has a model of its own that shares the table.
    """
    losses = trainer.loss.values() if isinstance(trainer.loss, Mapping) else [trainer.loss]
    tables = {id(module.weight) for module in find_lookups(trainer.model)}
    own = set(trainer.model.modules())
    for loss in (loss for loss in losses if isinstance(loss, nn.Module)):
        for name, module in loss.named_modules():
            shared = any(id(p) in tables for p in module.parameters(recurse=False))
            if shared and module not in own:
                raise UnsupportedModelError(
                    f"`{name}` of `{type(loss).__name__}` shares the model's embedding matrix, and "
                    "would go on training the whole of it. Untie the two first, such as by "
                    "`tie_encoder_decoder=False`."
                )


def _full_vocab_size(model: nn.Module) -> int:
    """Find |V| in a model that may be made of several."""
    sizes = sorted({module.num_embeddings for module in find_lookups(model)})
    if len(sizes) != 1:
        heights = listed([f"{size:,}" for size in sizes]) or "no"
        raise UnsupportedModelError(
            f"`{type(model).__name__}` has embedding tables of {heights} rows, expected one size "
            "for all. Scan the texts of each vocabulary with its own tokenizer, and call "
            '`subvocab.shrink(model, {"query": …, "document": …})` with the names of the routes.'
        )
    return sizes[0]


def _datasets(trainer: Any) -> list[Any]:
    """Give the training data, each dataset by itself, since prompts may go by its name."""
    data = trainer.train_dataset
    if data is None:
        raise UnsupportedModelError(
            f"`{type(trainer).__name__}` has no `train_dataset` to scan. Give it one, or a "
            "`vocabulary` from `subvocab.scan`."
        )
    return list(data.values()) if isinstance(data, Mapping) else [data]


def _features(trainer: Any, rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Give what the model will be fed with for some rows."""
    batch = trainer.data_collator(rows)
    if not isinstance(trainer, CrossEncoderTrainer):
        features, _ = trainer.collect_features(batch)
        return features  # type: ignore[no-any-return]
    for name in ("dataset_name", "label"):
        batch.pop(name, None)
    how = {name: batch.pop(name, None) for name in ("prompt", "task")}
    pairs = list(chain.from_iterable(map(_pairs, *batch.values())))
    return [
        trainer.model.preprocess(pairs[i : i + BATCH_ROWS], **how)
        for i in range(0, len(pairs), BATCH_ROWS)
    ]


def _pairs(query: str, *documents: str | list[str]) -> Iterator[tuple[str, str]]:
    """Pair texts as the losses of rerankers do; a text alone is truncated the least."""
    yield (query, "")
    for document in documents:
        for text in [document] if isinstance(document, str) else document:
            yield (query, text)
            yield ("", text)


def _token_ids(features: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Give the ids that attention is paid to, and the distinct others, such as padding."""
    ids: Tensor | None = features.get("input_ids")
    if ids is None:  # a picture, or what else is no text
        return np.empty(0, np.int64), np.empty(0, np.int64)
    mask: Tensor | None = features.get("attention_mask")
    if mask is None:
        return ids.flatten().numpy(), np.empty(0, np.int64)
    return ids[mask > 0].numpy(), ids[mask == 0].unique().numpy()
