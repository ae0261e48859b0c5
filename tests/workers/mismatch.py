"""Two ranks whose partial vocabularies differ: nothing may be trained, and nobody may hang."""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import subvocab as sv
from tests.models import random_batch, tiny_model
from tests.reference import drawn_vocabulary, ids_of

STEP_TAKEN = "a step was taken"


def main(_folder: str, when: str, sizes: str) -> None:
    """Shrink by other data on each rank, before or after the processes know each other."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    model = tiny_model("bert")
    if when == "started":
        distributed.init_process_group("gloo")
    sv.shrink(model, drawn_vocabulary(40 + (rank if sizes == "different" else 0), seed=rank))
    if when != "started":
        distributed.init_process_group("gloo")
    wrapped = DistributedDataParallel(model).train()
    trained = torch.compile(wrapped, backend="eager") if when == "compiled" else wrapped
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trained(**random_batch(model, ids_of(sv.vocabulary_of(model)))).loss.backward()
    optimizer.step()
    print(STEP_TAKEN)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
