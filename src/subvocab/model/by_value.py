"""Models that search the embedding matrix for a vector, to find the token it stands for."""

from __future__ import annotations

from typing import Any

from torch import nn

from subvocab.errors import UnsupportedModelError
from subvocab.model.swap import Swapped

SEARCHES = ("get_per_layer_inputs", "reverse_embedding")
"""Methods that find ids by value where they are given embeddings alone (Gemma 4, Qwen 4)."""


class FindsTokensByValue(Swapped):
    """A model that does so, and now refuses: in E′ it would find ids of V′. Never instantiated."""

    def get_per_layer_inputs(self, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Look token ids up in the tables of the layers.

        Args:
            input_ids: Ids of V, or None.
            *args: The model's.
            **kwargs: The model's.

        Returns:
            What the model's own method returns.

        Raises:
            UnsupportedModelError: If there are no ids.
        """
        if input_ids is None:
            raise _refusal(self)
        own: Any = self.whole_class
        return own.get_per_layer_inputs(self, input_ids, *args, **kwargs)

    def reverse_embedding(self, inputs_embeds: Any) -> Any:  # noqa: ARG002
        """Refuse to find ids.

        Args:
            inputs_embeds: Embeddings.

        Returns:
            Nothing.

        Raises:
            UnsupportedModelError: Always.
        """
        raise _refusal(self)


def finds_tokens_by_value(module: nn.Module) -> bool:
    """Tell whether a module has such a method.

    Args:
        module: Any module.

    Returns:
        Whether it has.
    """
    return any(hasattr(type(module), name) for name in SEARCHES)


def _refusal(model: nn.Module) -> UnsupportedModelError:
    """Say why embeddings alone are not enough."""
    return UnsupportedModelError(
        f"`{type(model).__name__}` was given `inputs_embeds` without `input_ids` and searches its "
        "embedding matrix for their tokens, but only the rows of the partial vocabulary are in it. "
        "Pass `input_ids`, or the per-layer inputs as well."
    )
