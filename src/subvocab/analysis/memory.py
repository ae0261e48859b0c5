"""Bytes that a training step holds, foretold from shapes; activations are left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from subvocab.analysis.optimizers import state_bytes, step_bytes
from subvocab.analysis.shapes import ParameterShape, Role
from subvocab.errors import DataError

WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "mixed": 4}
"""Bytes a weight, by precision; its gradient has as many."""

OPTIMIZERS = ("sgd", "momentum", "adamw", "adamw-8bit", "adafactor")
HEADS = ("none", "exact", "restricted", "whole")

GIGABYTE = 10**9
"""A decimal one, in plans as in figures."""

COPY_BYTES = 2
"""A number of a bf16 copy, of weights or of the logits' gradient."""

LOSS_BYTES = 12
"""A logit while the loss is taken back: log-probability and two gradients, each in fp32."""

GRADIENT_BYTES = 4
"""A logit after that: its gradient."""


@dataclass(frozen=True)
class Training:
    """How a model is to be trained.

    Attributes:
        precision: ``fp32``; ``bf16``, in which weights, gradients and moments are all
            bf16; or ``mixed``, the Trainer's ``bf16=True``: all three in fp32, and beside
            them the bf16 copies that autocast makes of the weights of matrix products
            (not of embeddings, norms, biases), which stay from forward to backward.
        optimizer: ``sgd``, ``momentum`` (SGD with it), ``adamw`` (torch's, fused),
            ``adamw-8bit`` (of bitsandbytes) or ``adafactor`` (of transformers).
        batch_size: Sequences a step, over all of its parts.
        length: Tokens a sequence that get logits.
        accumulation: Parts that a step's batch is divided into.
        head: The output head with PEMA: ``none`` (the model has none over V), ``exact``
            (|V′| columns and one for the rest, whose rows stay, frozen), ``restricted``
            (|V′| columns alone) or ``whole`` (the head is left as it is).
    """

    precision: str = "fp32"
    optimizer: str = "adamw"
    batch_size: int = 32
    length: int = 128
    accumulation: int = 1
    head: str = "none"

    def __post_init__(self) -> None:
        _check_name("precision", self.precision, tuple(WEIGHT_BYTES))
        _check_name("optimizer", self.optimizer, OPTIMIZERS)
        _check_name("head", self.head, HEADS)
        for name in ("batch_size", "length", "accumulation"):
            value = getattr(self, name)
            if value < 1:
                raise DataError(f"`{name}` is {value:,}, expected one or more.")
        if self.accumulation > self.batch_size:
            raise DataError(
                f"A batch of {self.batch_size:,} sequences cannot be divided into "
                f"{self.accumulation:,} parts. `batch_size` counts all sequences of a step: "
                "give as many as parts, or more."
            )

    @property
    def tokens(self) -> int:
        """Tokens whose logits exist at the same time."""
        return math.ceil(self.batch_size / self.accumulation) * self.length


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not known."""
    if name not in known:
        raise DataError(f"`{what}` is `{name}`, expected one of {', '.join(known)}.")


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds, by what they are for. Activations are not among them.

    Attributes:
        weights: The model's; with ``mixed`` the copies of autocast too, with PEMA the
            look-up from V to V′.
        gradients: Of all that is trained.
        optimizer: Its state, without the few bytes of step counters.
        logits: What the loss holds at most: the log-probabilities, their gradient and
            that of the logits, in fp32 whatever the precision (transformers casts).
            The logits themselves are gone by then. Zero where the model has no output
            head.
        temporary: The larger of what backward and optimizer hold for a moment: a
            gradient on its way to be added to another; an update of Adafactor.
        apart: Of all these, what is never held at the same time as the rest, such as
            logits and gradients, unless these accumulate.
    """

    weights: int
    gradients: int
    optimizer: int
    logits: int
    temporary: int = 0
    apart: int = 0

    @property
    def total(self) -> int:
        """Bytes held at the worst moment of a step."""
        parts = self.weights + self.gradients + self.optimizer + self.logits + self.temporary
        return parts - self.apart

    def fits(self, device_bytes: int) -> bool:
        """Tell whether all of it has room.

        Args:
            device_bytes: Memory of the device.

        Returns:
            Whether the total is no more. Activations must find room beside it.

        Example:
            >>> Memory(weights=4, gradients=4, optimizer=8, logits=0).fits(16)
            True
        """
        return self.total <= device_bytes


def training_memory(weights: Sequence[ParameterShape], columns: int, training: Training) -> Memory:
    """Add up what training holds, and find the worst moment of a step.

    Args:
        weights: The model's parameters, as they are held.
        columns: Of its logits over the vocabulary; zero where there are none.
        training: How it is trained.

    Returns:
        The bytes.
    """
    each = WEIGHT_BYTES[training.precision]
    trained = [w for w in weights if w.trained]
    held = each * sum(w.parameters for w in weights)
    copies = _copied_bytes(weights) if training.precision == "mixed" else 0
    gradients = each * sum(w.parameters for w in trained)
    optimizer = sum(
        state_bytes(training.optimizer, w.shape, each, looked_up=w.looked_up) for w in trained
    )
    numbers = training.tokens * columns
    logits = LOSS_BYTES * numbers

    # What earlier parts of a batch left behind; the next gradient is made beside it, then added.
    accumulates = training.accumulation > 1
    before = gradients if accumulates else 0
    coming = each * max((w.parameters * (w.reused + accumulates) for w in trained), default=0)
    update = step_bytes(training.optimizer, [w.parameters for w in trained], each)
    heads = [w.parameters for w in trained if w.role in {Role.TIED, Role.HEAD}]
    passed_on = GRADIENT_BYTES + (0 if training.precision == "fp32" else COPY_BYTES)
    worst = max(
        copies + logits + before,  # the loss
        copies + passed_on * numbers + each * max(heads, default=0) + before,  # the first gradient
        gradients + coming,  # the last gradient, which is the embedding's
        gradients + update,  # the optimizer's step
    )
    parts = Memory(
        weights=held + copies,
        gradients=gradients,
        optimizer=optimizer,
        logits=logits,
        temporary=max(coming, update),
    )
    return replace(parts, apart=parts.total - held - optimizer - worst)


def _copied_bytes(weights: Sequence[ParameterShape]) -> int:
    """Give the bytes of what autocast casts: factors of matrix products.

    Frozen rows of a head are none of them: they are read in chunks.
    """
    cast = (w for w in weights if w.multiplied and (w.trained or w.role is Role.BODY))
    return COPY_BYTES * sum(w.parameters for w in cast)
