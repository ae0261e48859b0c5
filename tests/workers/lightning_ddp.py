"""Lightning's data parallelism in two processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from subvocab.integrations.lightning import ShrinkCallback
from tests.lightning_module import VOCABULARY, Module, fit
from tests.reference import assert_equal_states, copied
from tests.workers.launching import assert_ranks_agree, run_cases

TWO: dict[str, Any] = {"strategy": "ddp", "devices": 2}


def equal(folder: Path) -> None:
    """Losses of every rank, and all weights; each scans all data and finds the same."""
    whole, module = Module(), Module()

    fit(whole, folder / "whole", **TWO)
    fit(module, folder / "shrunk", [ShrinkCallback()], **TWO)

    assert len(whole.losses) == 8
    assert module.losses == whole.losses
    assert_ranks_agree(module.state_dict())
    assert_equal_states(copied(module.state_dict()), whole.state_dict())
    saved = torch.load(folder / "shrunk" / "epoch=1.ckpt", weights_only=True)
    assert_equal_states(copied(module.state_dict()), saved["state_dict"])


def resumed(folder: Path) -> None:
    """A language model, whose rest shift is kept beside the whole weights."""
    module, again = Module("gpt2"), Module("gpt2")
    fit(module, folder, [ShrinkCallback(VOCABULARY)], **TWO)
    distributed.barrier()

    fit(again, folder, [ShrinkCallback(VOCABULARY)], resumed=folder / "epoch=0.ckpt", **TWO)

    assert again.losses == module.losses[4:]
    assert_ranks_agree(again.state_dict())
    assert_equal_states(copied(again.state_dict()), copied(module.state_dict()))


if __name__ == "__main__":
    run_cases({"equal": equal, "resumed": resumed}, Path(sys.argv[1]))
