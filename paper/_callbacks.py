"""What the Trainer of these scripts does beside training: a bar, a clock, an early end."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import ProgressCallback, TrainerCallback


class SilentProgress(ProgressCallback):
    """The Trainer's progress bar without a line a step."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing.

        Args:
            *args: The Trainer's.
            **kwargs: The Trainer's.
        """


class StopAfter(TrainerCallback):
    """End training after some steps, with the schedule of the whole of it.

    Args:
        steps: How many.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Stop at the step.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's.
        """
        control.should_training_stop = state.global_step >= self.steps


class Clock(TrainerCallback):
    """Time every step, with the loading of its batch.

    Args:
        device: Where the model is trained; a GPU is waited for.

    Attributes:
        seconds: Of every step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Start.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's.
        """
        self._last = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Note the time since the step before.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
