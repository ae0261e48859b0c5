"""While a model is shrunk its tables are neither resized nor tied to what they are not tied to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from subvocab.errors import UnsupportedModelError
from subvocab.model.partial import PartialModule

RESIZE = "resize_token_embeddings"
TIES = "_tied_weights_keys"


@dataclass(frozen=True)
class ResizingRefused:
    """What stands in place of a model's method; on the object alone, for a class tells much.

    Attributes:
        model: The name of the model's class. The model itself would be a circle, and its
            memory be freed late.
        ties: What the object, rather than its class, has said of ties; or None.
    """

    model: str
    ties: dict[str, str] | None

    def __call__(self, *_args: Any, **_kwargs: Any) -> None:
        """Refuse: no look-up would know of new rows, and learned ones might be lost.

        Args:
            *_args: The model's.
            **_kwargs: The model's.

        Raises:
            UnsupportedModelError: Always.
        """
        raise UnsupportedModelError(
            f"`{self.model}` holds the rows of a partial vocabulary, so it cannot be resized. "
            "Resize the model before it is shrunk, or call `subvocab.restore(model)` first."
        )


def fix_tables(model: nn.Module) -> None:
    """Let a shrunk model, and all models in it, refuse to be resized, and keep their ties.

    The class of a model may name ties that a checkpoint does not have, as with T5 v1.1;
    ``tie_weights``, which libraries call, would make them.

    Args:
        model: A model with partial modules in it.
    """
    for part in model.modules():
        if hasattr(type(part), RESIZE) and any(
            isinstance(m, PartialModule) for m in part.modules()
        ):
            vars(part)[RESIZE] = ResizingRefused(type(part).__name__, vars(part).get(TIES))
            if getattr(part, TIES, None):
                vars(part)[TIES] = _ties_there_are(part)


def free_tables(model: nn.Module) -> None:
    """Undo `fix_tables`.

    Args:
        model: A model that is whole again.
    """
    for part in model.modules():
        refused = vars(part).pop(RESIZE, None)
        if isinstance(refused, ResizingRefused):
            vars(part).pop(TIES, None)
            vars(part).update({} if refused.ties is None else {TIES: refused.ties})


def _ties_there_are(model: Any) -> dict[str, str]:
    """Leave out those that the class of a model names alone."""
    try:
        ties: dict[str, str] = model.get_expanded_tied_weights_keys(all_submodels=False)
    except ValueError:  # an adapter has put one of them in another place
        return getattr(model, TIES)  # type: ignore[no-any-return]
    held = dict(model.named_parameters(remove_duplicate=False))
    apart = {a for a, b in ties.items() if a in held and b in held and held[a] is not held[b]}
    return {a: b for a, b in ties.items() if a not in apart} if apart else getattr(model, TIES)
