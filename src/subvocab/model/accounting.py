"""What a partial vocabulary saves: parameters counted, memory measured."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil
import torch
from torch import nn

from subvocab.analysis.savings import ParameterCounts
from subvocab.model.partial import PartialModule
from subvocab.model.shrink import partial_tables, vocabulary_of

SAMPLE_SECONDS = 0.005


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count the parameters of a shrunk model, and those it has when it is whole.

    Args:
        model: A model from `shrink` or `from_pretrained`.

    Returns:
        The counts; a tied matrix counts once.

    Raises:
        UnsupportedModelError: If the model is not shrunk.
    """
    vocabulary = vocabulary_of(model)
    modules = {id(m.weight): m for m in partial_tables(model).values()}
    partial = sum(module.weight.numel() for module in modules.values())
    full = sum(
        module.table.vocabulary.full_vocab_size * module.weight.shape[1]
        for module in modules.values()
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    return ParameterCounts(
        full_vocab_size=vocabulary.full_vocab_size,
        partial_vocab_size=len(vocabulary),
        embedding_parameters=full,
        partial_embedding_parameters=partial,
        model_parameters=total - partial + full + _rest_of_biases(model),
        partial_model_parameters=total,
    )


def _rest_of_biases(model: nn.Module) -> int:
    """Count the biases outside V′, less the shifts, which a whole model does not have."""
    modules = [m for m in model.modules() if isinstance(m, PartialModule)]
    shifts = {
        id(p): p.numel()
        for m in modules
        for p in (m.rest_shift, m.rest_bias_shift)
        if p is not None
    }
    biases = {id(m.bias): m for m in modules if m.partial_bias is not None}
    rest = sum(
        m.partial_bias.whole.numel() - m.bias.numel() for m in biases.values() if m.partial_bias
    )
    return rest - sum(shifts.values())


def private_bytes() -> int:
    """Measure the memory that is this process's alone.

    Returns:
        Resident bytes that no file backs (on Linux), so without pages of mapped
        checkpoints, which the system can drop.
    """
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


class PeakMemory:
    """Measure the most memory that some work takes, as a context manager.

    On an accelerator: what its allocator gave out at most. On the CPU: private memory
    (see `private_bytes`) beyond what was held at the start, sampled every 5 ms.

    Args:
        device: Where the work is done.

    Attributes:
        peak_bytes: The result, once the block is left.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.peak_bytes = 0
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._start = private_bytes()
            self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self._done.set()
            self._sampler.join()

    def _sample(self) -> None:
        """Look at the memory until told to stop, once more at the end."""
        while True:
            stop = self._done.wait(SAMPLE_SECONDS)
            self.peak_bytes = max(self.peak_bytes, private_bytes() - self._start)
            if stop:
                return
