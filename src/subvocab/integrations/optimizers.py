"""What an optimizer holds of a shrunk model: its moments belong to rows, and rows to tokens."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from subvocab.errors import VocabularyMismatchError
from subvocab.model.partial import PartialModule
from subvocab.model.shrink import partial_tables
from subvocab.vocabulary import PartialVocabulary

ADAM_LIKE = ("Adam", "Lion", "RMSprop", "Adagrad")
"""A step of theirs has about the size of the learning rate, whatever the gradient's."""
ROW_MIXING_OPTIMIZERS = ("Adafactor", "LAMB", "LARS", "Muon", "SAM", "Shampoo", "SOAP")
"""A step of theirs on one row depends on the others, or on how many there are."""
FUSED = "subvocab_fused"
ZERO_FOR_UNSEEN = (
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf"),  # Adam and its kin, Lion
    *("momentum_buffer", "square_avg", "grad_avg"),  # SGD, RMSprop
)
"""Moments that are zero for a row that never had a gradient."""


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


def carry_over_moments(
    optimizer: torch.optim.Optimizer,
    parameter: torch.nn.Parameter,
    theirs: PartialVocabulary,
    ours: PartialVocabulary,
) -> None:
    """Give the moments of rows of another V′ to those of the same tokens.

    A row that was not in that V′ begins as it would in full training, where no step has
    touched its moments. The count of steps is one for all rows, and stays.

    Args:
        optimizer: With the state of the other run, after ``load_state_dict``.
        parameter: E′, or biases of V′.
        theirs: The V′ of that run.
        ours: The V′ of ``parameter``.

    Raises:
        VocabularyMismatchError: If the optimizer keeps something else than moments, or of
            another shape.
    """
    both = np.intersect1d(theirs.token_ids, ours.token_ids)
    source, target = torch.tensor(theirs.to_partial(both)), torch.tensor(ours.to_partial(both))
    expected = (len(theirs), *parameter.shape[1:])
    state = optimizer.state.get(parameter, {})
    moments = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and v.dim()}
    for key, moment in moments.items():
        if key not in ZERO_FOR_UNSEEN or tuple(moment.shape) != expected:
            raise VocabularyMismatchError(
                f"The optimizer's `{key}` of shape {tuple(moment.shape)} cannot be carried over, "
                f"expected a moment of shape {expected}. Go on with the vocabulary of the "
                "checkpoint, or with a new optimizer from its model alone."
            )
    for key, moment in moments.items():
        state[key] = moment.new_zeros(parameter.shape)
        state[key][target.to(moment.device)] = moment[source.to(moment.device)]


def _partial_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Give all that belongs to V′, by name."""
    return {
        f"{name}.{key}": parameter
        for name, module in model.named_modules()
        if isinstance(module, PartialModule)
        for key, parameter in module.named_parameters(recurse=False)
    }


def let_others_fail_loudly(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Save an optimizer's state such that a run without V′ stops, rather than corrupts memory.

    Fused steps do not look at shapes, and what is saved says that steps are fused. Where the
    rows are those of V′, it says so under a name of ours instead: a step that is not fused
    raises if the moments are of other rows. Here the state that was loaded is put right again.

    Args:
        model: A shrunk model.
        optimizer: Its optimizer, after ``load_state_dict``.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    for group in optimizer.param_groups:
        if FUSED in group:
            group["fused"] = group.pop(FUSED)
    held = {id(parameter) for parameter in _partial_parameters(model).values()}
    numbers = [
        number
        for number, group in enumerate(optimizer.param_groups)
        if group.get("fused") and any(id(parameter) in held for parameter in group["params"])
    ]

    def rename(_: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        for number in numbers:
            state["param_groups"][number][FUSED] = state["param_groups"][number].pop("fused")
            state["param_groups"][number]["fused"] = None

    if numbers and not hasattr(optimizer, FUSED):
        setattr(optimizer, FUSED, numbers)
        optimizer.register_state_dict_post_hook(rename)


def held_tables(model: torch.nn.Module) -> set[int]:
    """Name the matrices of a shrunk model, as objects.

    Args:
        model: A shrunk model.

    Returns:
        The ``id`` of each E′.
    """
    return {id(module.weight) for module in partial_tables(model).values()}


def decay_of(held: set[int], optimizer: torch.optim.Optimizer) -> float:
    """Tell by how much the step just taken has shrunk the rows of the embedding.

    Args:
        held: From `held_tables`, once: a step is no time to walk through a model.
        optimizer: Its optimizer, whose learning rate is still that of the step.

    Returns:
        Learning rate times weight decay; 0 where nothing decays, or the step was skipped.
    """
    if getattr(optimizer, "step_was_skipped", False):
        return 0.0
    for group in optimizer.param_groups:
        if any(id(parameter) in held for parameter in group["params"]):
            return float(group["lr"]) * float(group.get("weight_decay") or 0)
    return 0.0


def warn_of_inexact_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Warn where the result is right, but not what full fine-tuning gives.

    Args:
        model: A shrunk model.
        optimizer: Its optimizer.
    """
    held = held_tables(model)
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
                "fine-tuning would shrink the unused rows too. To make up for it, save compact "
                "checkpoints, and merge them with `replay_weight_decay=True`.",
                stacklevel=2,
            )
