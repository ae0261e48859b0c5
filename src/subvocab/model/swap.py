"""Change the class of a module in place, and change it back.

The module stays the same object, with its hooks, its name and its place in the model; models scale
or normalise in classes of their own, which are kept as the base of the new one.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from subvocab.errors import UnsupportedModelError

HARMLESS = ("accelerate", "peft", "subvocab", "torch.", "transformers")
"""Libraries that wrap a module's forward, but call it."""


class Swapped(nn.Module):
    """What every class that is made on the spot has in common. Never instantiated.

    Attributes:
        whole_class: The class that the module came from.
        mixin: What it gained.
    """

    whole_class: type[nn.Module]
    mixin: type[Swapped]

    @classmethod
    def name_for(cls, whole_class: type[nn.Module]) -> str:
        """Name the class that is made of another.

        Args:
            whole_class: The other.

        Returns:
            A name; the same one where libraries go by it.
        """
        return whole_class.__name__

    @classmethod
    def members_for(cls, whole_class: type[nn.Module]) -> dict[str, Any]:  # noqa: ARG003
        """Give what the new class has that depends on the other.

        Args:
            whole_class: The other.

        Returns:
            Members by name.
        """
        return {}

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Name the class by those it came from: this one has no module to be imported from."""
        return _new_instance, (self.mixin, self.whole_class), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()


_classes: dict[tuple[type, type], type] = {}


def swapped_class(mixin: type[Swapped], whole_class: type[nn.Module]) -> Any:
    """Make a class that has more than another.

    Args:
        mixin: What it gains.
        whole_class: The class as it is.

    Returns:
        A subclass of both, the same at each call.
    """
    key = (mixin, whole_class)
    if key not in _classes:
        members = {
            "whole_class": whole_class,
            "mixin": mixin,
            "__module__": whole_class.__module__,
            "__doc__": whole_class.__doc__,
            **mixin.members_for(whole_class),
        }
        _classes[key] = type(mixin.name_for(whole_class), (mixin, whole_class), members)
    return _classes[key]


def swap_class(module: nn.Module, mixin: type[Swapped]) -> None:
    """Let a module gain what a mixin has, in place.

    Args:
        module: The module.
        mixin: What it gains.

    Raises:
        UnsupportedModelError: If its forward was replaced, which the new class's would not be.
    """
    refuse_replaced_forward(module)
    module.__class__ = swapped_class(mixin, type(module))


def refuse_replaced_forward(module: nn.Module) -> None:
    """Refuse to swap the class of a module that would not call its new forward.

    Args:
        module: The module.

    Raises:
        UnsupportedModelError: If it has a forward of its own.
    """
    if "forward" in vars(module):
        raise UnsupportedModelError(
            f"The forward of `{type(module).__name__}` was replaced by one of "
            f"`{module_of(module.forward)}`, which would pass by the partial vocabulary. Shrink "
            "the model first, then dispatch it over devices, wrap or patch it."
        )


def refuse_foreign_forward(module: nn.Module, forward: Any) -> None:
    """Refuse a forward that would take the rows of V′ for those of V.

    Args:
        module: A module that holds them.
        forward: What shall take the place of its forward.

    Raises:
        UnsupportedModelError: Unless it is known to call the module's own.
    """
    if not module_of(forward).startswith(HARMLESS):
        raise UnsupportedModelError(
            f"`{module_of(forward)}` replaces the forward of `{type(module).__name__}`, and would "
            "compute logits from the rows of the partial vocabulary with labels of the whole "
            "one. Switch its fused or chunked loss off, or call `subvocab.restore(model)` first."
        )


def module_of(function: Any) -> str:
    """Tell where a function was written, whatever it was wrapped to look like.

    Args:
        function: A function, a method or a partial.

    Returns:
        The name of a module.

    Example:
        >>> module_of(functools.partial(module_of, None))
        'subvocab.model.swap'
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return str(getattr(function, "__globals__", {}).get("__name__", "unknown"))


def swap_back(module: Swapped) -> None:
    """Undo `swap_class`.

    Args:
        module: The module.
    """
    module.__class__ = module.whole_class  # type: ignore[assignment]


def _new_instance(mixin: type[Swapped], whole_class: type[nn.Module]) -> Any:
    """Make an empty instance for pickle and deepcopy to fill."""
    made = swapped_class(mixin, whole_class)
    return made.__new__(made)
