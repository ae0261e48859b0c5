"""What a data loader's collator brings into batches that no column of a dataset shows.

Padding, masks, labels shifted into the decoder's input, prompts, random words: the collator runs
over a sample of rows, several times. What comes up every time belongs in V′; what comes and goes
is drawn at random, and can only be told. Torch is not imported here: a collator that makes
tensors has done so.
"""

from __future__ import annotations

import copy
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from subvocab.data.arrow import as_array, token_ids
from subvocab.data.counting import IGNORED_LABEL
from subvocab.data.sources import has_columns
from subvocab.errors import DataError, listed
from subvocab.vocabulary import TokenCounts

SAMPLE_ROWS, BATCH_ROWS = 256, 8
ROUNDS = 4
"""A word drawn at random must come up in each of them to be taken for one that always comes."""
TOKENS_END_IN = "input_ids"
WRAPPED = ("data_collator", "collate_fn", "collator")
"""Where a collator that calls another keeps it."""
GENERATORS = ("Generator", "Random", "RandomState")

logger = logging.getLogger("subvocab")


@dataclass(frozen=True)
class CollatorFindings:
    """What came up in the batches of a sample.

    Attributes:
        collator: Its name.
        always: Ids that came up in every round, ascending.
        sometimes: Ids that came up in some rounds alone, ascending.
        rows: How many rows the sample has.
    """

    collator: str
    always: Int64[np.ndarray, "always"]
    sometimes: Int64[np.ndarray, "sometimes"]
    rows: int

    def added_to(self, counts: TokenCounts) -> TokenCounts:
        """Keep the ids that always come beside the special ones of some counts.

        Args:
            counts: The counts of all rows.

        Returns:
            The same counts with more special ids. A warning tells of ids outside V′ that are
            drawn at random.

        Raises:
            DataError: If an id is no token of V.
        """
        found = np.union1d(self.always, self.sometimes)
        outside = found[(found < 0) | (found >= counts.full_vocab_size)]
        if outside.size:
            raise DataError(
                f"Token ids {listed(outside.tolist())} from the collator `{self.collator}` lie "
                f"outside the vocabulary of {counts.full_vocab_size:,}. Give the `full_vocab_size` "
                "of the model, which is the number of rows of its embedding matrix."
            )
        kept = np.union1d(np.flatnonzero(counts.counts), counts.special_token_ids)
        added, drawn = np.setdiff1d(self.always, kept), np.setdiff1d(self.sometimes, kept)
        if added.size:
            logger.info("`%s` adds tokens: %s", self.collator, listed(added.tolist()))
        if drawn.size:
            warnings.warn(
                f"The collator `{self.collator}` draws tokens at random: over {self.rows:,} rows "
                f"{drawn.size:,} ids outside the partial vocabulary came up in some rounds and not "
                f"in others: {listed(drawn.tolist())}. Training stops at such a token. Let "
                "`subvocab.PartialMaskingCollator` draw from the partial vocabulary, draw none "
                "(`random_replace_prob=0.0`), or shrink with `out_of_vocabulary='frozen'`.",
                stacklevel=4,
            )
        return TokenCounts(counts.counts, np.union1d(counts.special_token_ids, added))


def run_collator(
    collator: Callable[[list[Any]], Any], source: Any, *, names: Sequence[str] = ()
) -> tuple[CollatorFindings, Any]:
    """Run a collator over a sample of rows; generators of random numbers stay as they are.

    Args:
        collator: Makes a batch of a list of rows.
        source: As for `subvocab.scan`, but with rows: no path.
        names: What holds token ids in a batch, besides all that ends in ``input_ids``. -100
            is passed over.

    Returns:
        What came up, and the source to scan, with the sampled rows back in their place.

    Raises:
        DataError: If the source has no rows to pass, the collator fails on them, or its
            batches have no token ids; names the collator.
    """
    name = _name_of(collator)
    rounds = []
    with _generators_kept():
        splits, source = _sample(source)
        batches = [
            rows[first::count]  # from all over the sample, so that lengths differ
            for rows in splits
            for count in [-(-len(rows) // BATCH_ROWS)]
            for first in range(count)
        ]
        own = _with_own_generators(collator)
        for seed in range(ROUNDS):
            _seed(seed)
            found = [_ids_of(own, rows, name, names) for rows in batches]
            rounds.append(np.unique(np.concatenate([np.empty(0, np.int64), *found])))
    ids, times = np.unique(np.concatenate(rounds), return_counts=True)
    always = times == ROUNDS
    return CollatorFindings(name, ids[always], ids[~always], sum(map(len, splits))), source


def _ids_of(
    collator: Callable[[list[Any]], Any], rows: list[Any], name: str, names: Sequence[str]
) -> Int64[np.ndarray, "ids"]:
    """Collate some rows and take the token ids out of the batch, each once."""
    try:
        batch = collator(list(rows))
    except Exception as error:
        raise DataError(
            f"The collator `{name}` failed on {len(rows)} rows of the source: "
            f"{type(error).__name__}: {str(error).rstrip('.')}. Give it the rows that the data "
            "loader will: remove columns that are no use to it, encode texts first. Or scan "
            "without `collator`, and name what it adds in `partial_vocabulary(extra_token_ids)`."
        ) from error
    found = list(_token_arrays(batch, name, names))
    if not found:
        told = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise DataError(
            f"The collator `{name}` makes batches without `{TOKENS_END_IN}`: {told}. Let it name "
            "the token ids, as in `collator=lambda rows: {'input_ids': collate(rows)[0]}`."
        )
    ids: np.ndarray = np.unique(np.concatenate(found)).astype(np.int64)
    return np.asarray(ids[ids != IGNORED_LABEL])


def _token_arrays(batch: Any, name: str, names: Sequence[str]) -> Iterator[np.ndarray]:
    """Find the token ids of a batch: under their names, or alone."""
    if isinstance(batch, Mapping):
        for key, value in batch.items():
            if isinstance(value, Mapping):
                yield from _token_arrays(value, name, names)
            elif value is not None and (str(key).endswith(TOKENS_END_IN) or key in names):
                yield _flat(value, name, key)
    elif isinstance(batch, list | tuple) and any(isinstance(part, Mapping) for part in batch):
        for part in batch:
            if isinstance(part, Mapping):
                yield from _token_arrays(part, name, names)
    elif not isinstance(batch, tuple):
        yield _flat(batch, name, "")


def _flat(value: Any, name: str, key: str) -> np.ndarray:
    """Lay the ids of an array, tensor or list side by side."""
    value = value.cpu() if hasattr(value, "cpu") else value
    try:
        ids: np.ndarray = token_ids(as_array(value))
    except DataError as error:
        what = f"`{key}` of a batch" if key else "A batch"
        raise DataError(
            f"{what} of the collator `{name}` {error}. Let it name the token ids, as in "
            "`collator=lambda rows: {'input_ids': collate(rows)[0]}`."
        ) from error
    return ids


def _sample(source: Any) -> tuple[list[list[Any]], Any]:
    """Take rows as a data loader does, from all over each split or from the start of a stream."""
    if isinstance(source, Mapping) and any(map(has_columns, source.values())):
        parts = {split: _sample(value) for split, value in source.items()}
        splits = [rows for sampled, _ in parts.values() for rows in sampled]
        return splits, {split: rest for split, (_, rest) in parts.items()}
    if isinstance(source, Iterator):
        rows = list(islice(source, SAMPLE_ROWS))
        return [rows], chain(rows, source)
    return [_rows_of(source)], source


def _rows_of(source: Any) -> list[Any]:
    """Take some rows of what can be read again."""
    if isinstance(source, Mapping):
        places = _places(min(map(len, source.values()), default=0))
        return [{key: rows[at] for key, rows in source.items()} for at in places]
    if isinstance(source, pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray):
        return list(source.take(pa.array(_places(len(source)), pa.int64())).to_pylist())
    if isinstance(source, str | os.PathLike):
        raise DataError(
            f"{os.fspath(source)} is a path, whose rows no collator can be given. Load it, as with "
            "`datasets.load_dataset`, and scan what was loaded."
        )
    if hasattr(type(source), "__len__") and hasattr(type(source), "__getitem__"):
        return [source[at] for at in _places(len(source))]
    if hasattr(source, "take"):  # a stream of `datasets`, or a dataset of Ray
        return list(source.take(SAMPLE_ROWS))
    # What is nothing of all this is refused when it is scanned.
    return list(islice(source, SAMPLE_ROWS)) if isinstance(source, Iterable) else []


def _places(count: int) -> list[int]:
    """Spread a sample over some rows; the first and the last are in it."""
    places: list[int] = np.unique(
        np.linspace(0, count - 1, min(count, SAMPLE_ROWS), dtype=int)
    ).tolist()
    return places


def _name_of(collator: Any) -> str:
    """Name a collator, or the one inside it: Trainers wrap theirs."""
    for inside in (getattr(collator, attribute, None) for attribute in WRAPPED):
        if inside is not None:
            return _name_of(inside)
    return str(getattr(collator, "__name__", type(collator).__name__))


def _with_own_generators(collator: Any) -> Any:
    """Copy a collator, not what it refers to, except generators and a collator inside it."""
    twin = copy.copy(collator)
    if twin is collator:  # a function
        return collator
    for name, value in getattr(twin, "__dict__", {}).items():
        if type(value).__name__ in GENERATORS:
            vars(twin)[name] = copy.deepcopy(value)
        elif name in WRAPPED:
            vars(twin)[name] = _with_own_generators(value)
    return twin


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Set the generators of Python, NumPy and torch back to where they were."""
    torch = sys.modules.get("torch")
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    of_torch = torch and torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        if torch:
            torch.set_rng_state(of_torch)


def _seed(seed: int) -> None:
    """Let all processes draw the same, so that they come to the same V′."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` reaches accelerators too
