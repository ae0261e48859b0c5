"""FSDP2 in two processes: rows, moments and state dicts of a shrunk model, spread over both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import save as save_state
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

import subvocab as sv
from subvocab.model.checkpoint import compact_state_dicts
from subvocab.model.shrink import partial_tables
from tests.models import language_batch, random_batch, tiny_language_model, tiny_model
from tests.reference import (
    OPTIMIZERS,
    assert_equal_states,
    copied,
    drawn_vocabulary,
    ids_of,
    loss_of,
)
from tests.workers.launching import assert_ranks_agree, run_cases

VOCABULARY = drawn_vocabulary(42).union([1, 2])
USED = ids_of(VOCABULARY)
STEPS = 3
WHOLE = StateDictOptions(full_state_dict=True)


def sharded(model: Any, **options: Any) -> Any:
    """Shard every block, then what is left, as the tutorials do."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    lists = [n for n, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for name in lists:
        if not any(name.startswith(f"{other}.") for other in lists):  # lists inside blocks
            for block in model.get_submodule(name):
                fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def whole_state(model: Any) -> dict[str, Any]:
    """Gather a state dict, as the tutorials do."""
    return dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))


def shrunk(model: Any) -> Any:
    """Shrink a model to an odd number of rows, so that they do not part evenly."""
    sv.shrink(model, VOCABULARY)
    assert len(sv.vocabulary_of(model)) % 2
    return model


def train(model: Any, batches: list[Any], optimizer: Any = None) -> list[float]:
    """Train, every rank on the same batches, so that one process alone gives the same."""
    optimizer = optimizer or OPTIMIZERS["adamw-foreach"](model.parameters())
    losses = []
    model.train()
    torch.manual_seed(0)
    for batch in batches:
        loss = loss_of(model(**batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def classifier_batches(count: int = STEPS, seed: int = 0) -> list[Any]:
    """Draw batches from V′."""
    model = tiny_model("bert", pad_token_id=0)
    return [random_batch(model, USED, seed=seed + step) for step in range(count)]


def an_encoder(family: str, _folder: Path) -> None:
    """Losses and all weights are those of one process, and of the whole model."""
    alone, model, whole = (tiny_model(family, pad_token_id=0) for _ in range(3))
    batches = [random_batch(whole, USED, seed=step) for step in range(STEPS)]

    losses = [train(alone, batches), train(sharded(whole), batches)]
    model = sharded(shrunk(model))
    losses.append(train(model, batches))
    state = whole_state(model)

    assert losses[0] == losses[1] == losses[2]
    rows = [len(m.weight.to_local()) for m in partial_tables(model).values()]
    assert sum_over_ranks(rows[0]) == len(USED) != 2 * rows[0]
    assert_ranks_agree(state)
    assert_equal_states(copied(state), alone.state_dict())
    assert_equal_states(copied(model_plain(model)), alone.state_dict())


def model_plain(model: Any) -> dict[str, Any]:
    """Give a sharded model's own state dict, with what is spread put together."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in model.state_dict().items()
    }


def sum_over_ranks(number: int) -> int:
    """Add up what the ranks have."""
    total = torch.tensor(number)
    distributed.all_reduce(total)
    return int(total)


def a_language_model(name: str, options: dict[str, Any], _folder: Path) -> None:
    """Head, tied or not, and rest shift: as one process trains them; evaluation on any text."""
    alone, model = shrunk(tiny_language_model(name)), shrunk(tiny_language_model(name))
    batches = [language_batch(name, USED, seed=step) for step in range(STEPS)]
    any_text = language_batch(name, torch.arange(300), seed=9)

    model = sharded(model, **options)
    losses = [train(each, batches) for each in (alone, model)]
    state = whole_state(model)
    with torch.no_grad():
        logits = [each.eval()(**any_text).logits for each in (alone, model)]

    assert losses[0] == losses[1]
    assert_ranks_agree(state)
    assert_equal_states(copied(state), copied(alone.state_dict()))
    assert torch.equal(*logits)
    shifts = [m.rest_shift for m in partial_tables(alone).values() if m.rest_shift is not None]
    assert any(shift.any() for shift in shifts)
    again = sharded(shrunk(tiny_language_model(name, seed=1)))
    set_model_state_dict(again, dict(state), options=WHOLE)  # it changes what it is given
    assert_equal_states(copied(whole_state(again)), copied(state))


def evaluation_on_unseen_text(_folder: Path) -> None:
    """Rows outside V′ are read from disk, where the embedding is a unit of its own too."""
    whole, model = tiny_model("bert"), shrunk(tiny_model("bert"))
    fully_shard(model.get_input_embeddings(), mesh=init_device_mesh("cpu", (2,)))
    batch = random_batch(whole, torch.arange(300))

    with torch.no_grad():
        logits = [each.eval()(**batch).logits for each in (whole, sharded(model))]

    assert torch.equal(*logits)
    with pytest.raises(sv.OutOfVocabularyError):
        model.train()(**batch)


def whole_state_dicts_are_loaded(_folder: Path) -> None:
    """Those of another base too: its unused rows are adopted."""
    model, other = sharded(shrunk(tiny_model("t5"))), tiny_model("t5", seed=3)

    set_model_state_dict(model, dict(other.state_dict()), options=WHOLE)

    state = whole_state(model)
    assert_equal_states(copied(state), other.state_dict())


def a_distributed_checkpoint(compact: bool, folder: Path) -> None:
    """Saved and loaded by all ranks, with the optimizer: the run goes on as if nothing was."""
    batches = classifier_batches(2 * STEPS)
    model = sharded(shrunk(tiny_model("bert", pad_token_id=0)))
    optimizer = OPTIMIZERS["adamw-foreach"](model.parameters())
    train(model, batches[:STEPS], optimizer)
    save(model, optimizer, folder / "checkpoint", compact=compact)
    losses = train(model, batches[STEPS:], optimizer)

    again = sharded(shrunk(tiny_model("bert", pad_token_id=0)))
    optimizer = OPTIMIZERS["adamw-foreach"](again.parameters())
    load(again, optimizer, folder / "checkpoint", compact=compact)

    assert train(again, batches[STEPS:], optimizer) == losses
    ours, theirs = (whole_state(each) for each in (again, model))
    assert_equal_states(copied(ours), copied(theirs))


def save(model: Any, optimizer: Any, folder: Path, *, compact: bool) -> None:
    """Write a distributed checkpoint."""
    with compact_state_dicts(model) if compact else nullcontext():
        weights, moments = get_state_dict(model, optimizer)
        save_state({"model": weights, "optimizer": moments}, checkpoint_id=folder)


def load(model: Any, optimizer: Any, folder: Path, *, compact: bool) -> None:
    """Read a distributed checkpoint."""
    with compact_state_dicts(model) if compact else nullcontext():
        weights, moments = get_state_dict(model, optimizer)
        load_state({"model": weights, "optimizer": moments}, checkpoint_id=folder)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)


def checkpointed_activations(_folder: Path) -> None:
    """Recomputed blocks gather their weights again."""
    batches = classifier_batches()
    losses = []
    for recompute in (False, True):
        model = shrunk(tiny_model("bert", pad_token_id=0))
        if recompute:
            model.gradient_checkpointing_enable()
        losses.append(train(sharded(model), batches))

    assert losses[0] == losses[1]


def half_precision(_folder: Path) -> None:
    """Rows are gathered in half precision, and learn in full."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    whole, model = (tiny_model("bert", pad_token_id=0) for _ in range(2))
    models = [sharded(each, mp_policy=policy) for each in (whole, shrunk(model))]

    losses = [train(each, classifier_batches()) for each in models]

    assert losses[0] == losses[1]
    assert_equal_states(copied(whole_state(models[1])), copied(whole_state(models[0])))


def what_is_spread_is_refused(_folder: Path) -> None:
    """Neither shrunk nor restored where it lies."""
    with pytest.raises(sv.UnsupportedModelError, match="spread over several processes already"):
        sv.shrink(sharded(tiny_model("bert")), VOCABULARY)

    with pytest.raises(sv.UnsupportedModelError, match="cannot be made whole in place"):
        sv.restore(sharded(shrunk(tiny_model("bert"))))


CASES: Mapping[str, Callable[[Path], None]] = {
    **{family: partial(an_encoder, family) for family in ("bert", "t5", "gemma3")},
    "gpt2 (tied)": partial(a_language_model, "gpt2", {}),
    "llama (untied)": partial(a_language_model, "llama", {}),
    "masked bert": partial(a_language_model, "bert", {}),
    "bart": partial(a_language_model, "bart", {}),
    "resharding": partial(a_language_model, "gpt2", {"reshard_after_forward": True}),
    "evaluation": evaluation_on_unseen_text,
    "loading": whole_state_dicts_are_loaded,
    "distributed checkpoint": partial(a_distributed_checkpoint, False),
    "compact distributed checkpoint": partial(a_distributed_checkpoint, True),
    "activation checkpointing": checkpointed_activations,
    "half precision": half_precision,
    "refused": what_is_spread_is_refused,
}

if __name__ == "__main__":
    run_cases(CASES, Path(sys.argv[1]))
