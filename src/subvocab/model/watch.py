"""Look on while PEFT puts its modules into a shrunk model: refuse, or complete what it makes.

An adapter that reads the embedding by itself would take the rows of V′ for those of V. PyTorch
calls a hook for every module that is put into another, which is early enough to say so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils.weak import WeakIdKeyDictionary

from subvocab.errors import UnsupportedModelError
from subvocab.model.adapters import ADVICE, LAYER, MODEL, TRAINED_COPY, is_a
from subvocab.model.embedding import PartialEmbedding
from subvocab.model.head import PartialHead, make_partial_head
from subvocab.model.partial import PartialModule

PROMPTED = ("prompt_encoder", "word_embeddings")
"""What a model with trained prompts has, in the order in which PEFT puts it there."""

_originals: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""By the place of its copies: the module that PEFT trains copies of."""
_copies = WeakIdKeyDictionary()
"""By their E′: embeddings that are such copies."""


@functools.cache
def watch() -> None:
    """Look at each module that is put into another from now on, as PEFT puts its own there."""
    register_module_module_registration_hook(cast("Callable[..., None]", _look))


def _look(module: nn.Module, name: str, child: nn.Module | None) -> nn.Module | None:
    """Refuse adapters on partial modules; complete what PEFT makes of them."""
    if isinstance(child, PartialModule) and is_a(module, LAYER):
        raise UnsupportedModelError(
            f"`{type(module).__name__}` of PEFT was put on a `{type(child).__name__}`, whose rows "
            "are those of a partial vocabulary; it would take them for those of the whole. "
            + ADVICE
        )
    if name in PROMPTED and is_a(module, MODEL):
        return _prompted(module, name, child)
    if is_a(module, TRAINED_COPY) and name == "modules_to_save" and child is not None:
        _originals[child] = ref(module.original_module)
    elif isinstance(module, nn.ModuleDict) and module in _originals:
        _complete_copy(child, _originals[module]())
    return None


def _prompted(model: Any, name: str, child: nn.Module | None) -> nn.Module | None:
    """Let a model with trained prompts find its embedding, which PEFT looks for by its height."""
    partial = [m for m in model.base_model.modules() if isinstance(m, PartialEmbedding)]
    if name == PROMPTED[0] and partial:
        # PEFT sets the other next, to None if it found none; being there already, it is seen here.
        model._modules.setdefault(PROMPTED[1], None)  # noqa: SLF001
    return partial[0] if name == PROMPTED[1] and child is None and partial else None


def _complete_copy(copy: nn.Module | None, original: nn.Module | None) -> None:
    """Let copies that PEFT trains be of one table: a head may be tied to a copied embedding."""
    if isinstance(copy, PartialEmbedding):
        _copies[copy.weight] = ref(copy)
        if copy.rest_shift is not None and not copy.rest_shift.any():
            copy.rest_shift = None  # no head moves the rows outside V′ of this copy
    elif isinstance(original, PartialHead) and not isinstance(copy, PartialHead):
        weight: Any = getattr(copy, "weight", None)
        embedding = _copies[weight]() if weight in _copies else None
        if not isinstance(copy, nn.Linear) or embedding is None:
            raise UnsupportedModelError(
                f"PEFT made a `{type(copy).__name__}` in place of `{type(original).__name__}`, "
                "expected a copy of it, or one tied to a copy of the embedding. Name the embedding "
                "in `modules_to_save` too."
            )
        if embedding.rest_shift is None and original.rest_shift is not None:
            embedding.rest_shift = nn.Parameter(torch.zeros_like(original.rest_shift))
        make_partial_head(
            copy,
            weight,
            embedding.table,
            mode=original.mode,
            rest_device=original.frozen.place,
            rest_shift=embedding.rest_shift,
        )
