"""What PEFT does with the modules of a model, as far as partial modules must know of it.

Adapters on other layers need nothing from here. PEFT is never imported: where nobody has imported
it, no module can be one of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

LAYER = ("peft.tuners.tuners_utils", "BaseTunerLayer")
TRAINED_COPY = ("peft.utils.other", "ModulesToSaveWrapper")
TRAINED_TOKENS = ("peft.utils.other", "TrainableTokensWrapper")
MODEL = ("peft.peft_model", "PeftModel")
WRAPPING = ("modules_to_save", "original_module", "base_layer", "token_adapter")
"""Parts of a module's name that adapters put in."""
ADVICE = (
    "Leave it out of the adapter's `target_modules` and `trainable_token_indices`. To train its "
    "rows beside the adapter, name it in `modules_to_save`, or let it require a gradient and keep "
    "the rows in a `subvocab.RowAdapter`."
)
"""What to do instead of an adapter on an embedding or an output head."""


def is_a(module: object, kind: tuple[str, str]) -> bool:
    """Tell whether a module is one of PEFT's.

    Args:
        module: Any module.
        kind: `LAYER`, `TRAINED_COPY` or `MODEL`.

    Returns:
        Whether it is an instance of that class.

    Example:
        >>> is_a(nn.Linear(2, 2), LAYER)
        False
    """
    home, name = kind
    return isinstance(module, getattr(sys.modules.get(home), name, ()))


def is_adapter(module: object) -> bool:
    """Tell whether a module stands in another's place and computes with its rows by itself.

    Args:
        module: Any module.

    Returns:
        Whether it is a layer of PEFT's, such as LoRA's.
    """
    return is_a(module, LAYER) or is_a(module, TRAINED_TOKENS)


def kind_of(module: object) -> str:
    """Name the class of a module.

    Args:
        module: Any module.

    Returns:
        The name; PEFT calls its own as those they wrap, so it is said whose it is.

    Example:
        >>> kind_of(nn.Linear(2, 2))
        '`Linear`'
    """
    return f"`{type(module).__name__}`" + (" of PEFT" if is_adapter(module) else "")


def candidates(module: Any) -> list[Any]:
    """Give the modules that may run in a module's place.

    Args:
        module: Any module, or None.

    Returns:
        The module; or that which PEFT wraps, and the copies it trains in its place.
    """
    if not is_a(module, TRAINED_COPY):
        return [module]
    return [module.original_module, *module.modules_to_save.values()]


def _runs(module: Any) -> nn.Module:
    """Tell which of the candidates of a wrapper runs."""
    copies, active = module.modules_to_save, module.active_adapters
    if module.disable_adapters or not active or active[0] not in copies:
        return module.original_module  # type: ignore[no-any-return]
    return copies[active[0]]  # type: ignore[no-any-return]


def running_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give the modules of a model without those in whose place a copy runs, or which are such.

    Args:
        model: Any model.

    Yields:
        Names as ``named_modules`` gives them, and modules.
    """
    idle: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in idle:
            continue
        if is_a(module, TRAINED_COPY):
            runs = set(map(id, _runs(module).modules()))
            idle |= {id(part) for one in candidates(module) for part in one.modules()} - runs
        yield name, module


def plain_name(name: str) -> str:
    """Give a module the name that it has without adapters.

    Args:
        name: Its name in a model with adapters.

    Returns:
        Its name without what wraps it.

    Example:
        >>> plain_name("encoder.embed_tokens.modules_to_save.default")
        'encoder.embed_tokens'
    """
    kept: list[str] = []
    parts = iter(name.split("."))
    for part in parts:
        if part == "modules_to_save":
            next(parts, None)  # the adapter's own name
        elif part not in WRAPPING:
            kept.append(part)
    return ".".join(kept)
