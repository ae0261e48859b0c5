"""The memory that some work takes, measured."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil
import torch

SAMPLE_SECONDS = 0.005


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
