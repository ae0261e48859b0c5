"""A checkpoint of a Trainer: where it lies, and what stands in it beside the weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from subvocab.errors import UnsupportedModelError
from subvocab.model.checkpoint import (
    DESCRIPTION_FILE,
    VOCABULARY_FILE,
    describe_compact,
    holds_compact,
)
from subvocab.model.shrink import partial_tables, vocabulary_of

logger = logging.getLogger("subvocab")


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Find the folder of the checkpoint of this step; a trial has one of its own within.

    Args:
        args: The Trainer's.
        state: The Trainer's.

    Returns:
        The folder.
    """
    name = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    folder = Path(str(args.output_dir))
    if state.is_hyper_param_search:
        trials = [path for path in folder.iterdir() if path.is_dir()]
        folder = max(trials, key=lambda path: path.stat().st_mtime, default=folder)
    return folder / name


def write_beside(model: nn.Module, folder: Path, *, decays: Sequence[float] | None) -> None:
    """Write V′ beside saved weights, and what a compact checkpoint says of itself.

    Args:
        model: The shrunk model that was saved.
        folder: Where.
        decays: What weight decay did to each row, if the checkpoint was to be compact.
    """
    if isinstance(model, PreTrainedModel) and holds_compact(folder):
        describe_compact(model, folder, decays=decays or ())
        return
    vocabulary_of(model).save(folder / VOCABULARY_FILE)
    (folder / DESCRIPTION_FILE).unlink(missing_ok=True)  # of an earlier run
    if decays is not None and not is_adopted(model):
        logger.warning(
            "%s is whole, though `compact=True`: another callback took the state dict that was to "
            "be compact. Use `subvocab.shrink_trainer`, which knows when the Trainer saves, or "
            "add the `VocabularyCallback` after all that save the model.",
            folder,
        )


def is_adopted(model: nn.Module) -> bool:
    """Tell whether rows outside V′ are no longer those of the base.

    Args:
        model: A shrunk model.

    Returns:
        Whether others were loaded into it.
    """
    return any(module.table.adopted for module in partial_tables(model).values())


def check_compact(model: nn.Module, args: TrainingArguments) -> None:
    """Refuse compact checkpoints where nobody could make them whole, or use them.

    Args:
        model: The model that is trained.
        args: The Trainer's.

    Raises:
        UnsupportedModelError: If it is no transformers model, or its checkpoints are pushed.
    """
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(
            f"`{type(model).__name__}` is no transformers model, whose checkpoints alone can be "
            "compact. Leave out `compact=True`."
        )
    if args.push_to_hub and args.hub_strategy != HubStrategy.END:
        raise UnsupportedModelError(
            f'`hub_strategy="{HubStrategy(args.hub_strategy).value}"` pushes checkpoints, which '
            'are not whole with `compact=True`. Use `hub_strategy="end"`, or leave `compact` out.'
        )
