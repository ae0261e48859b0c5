"""The Hugging Face Trainer: nothing but a check that a resumed run goes on with its own rows.

A shrunk model trains under any Trainer as it is. What a Trainer does not notice is an optimizer
state that belongs to other rows: fused AdamW even writes past the end of a smaller one.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from subvocab.errors import VocabularyMismatchError
from subvocab.model.checkpoint import VOCABULARY_FILE
from subvocab.model.partial import PartialModule
from subvocab.model.shrink import partial_tables, vocabulary_of

FINGERPRINT = "vocabulary_fingerprint"
ADAM_LIKE = ("Adam", "Lion", "RMSprop", "Adagrad")
"""A step of theirs has about the size of the learning rate, whatever the gradient's."""
ROW_MIXING_OPTIMIZERS = ("Adafactor", "LAMB", "LARS", "Muon", "SAM", "Shampoo", "SOAP")
"""A step of theirs on one row depends on the others, or on how many there are."""


class VocabularyCallback(TrainerCallback, ExportableState):
    """Write V′ beside each checkpoint, and refuse to resume one that was made with another.

    Args:
        model: The shrunk model that is trained; by default the Trainer's, seen when
            training begins.

    Raises:
        UnsupportedModelError: If the model is not shrunk.

    Example:
        ``Trainer(model=model, callbacks=[VocabularyCallback(model)], ...)``
    """

    # The Trainer makes a callback anew from its state, which has no model in it.
    def __init__(self, model: torch.nn.Module | None = None) -> None:
        self.vocabulary = None if model is None else vocabulary_of(model)

    def state(self) -> dict[str, Any]:
        """Give what the Trainer keeps in ``trainer_state.json``.

        Returns:
            The fingerprint of V′, once it is known.
        """
        fingerprint = None if self.vocabulary is None else self.vocabulary.fingerprint
        return {"args": {}, "attributes": {FINGERPRINT: fingerprint}}

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - the Trainer's signature
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Write V′ beside the checkpoint that was just saved.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's.
        """
        folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if self.vocabulary is not None and state.is_world_process_zero and folder.is_dir():
            self.vocabulary.save(folder / VOCABULARY_FILE)

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Compare what was resumed with the model, before the first step.

        Args:
            args: The Trainer's.
            state: The Trainer's, from the checkpoint if one is resumed.
            control: The Trainer's.
            **kwargs: The Trainer's: ``model``, and ``optimizer`` with the state from the
                checkpoint, among others.

        Raises:
            UnsupportedModelError: If the model is not shrunk.
            VocabularyMismatchError: If the checkpoint belongs to another V′.
        """
        self.vocabulary = vocabulary_of(kwargs["model"])
        callbacks: Any = state.stateful_callbacks or {}  # a list only while it is being built
        kept = callbacks.get(type(self).__name__)
        theirs = kept["attributes"].get(FINGERPRINT) if isinstance(kept, dict) else None
        ours = self.vocabulary.fingerprint
        if theirs not in (None, ours):
            raise VocabularyMismatchError(
                f"The checkpoint was made with the partial vocabulary {theirs[:12]}, but the model "
                f"has {ours[:12]}: the optimizer's moments belong to other tokens. Shrink the "
                f"model with the {VOCABULARY_FILE} that lies in the checkpoint, or start afresh."
            )
        check_optimizer_state(kwargs["model"], kwargs["optimizer"])
        warn_of_inexact_optimizer(kwargs["model"], kwargs["optimizer"])


def check_optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer state whose rows are not those of the partial embedding.

    Args:
        model: A shrunk model.
        optimizer: Its optimizer, after ``load_state_dict``.

    Raises:
        VocabularyMismatchError: If a moment of E′ has another shape than E′.
    """
    for name, parameter in _partial_parameters(model).items():
        for key, moment in optimizer.state.get(parameter, {}).items():
            # Adafactor's and 8-bit moments are of other shapes by design; rows still lead.
            if (
                isinstance(moment, torch.Tensor)
                and moment.dim() == parameter.dim()
                and moment.shape != parameter.shape
            ):
                raise VocabularyMismatchError(
                    f"The optimizer's `{key}` for `{name}` has shape {tuple(moment.shape)}, "
                    f"expected {tuple(parameter.shape)}: the checkpoint was made with another "
                    "partial vocabulary. Shrink the model with that one, or start afresh."
                )


def _partial_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Give all that belongs to V′, by name."""
    return {
        f"{name}.{key}": parameter
        for name, module in model.named_modules()
        if isinstance(module, PartialModule)
        for key, parameter in module.named_parameters(recurse=False)
    }


def warn_of_inexact_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Warn where the result is right, but not what full fine-tuning gives.

    Args:
        model: A shrunk model.
        optimizer: Its optimizer.
    """
    held = {id(module.weight) for module in partial_tables(model).values()}
    shifts = [m.rest_shift for m in partial_tables(model).values() if m.rest_shift is not None]
    kind = type(getattr(optimizer, "optimizer", optimizer)).__name__  # accelerate wraps it
    steps_alike = any(name in kind for name in ADAM_LIKE)
    if shifts and not steps_alike and any(shift.requires_grad for shift in shifts):
        warnings.warn(
            "The rest shift stands for what Adam does to the rows outside the partial vocabulary; "
            f"`{kind}` would move each by its own gradient. The loss is exact, but they will "
            "differ from full fine-tuning. Use AdamW, or `rest_shift=False` to leave them as they "
            "are.",
            stacklevel=2,
        )
    for group in optimizer.param_groups:
        if not any(id(parameter) in held for parameter in group["params"]):
            continue
        if kind.lower().startswith(tuple(name.lower() for name in ROW_MIXING_OPTIMIZERS)):
            warnings.warn(
                f"`{kind}` steps each row of the embedding by all of them, so training with the "
                "rows of a partial vocabulary differs from full fine-tuning. AdamW and SGD do not.",
                stacklevel=2,
            )
        if group.get("weight_decay"):
            warnings.warn(
                f"Weight decay of {group['weight_decay']:g} falls on the embedding: full "
                "fine-tuning would shrink the unused rows too, which is not done here.",
                stacklevel=2,
            )
