"""A compact checkpoint made whole, on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from subvocab._atomic import naming
from subvocab._typing import StrPath
from subvocab.errors import CheckpointError, VocabularyMismatchError, listed, shortened
from subvocab.model.checkpoint import DESCRIPTION_FILE, FORMAT_VERSION, VOCABULARY_FILE
from subvocab.model.load import local_folder
from subvocab.model.partial import BASE_KEY, TOKEN_IDS_KEY
from subvocab.model.tensors import TORCH_DTYPES, converted, decayed, shifted, torch_dtype
from subvocab.storage import Checkpoint, FullMatrix, expand_checkpoint, read_checkpoint
from subvocab.vocabulary import PartialVocabulary


def merge(
    compact: StrPath,
    *,
    base: StrPath,
    out: StrPath,
    replay_weight_decay: bool | Sequence[float] = False,
    progress: bool = True,
) -> Path:
    """Write a whole model from a compact checkpoint and the model it came from, on disk.

    Args:
        compact: A folder that `save_compact` wrote.
        base: The model that was shrunk: a folder, or a name on the Hub. It is only read.
        out: The folder to write; it must not exist, or be empty.
        replay_weight_decay: Whether to shrink the unused rows as AdamW would have in full
            fine-tuning, step by step: True where a Trainer's callback noted the steps in
            the checkpoint, else learning rate times weight decay of each step.
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
    decays = _decays(compact, description, replay_weight_decay)
    base_folder = local_folder(base)
    base_checkpoint = read_checkpoint(base_folder)
    tables = {}
    beside_rows = (f".{TOKEN_IDS_KEY}", f".{BASE_KEY}")
    dropped = {name for name in read_checkpoint(compact).tensors if name.endswith(beside_rows)}
    for name, table in description["tables"].items():
        beside = _read_tensors(compact, {table["token_ids"], table.get("rest_shift")} - {None})
        own = PartialVocabulary(beside[table["token_ids"]].numpy(), table["full_vocab_size"])
        matrix = _base_matrix(base_checkpoint, table)
        if any(decays):
            matrix = decayed(matrix, decays)
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


def _decays(
    compact: Path, description: dict[str, Any], wanted: bool | Sequence[float]
) -> Sequence[float]:
    """Find what weight decay would have done to the unused rows, if it is to be done."""
    if not isinstance(wanted, bool):
        return wanted
    noted: list[float] = description.get("decays", []) if wanted else []
    if wanted and not noted:
        raise CheckpointError(
            f"{compact / DESCRIPTION_FILE} notes no steps to replay: the checkpoint was not saved "
            "by a Trainer with `subvocab.VocabularyCallback`. Give `replay_weight_decay` the "
            "learning rate times the weight decay of each step."
        )
    return noted


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
        with naming(path):
            text = path.read_text(encoding="utf-8")
        description = json.loads(text)
        version = description["format_version"]
        if version == FORMAT_VERSION:
            for table in description["tables"].values():
                _check_description(table)
            if not all(isinstance(decay, float) for decay in description.get("decays", ())):
                raise ValueError("decays are no numbers")  # noqa: TRY301 - said once, below
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged ({shortened(repr(error))}). Save the model anew."
        ) from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {shortened(version)}, expected {FORMAT_VERSION}. "
            "Use the version of subvocab that wrote it."
        )
    return description  # type: ignore[no-any-return]


def _check_description(table: dict[str, Any]) -> None:
    """Refuse what cannot be the description of a table."""
    known = {table["dtype"], table["base_dtype"]} <= TORCH_DTYPES.keys()
    texts = [table["base_fingerprint"], table["token_ids"], table.get("rest_shift", "")]
    texts.append(table.get("base_content") or "")
    sized = isinstance(table["full_vocab_size"], int)
    if not (known and sized and all(isinstance(text, str) for text in texts)):
        raise ValueError(f"a table is described as {table}")


def _read_tensors(folder: Path, names: set[str]) -> dict[str, torch.Tensor]:
    """Read small tensors of a checkpoint."""
    checkpoint = read_checkpoint(folder)
    found = {}
    for name in names:
        path = checkpoint.find_tensor(name).path
        try:
            with safe_open(path, "pt") as file:
                found[name] = file.get_tensor(name)
        except (OSError, RuntimeError, SafetensorError) as error:  # whatever a disk may say
            raise CheckpointError(f"{path} could not be read: {shortened(error)}.") from error
    return found


def _base_matrix(base: Checkpoint, table: dict[str, Any]) -> FullMatrix:
    """Find E in the base by its content, whatever its name there, in the dtype of the rows."""
    size = table["full_vocab_size"]
    tall = [t for t in base.tensors.values() if t.shape[:1] == (size,)]
    candidates = [FullMatrix(tensor) for tensor in tall if len(tensor.shape) == 2]  # noqa: PLR2004

    def is_base(matrix: FullMatrix) -> bool:
        """Compare a sample of the rows, which is quick, and then all, if they were noted."""
        noted = table.get("base_content")
        sampled = matrix.fingerprint == table["base_fingerprint"]
        return sampled and (noted is None or matrix.content == noted)

    for matrix in candidates:
        if is_base(matrix):
            return converted(matrix, torch_dtype(table["dtype"]))
    for matrix in candidates:  # the model may have been cast before it was shrunk
        if matrix.dtype != table["base_dtype"]:
            cast = converted(matrix, torch_dtype(table["base_dtype"]))
            if is_base(cast):
                return converted(cast, torch_dtype(table["dtype"]))
    names = listed([f"`{tensor.name}`" for tensor in tall]) or "none"
    raise VocabularyMismatchError(
        f"No matrix in {base.folder} is the one that was shrunk; of "
        f"{size:,} rows there: {names}. Give as base the very model that "
        "training started from."
    )
