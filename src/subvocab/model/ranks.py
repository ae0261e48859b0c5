"""Several processes: one V′ on all of them, and tensors that are spread over them."""

from __future__ import annotations

import gc
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_enabled

from subvocab.errors import UnsupportedModelError, VocabularyMismatchError

WITHOUT_STORE = ("fake", "mpi")
"""Backends whose processes have nothing to leave word in."""

SPREADING_OPTIONS = ("device_mesh", "distributed_config", "tp_plan", "tp_size")
INSTEAD_OF_ZERO3 = (
    'Use ZeRO-1 or ZeRO-2 (`"stage": 2`), DDP or FSDP2: without the unused rows, the model and its '
    "optimizer need less memory."
)

_agreed: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""What was compared already, by process group."""
_numbers = count()
"""Never twice the same: a store may outlast its process group."""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def check_ranks(vocabulary_fingerprint: str) -> None:
    """Compare a partial vocabulary with that of the other ranks; without a word if it is known.

    The first rank to come leaves its fingerprint in the store of the process group, and every
    other compares with it. Nobody waits for anybody, so a program in which one rank alone
    shrinks a model goes on; and as gradients need all ranks, none takes a step before the last
    has compared.

    Args:
        vocabulary_fingerprint: That of V′, of which several may be in use, in the same order
            on every rank.

    Raises:
        VocabularyMismatchError: If another rank has another V′: its rows are other tokens'.

    Example:
        >>> check_ranks("0123456789ab")  # there is but one process
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    if distributed.get_backend() in WITHOUT_STORE:
        return
    agreed = _agreed.setdefault(distributed.group.WORLD, set())
    if vocabulary_fingerprint in agreed:
        return
    agreed.add(vocabulary_fingerprint)
    rank = distributed.get_rank()
    store = distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - there is no other way
    key = f"subvocab/vocabulary/{next(_numbers)}"
    said = store.compare_set(key, "", f"{rank} {vocabulary_fingerprint}").decode()
    first, theirs = said.split()
    if theirs != vocabulary_fingerprint:
        raise VocabularyMismatchError(
            f"Rank {rank} has the partial vocabulary {vocabulary_fingerprint[:12]}, but rank "
            f"{first} has {theirs[:12]}: each was made from other data, and rows of different "
            "tokens would be averaged. Scan all data once, keep the result with "
            "`vocabulary.save(path)`, and let every rank load it with "
            "`PartialVocabulary.load(path)`."
        )


def refuse_spread(model: nn.Module) -> None:
    """Refuse to shrink a model whose parameters no longer lie whole in one process.

    Args:
        model: A model that shall be shrunk.

    Raises:
        UnsupportedModelError: If it is partitioned, sharded, or wrapped for data parallelism.
    """
    name = type(model).__name__
    for parameter_name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id"):
            raise UnsupportedModelError(
                f"`{parameter_name}` of `{name}` is partitioned by DeepSpeed ZeRO-3, so its rows "
                "are not here to be chosen. " + INSTEAD_OF_ZERO3
            )
        if is_spread(parameter):
            raise UnsupportedModelError(
                f"`{parameter_name}` of `{name}` is spread over several processes already. "
                "Shrink the model first, then call `fully_shard` or prepare it."
            )
    if _is_wrapped(model) and (gc.collect(), _is_wrapped(model))[1]:
        raise UnsupportedModelError(
            f"`{name}` is wrapped by `DistributedDataParallel`, which would go on averaging the "
            "gradients of the whole matrix. Shrink the model first, then wrap it."
        )


def _is_wrapped(model: nn.Module) -> bool:
    """Tell whether a wrapper for data parallelism holds a part of a model."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    parts = {id(parameter) for parameter in model.parameters()}
    return any(
        id(parameter) in parts
        for thing in gc.get_objects()
        if type(thing) is DistributedDataParallel  # quick: there are millions of objects
        for parameter in thing.parameters()
    )


def refuse_spread_loading(options: dict[str, Any]) -> None:
    """Refuse to load a model that would not lie whole in one process.

    Args:
        options: For ``from_pretrained`` of transformers.

    Raises:
        UnsupportedModelError: If transformers would partition, shard or leave out weights.
    """
    given = [name for name in SPREADING_OPTIONS if options.get(name) is not None]
    if given:
        raise UnsupportedModelError(
            f"`{given[0]}` spreads a model over several processes as it is loaded. Leave it out, "
            "and call `fully_shard` on the small model; tensor parallelism is not supported."
        )
    if is_deepspeed_zero3_enabled():
        raise UnsupportedModelError(
            "DeepSpeed ZeRO-3 partitions weights while they are loaded. " + INSTEAD_OF_ZERO3
        )
    if is_fsdp_enabled():
        raise UnsupportedModelError(
            "`cpu_ram_efficient_loading` of accelerate leaves weights out on all ranks but one. "
            "Set it to false (FSDP_CPU_RAM_EFFICIENT_LOADING=false): without the unused rows, "
            "loading needs less memory."
        )


def refuse_to_restore_spread(model: nn.Module) -> None:
    """Refuse to make a model whole whose rows lie in several processes.

    Args:
        model: A shrunk model.

    Raises:
        UnsupportedModelError: If a parameter is spread.
    """
    for name, parameter in model.named_parameters():
        if is_spread(parameter):
            raise UnsupportedModelError(
                f"`{name}` of `{type(model).__name__}` is spread over several processes, so the "
                "model cannot be made whole in place. Save its state dict, which is whole, and "
                "load it into a model that is not shrunk."
            )


def is_spread(tensor: object) -> bool:
    """Tell whether a tensor is spread over several processes.

    Args:
        tensor: Any tensor.

    Returns:
        Whether it is a DTensor.

    Example:
        >>> is_spread(torch.zeros(1))
        False
    """
    return hasattr(tensor, "full_tensor")


def gathered(tensor: Any) -> Any:
    """Give a tensor whole that is spread over several processes; all of them must ask for it.

    Args:
        tensor: Any tensor, or None.

    Returns:
        The same if it is not spread.

    Example:
        >>> gathered(torch.zeros(1))
        tensor([0.])
    """
    if not is_spread(tensor):
        return tensor
    # Where parameters wait on the host, processes still talk on their own device.
    return tensor.detach().to(tensor.device_mesh.device_type).full_tensor()


def spread_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Spread a tensor that every process has over all of them, without a word between them.

    Args:
        tensor: A tensor, the same in every process.
        parameter: A parameter.

    Returns:
        The tensor as the parameter is spread; as it is if that one is not.

    Example:
        >>> spread_like(torch.zeros(1), torch.ones(1))
        tensor([0.])
    """
    if not is_spread(parameter):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 - seldom needed

    like: Any = parameter
    on_mesh = tensor.to(like.device_mesh.device_type)
    return distribute_tensor(on_mesh, like.device_mesh, like.placements, src_data_rank=None)
