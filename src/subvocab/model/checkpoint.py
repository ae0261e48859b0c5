"""Compact checkpoints: the learned rows and the body only, made whole again on disk.

Whole checkpoints need nothing from here: a shrunk model's ``state_dict`` and
``save_pretrained`` give the whole model (see `subvocab.model.embedding`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from subvocab._atomic import replacing
from subvocab._typing import StrPath
from subvocab.errors import CheckpointError, UnsupportedModelError, VocabularyMismatchError, listed
from subvocab.model.load import local_folder
from subvocab.model.partial import SHIFT_KEY, TOKEN_IDS_KEY
from subvocab.model.shrink import partial_tables, vocabulary_of
from subvocab.model.tensors import STORED_DTYPES, TORCH_DTYPES, converted, shifted, torch_dtype
from subvocab.storage import Checkpoint, FullMatrix, expand_checkpoint, read_checkpoint
from subvocab.vocabulary import PartialVocabulary

VOCABULARY_FILE = "vocabulary.safetensors"
DESCRIPTION_FILE = "subvocab.json"
FORMAT_VERSION = 2


@contextmanager
def compact_state_dicts(model: nn.Module) -> Iterator[None]:
    """Make a shrunk model's state dicts compact for a while: E′ and its token ids, not E.

    Args:
        model: A model from `shrink` or `from_pretrained`.

    Yields:
        Nothing; inside, ``state_dict`` and all that is built on it are compact.

    Raises:
        UnsupportedModelError: If the model is not shrunk.
    """
    vocabulary_of(model)  # raises if there is none
    tables = {module.table for module in partial_tables(model).values()}
    for table in tables:
        table.compact = True
    try:
        yield
    finally:
        for table in tables:
            table.compact = False


def compact_state_dict(model: nn.Module) -> dict[str, Any]:
    """Give the learned rows, their token ids and the body of a shrunk model.

    Args:
        model: A model from `shrink` or `from_pretrained`.

    Returns:
        A state dict that ``load_state_dict`` of a model shrunk with the same V′ accepts,
        and that of any other refuses.

    Raises:
        UnsupportedModelError: If the model is not shrunk.
    """
    with compact_state_dicts(model):
        return model.state_dict()


def save_compact(model: PreTrainedModel, folder: StrPath, **kwargs: Any) -> None:
    """Save only the learned rows and the body of a shrunk model.

    Args:
        model: A model from `shrink` or `from_pretrained`.
        folder: Where. Beside the files of ``save_pretrained`` it gets V′
            (``vocabulary.safetensors``) and what `merge` needs to know of the base
            (``subvocab.json``).
        **kwargs: For ``save_pretrained``.

    Raises:
        CheckpointError: If the matrix was saved under a name that is not the model's own.
        UnsupportedModelError: If the model is not shrunk, or has no ``save_pretrained``.
    """
    if not hasattr(model, "save_pretrained"):
        raise UnsupportedModelError(
            f"`{type(model).__name__}` has no `save_pretrained`, expected a transformers model. "
            "Save `subvocab.compact_state_dict(model)` with torch instead."
        )
    folder = Path(folder)
    vocabulary = vocabulary_of(model)
    if any(module.table.adopted for module in partial_tables(model).values()):
        warnings.warn(
            f"The unused rows are no longer those of {model.config.name_or_path}, but those of the "
            "checkpoint that was loaded since. Keep that checkpoint: `merge` needs it as the base.",
            stacklevel=2,
        )
    with compact_state_dicts(model):
        model.save_pretrained(folder, **kwargs)
    vocabulary.save(folder / VOCABULARY_FILE)
    description = {
        "format_version": FORMAT_VERSION,
        "base": model.config.name_or_path,
        "vocabulary_fingerprint": vocabulary.fingerprint,
        "tables": _saved_tables(model, folder),
    }
    with replacing(folder / DESCRIPTION_FILE) as staged:
        staged.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _saved_tables(model: PreTrainedModel, folder: Path) -> dict[str, dict[str, Any]]:
    """Describe the tables of a checkpoint; of the names of a tied one, the one that was saved."""
    saved = read_checkpoint(folder).tensors
    tables: dict[str, dict[str, Any]] = {}
    shifts = _saved_shifts(model, saved)
    missing = {id(m.weight): name for name, m in partial_tables(model).items()}
    for name, module in partial_tables(model).items():
        if f"{name}.weight" in saved:
            missing.pop(id(module.weight), None)
            tables[f"{name}.weight"] = {
                "dtype": STORED_DTYPES[module.weight.dtype],
                "base_dtype": module.table.matrix.dtype,
                "base_fingerprint": module.table.matrix.fingerprint,
                "full_vocab_size": module.table.vocabulary.full_vocab_size,
                "token_ids": f"{name}.{TOKEN_IDS_KEY}",
            }
            if id(module.weight) in shifts:
                tables[f"{name}.weight"]["rest_shift"] = shifts[id(module.weight)]
    if missing:
        raise CheckpointError(
            f"`{listed(list(missing.values()))}.weight` was saved in {folder} under another name, "
            "so it could not be merged. Save the model whole with `save_pretrained`."
        )
    return tables


def _saved_shifts(model: PreTrainedModel, saved: Collection[str]) -> dict[int, str]:
    """Name the saved rest shifts, by the table they belong to."""
    return {
        id(module.weight): f"{name}.{SHIFT_KEY}"
        for name, module in partial_tables(model).items()
        if f"{name}.{SHIFT_KEY}" in saved
    }


def merge(compact: StrPath, *, base: StrPath, out: StrPath, progress: bool = True) -> Path:
    """Write a whole model from a compact checkpoint and the model it came from, on disk.

    Args:
        compact: A folder that `save_compact` wrote.
        base: The model that was shrunk: a folder, or a name on the Hub. It is only read.
        out: The folder to write; it must not exist, or be empty.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        ``out``. It holds the compact checkpoint's files with the matrix whole, and those
        files of the base that it lacks, such as the tokenizer. Cost: the time to copy
        the base; memory for the learned rows.

    Raises:
        CheckpointError: If a checkpoint is missing or damaged, the disk is full, or
            ``out`` holds something.
        VocabularyMismatchError: If the base is another model than the one shrunk.

    Source:
        §4 "After fine-tuning": E[f⁻¹(j)] = E′[j], all other rows as they were.
    """
    compact, out = Path(compact), Path(out)
    description = read_description(compact)
    vocabulary = PartialVocabulary.load(compact / VOCABULARY_FILE)
    if vocabulary.fingerprint != description["vocabulary_fingerprint"]:
        raise VocabularyMismatchError(
            f"{compact / VOCABULARY_FILE} is not the vocabulary that {DESCRIPTION_FILE} names. "
            "Save the compact checkpoint anew."
        )
    base_folder = local_folder(base)
    base_checkpoint = read_checkpoint(base_folder)
    tables = {}
    dropped = {n for n in read_checkpoint(compact).tensors if n.endswith(f".{TOKEN_IDS_KEY}")}
    for name, table in description["tables"].items():
        beside = _read_tensors(compact, {table["token_ids"], table.get("rest_shift")} - {None})
        own = PartialVocabulary(beside[table["token_ids"]].numpy(), table["full_vocab_size"])
        matrix = _base_matrix(base_checkpoint, table)
        if "rest_shift" in table:
            dropped.add(table["rest_shift"])
            matrix = shifted(matrix, beside[table["rest_shift"]])
        tables[name] = (matrix, own)
    expand_checkpoint(
        compact,
        out,
        tables,
        dropped_tensors=dropped,
        extra_files_from=base_folder,
        exclude={VOCABULARY_FILE, DESCRIPTION_FILE},
        progress=progress,
    )
    return out


def read_description(folder: Path) -> dict[str, Any]:
    """Read what a compact checkpoint says of itself.

    Args:
        folder: A folder that `save_compact` wrote.

    Returns:
        The content of ``subvocab.json``.

    Raises:
        CheckpointError: If it is no compact checkpoint, or one of a newer format.
    """
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is no compact checkpoint: it has no {DESCRIPTION_FILE}. A whole checkpoint "
            "needs no merging; a compact one is written by `subvocab.save_compact`."
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format_version"]
        if version == FORMAT_VERSION:
            for table in description["tables"].values():
                _check_description(table)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}). Save the model anew.") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, expected {FORMAT_VERSION}. "
            "Use the version of subvocab that wrote it."
        )
    return description  # type: ignore[no-any-return]


def _check_description(table: dict[str, Any]) -> None:
    """Refuse what cannot be the description of a table."""
    known = {table["dtype"], table["base_dtype"]} <= TORCH_DTYPES.keys()
    texts = (table["base_fingerprint"], table["token_ids"], table.get("rest_shift", ""))
    sized = isinstance(table["full_vocab_size"], int)
    if not (known and sized and all(isinstance(text, str) for text in texts)):
        raise ValueError(f"a table is described as {table}")


def _read_tensors(folder: Path, names: set[str]) -> dict[str, torch.Tensor]:
    """Read small tensors of a checkpoint."""
    checkpoint = read_checkpoint(folder)
    found = {}
    for name in names:
        with safe_open(checkpoint.find_tensor(name).path, "pt") as file:
            found[name] = file.get_tensor(name)
    return found


def _base_matrix(base: Checkpoint, table: dict[str, Any]) -> FullMatrix:
    """Find E in the base by its content, whatever its name there, in the dtype of the rows."""
    size = table["full_vocab_size"]
    tall = [t for t in base.tensors.values() if t.shape[:1] == (size,)]
    candidates = [FullMatrix(tensor) for tensor in tall if len(tensor.shape) == 2]  # noqa: PLR2004
    wanted = table["base_fingerprint"]
    for matrix in candidates:
        if matrix.fingerprint == wanted:
            return converted(matrix, torch_dtype(table["dtype"]))
    for matrix in candidates:  # the model may have been cast before it was shrunk
        if matrix.dtype != table["base_dtype"]:
            cast = converted(matrix, torch_dtype(table["base_dtype"]))
            if cast.fingerprint == wanted:
                return converted(cast, torch_dtype(table["dtype"]))
    names = listed([f"`{tensor.name}`" for tensor in tall]) or "none"
    raise VocabularyMismatchError(
        f"No matrix in {base.folder} is the one that was shrunk; of "
        f"{size:,} rows there: {names}. Give as base the very model that "
        "training started from."
    )
