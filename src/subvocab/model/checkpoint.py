"""Compact checkpoints: the learned rows and the body only, made whole again on disk.

Whole checkpoints need nothing from here: a shrunk model's ``state_dict`` and
``save_pretrained`` give the whole model (see `subvocab.model.embedding`).
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from subvocab._atomic import replacing, replacing_folder
from subvocab._typing import StrPath
from subvocab.errors import CheckpointError, UnsupportedModelError, listed
from subvocab.model.adapters import MODEL, is_a
from subvocab.model.partial import SHIFT_KEY, TOKEN_IDS_KEY, is_compact
from subvocab.model.shrink import partial_tables, vocabulary_of
from subvocab.model.tensors import STORED_DTYPES
from subvocab.storage import FullMatrix, read_checkpoint

VOCABULARY_FILE = "vocabulary.safetensors"
DESCRIPTION_FILE = "subvocab.json"
FORMAT_VERSION = 2
WEIGHTS = re.compile(r"model(\.\w+)?(-\d+-of-\d+)?\.safetensors(\.index(\.\w+)?\.json)?")
"""Files of weights, as transformers names them."""


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
    _set_compact(model, compact=True)
    try:
        yield
    finally:
        _set_compact(model, compact=False)


@contextmanager
def next_state_dict_compact(model: nn.Module) -> Iterator[None]:
    """Make the next state dict of a shrunk model compact, if it comes, and no other.

    Args:
        model: A model from `shrink` or `from_pretrained`.

    Yields:
        Nothing; inside, the first ``state_dict`` of the model is compact.
    """
    handle = model.register_state_dict_post_hook(_end_compact)
    _set_compact(model, compact=True)
    try:
        yield
    finally:
        handle.remove()
        _set_compact(model, compact=False)


def _end_compact(model: nn.Module, *_: object) -> None:
    """Make state dicts whole again, now that one was made."""
    _set_compact(model, compact=False)


def _set_compact(model: nn.Module, *, compact: bool) -> None:
    """Make state dicts compact, or whole."""
    for module in partial_tables(model).values():
        module.table.compact = compact


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
            (``subvocab.json``). A checkpoint that lies there is replaced, all at once.
        **kwargs: For ``save_pretrained``.

    Raises:
        CheckpointError: If the matrix was saved under a name that is not the model's own, or
            the folder is that of the base.
        UnsupportedModelError: If the model is not shrunk, or has no ``save_pretrained``.
    """
    if not hasattr(model, "save_pretrained"):
        raise UnsupportedModelError(
            f"`{type(model).__name__}` has no `save_pretrained`, expected a transformers model. "
            "Save `subvocab.compact_state_dict(model)` with torch instead."
        )
    if is_a(model, MODEL):
        raise UnsupportedModelError(
            f"`{type(model).__name__}` saves an adapter, not the model. Save it with "
            "`save_pretrained`, and the rows with `subvocab.RowAdapter.of(model).save(path)`."
        )
    vocabulary_of(model)  # raises if there is none
    for module in partial_tables(model).values():
        base = module.table.matrix.tensor.path
        if Path(folder).resolve() == base.resolve().parent:
            raise CheckpointError(
                f"{folder} holds {base.name}, from which the unused rows are read: a compact "
                "checkpoint in its place would lose them. Name another folder."
            )
    if any(module.table.adopted for module in partial_tables(model).values()):
        warnings.warn(
            f"The unused rows are no longer those of {model.config.name_or_path}, but those of the "
            "checkpoint that was loaded since. Keep that checkpoint: `merge` needs it as the base.",
            stacklevel=2,
        )
    if kwargs.get("variant"):
        raise CheckpointError(
            f"`variant` is `{kwargs['variant']}`, but compact checkpoints have no variants. Save "
            "to a folder for each."
        )
    if kwargs.get("push_to_hub"):
        kwargs.setdefault("repo_id", Path(folder).name)
    with replacing_folder(Path(folder), WEIGHTS) as staged:
        with compact_state_dicts(model):
            model.save_pretrained(staged, **kwargs)
        describe_compact(model, staged)


def holds_compact(folder: Path) -> bool:
    """Tell whether the weights in a folder are those of a compact checkpoint.

    Args:
        folder: That ``save_pretrained`` wrote.

    Returns:
        Whether they have token ids beside them; False where there are no weights.
    """
    try:
        return is_compact(read_checkpoint(folder).tensors)
    except CheckpointError:
        return False


def describe_compact(model: PreTrainedModel, folder: Path, *, decays: Sequence[float] = ()) -> None:
    """Write what `merge` needs beside the weights of a compact checkpoint.

    Args:
        model: The model that was saved.
        folder: Where its compact weights lie.
        decays: What weight decay did to each row: learning rate times weight decay, of
            each step.

    Raises:
        CheckpointError: If the matrix was saved under a name that is not the model's own.
    """
    vocabulary = vocabulary_of(model)
    vocabulary.save(folder / VOCABULARY_FILE)
    description = {
        "format_version": FORMAT_VERSION,
        "base": model.config.name_or_path,
        "vocabulary_fingerprint": vocabulary.fingerprint,
        "tables": _saved_tables(model, folder),
        "decays": list(decays),
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
                "base_content": _content(module.table.matrix),
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


def _content(matrix: FullMatrix) -> str | None:
    """Name all rows of the base, if its file is still as it was: a save is not to fail by it."""
    try:
        return matrix.content
    except CheckpointError:
        return None


def _saved_shifts(model: PreTrainedModel, saved: Collection[str]) -> dict[int, str]:
    """Name the saved rest shifts, by the table they belong to."""
    return {
        id(module.weight): f"{name}.{SHIFT_KEY}"
        for name, module in partial_tables(model).items()
        if f"{name}.{SHIFT_KEY}" in saved
    }
