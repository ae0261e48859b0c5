"""Scan a stream that may be interrupted: counts and place are kept in one file.

The place is what ``IterableDataset.state_dict`` tells. Counts are a sum over stretches of the
stream; the file is replaced after each, so it always holds a sum and the place it belongs to.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subvocab._progress import progress_bar
from subvocab.data import encoding, hugging_face
from subvocab.data.columns import choose_columns
from subvocab.data.parts import part_of_batches
from subvocab.data.recipe import Recipe
from subvocab.errors import DataError
from subvocab.vocabulary import TokenCounts, VocabularyGrowth
from subvocab.vocabulary.record import fingerprint, load_value, save_record

KIND = "scan_progress"
STRETCH_SECONDS = 30.0
SHUFFLED = "BufferShuffledExamplesIterable"


@dataclass(frozen=True)
class ScanProgress:
    """How far a scan has come.

    Attributes:
        scanned: What was counted: `TokenCounts`, or `VocabularyGrowth`.
        place: Where the stream goes on, and what must be the same then: values of JSON.
    """

    scanned: Any
    place: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Name of this value."""
        return fingerprint(*(array.astype(np.int64) for array in self._arrays().values()))

    def _arrays(self) -> dict[str, np.ndarray]:
        counts = self.scanned
        arrays = {}
        if isinstance(counts, VocabularyGrowth):
            arrays["first_seen"] = counts.first_seen
            counts = counts.counts
        place = json.dumps(self.place, default=lambda value: value.tolist())
        return {
            **arrays,
            "counts": counts.counts,
            "special_token_ids": counts.special_token_ids,
            "place": np.frombuffer(place.encode(), dtype=np.uint8),
        }

    def save(self, path: Path) -> None:
        """Write to a safetensors file, all at once or not at all.

        Args:
            path: The file; what it held is replaced.
        """
        save_record(path, KIND, self._arrays(), fingerprint=self.fingerprint)

    @classmethod
    def load(cls, path: Path) -> ScanProgress:
        """Read what ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The progress.

        Raises:
            CheckpointError: If the file is damaged, or holds something else.
        """
        return load_value(path, KIND, cls._of_arrays)

    @classmethod
    def _of_arrays(cls, held: Mapping[str, np.ndarray]) -> ScanProgress:
        scanned: Any = TokenCounts(held["counts"], held["special_token_ids"])
        if "first_seen" in held:
            scanned = VocabularyGrowth(scanned, held["first_seen"])
        return cls(scanned, json.loads(held["place"].tobytes()))


class _Stretch:
    """Passes batches on for some time, and remembers how many rows, and whether the end came."""

    def __init__(self, batches: Iterator[Mapping[str, Any]]) -> None:
        self.rows = 0
        self.finished = False
        self._batches = batches
        self._ends = time.monotonic() + STRETCH_SECONDS

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for batch in self._batches:
            self.rows += len(next(iter(batch.values()), ()))
            yield batch
            if time.monotonic() >= self._ends:
                return
        self.finished = True


def count_resumably(
    dataset: Any, recipe: Recipe, path: Path, *, threads: int, progress: bool
) -> TokenCounts | VocabularyGrowth:
    """Count a stream, from where the file says if it exists.

    Args:
        dataset: An ``IterableDataset``; its own place stays as it is.
        recipe: What to count.
        path: Where counts and place are kept. It stays when all is counted.
        threads: How many count.
        progress: Whether to show a progress bar.

    Returns:
        As `Recipe.count`.

    Raises:
        DataError: If the source has no place to go on from, or the file is that of another
            scan; tells what differs.
        CheckpointError: If the file is damaged, or holds something else.
    """
    _check_has_a_place(dataset)
    stream = copy.copy(dataset)
    stream.__dict__ = dict(vars(dataset))  # a copy shares it, and with it the place
    recipe, same = _start(stream, recipe)
    kept = ScanProgress(
        recipe.count([], threads=1, advance=lambda _amount: None),
        {"same": same, "rows": 0, "finished": False, "state": None},
    )
    if path.exists():
        kept = ScanProgress.load(path)
        _check_same(kept.place["same"], same, path)
        stream.load_state_dict(kept.place["state"])
    batches = hugging_face.batches_of(stream)
    with progress_bar("Scanning", total=None, enabled=progress) as advance:
        while not kept.place["finished"]:
            stretch, rows = _Stretch(batches), kept.place["rows"]
            part = part_of_batches(iter(stretch), first_row=rows)
            scanned = kept.scanned + recipe.count([part], threads=threads, advance=advance)
            place = {
                "same": same,
                "rows": rows + stretch.rows,
                "finished": stretch.finished,
                "state": stream.state_dict(),
            }
            kept = ScanProgress(scanned, place)
            kept.save(path)
    return kept.scanned  # type: ignore[no-any-return]


def _check_has_a_place(dataset: Any) -> None:
    """Refuse what cannot go on where it stopped."""
    if not hugging_face.is_iterable_dataset(dataset):
        raise DataError(
            f"A `{type(dataset).__name__}` cannot tell how far it was read, so `resume` needs an "
            "`IterableDataset`: `load_dataset(..., streaming=True)` reads files so, and "
            "`Dataset.to_iterable_dataset()` makes one."
        )
    if SHUFFLED in hugging_face.steps_of(dataset):
        raise DataError(
            "The stream is shuffled through a buffer, the rows of which would be lost when it goes "
            "on. Scan it before `shuffle`: counts do not depend on the order."
        )


def _start(stream: Any, recipe: Recipe) -> tuple[Recipe, dict[str, Any]]:
    """Read the first rows, to fix the columns and to know the scan again.

    What functions the stream calls is not looked into: the first rows show what they do.
    """
    first = next(hugging_face.batches_of(stream), None)
    part = part_of_batches(iter([] if first is None else [first]))
    chosen = choose_columns(part, recipe.wanted)
    recipe = recipe.of_columns(chosen)
    rows = [batch.table.to_pydict() for batch in part.read(chosen.names)]
    sent = encoding.sendable(recipe.tokenizer)
    if not isinstance(sent, encoding.SentTokenizer | None):
        sent = type(sent).__qualname__, len(sent), sorted(sent.get_vocab().items())
    same = {
        "columns": chosen.names,
        "label columns": list(chosen.labels),
        "files or steps of the stream": _hashed(repr(hugging_face.steps_of(stream))),
        "number of shards": stream.num_shards,
        "first rows": _hashed(json.dumps(rows)),
        "tokenizer": _hashed(repr(sent)),
        "full_vocab_size": recipe.full_vocab_size,
        "max_length": recipe.max_length,
        "growth": recipe.notes_first,
        "special token ids": recipe.special_token_ids.tolist(),
    }
    return recipe, same


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check_same(kept: Mapping[str, Any], same: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with another scan."""
    different = [name for name in same if kept.get(name) != same[name]]
    if different:
        raise DataError(
            f"{path} keeps another scan: it differs in {', '.join(different)}. Go on with the "
            "same source, tokenizer and options, or name another file."
        )
