"""Loops of one's own, with Accelerate or without: what a checkpoint keeps beside the weights.

A shrunk model trains in any loop as it is. What a loop cannot see when it is resumed is whether
the optimizer's moments belong to the rows that the model has now.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from subvocab.integrations.optimizers import check_optimizer_state
from subvocab.integrations.resuming import agree, describe
from subvocab.model.shrink import vocabulary_of


class VocabularyState:
    """What belongs into a checkpoint beside the state dicts of model and optimizer.

    Args:
        model: The shrunk model itself, not what was wrapped around it.
        optimizer: Its optimizer.

    Raises:
        UnsupportedModelError: If the model is not shrunk.

    Example:
        >>> from subvocab import PartialVocabulary, shrink
        >>> import numpy as np
        >>> model = torch.nn.Embedding(9, 8)
        >>> _ = shrink(model, PartialVocabulary(np.array([0, 5]), full_vocab_size=9))
        >>> state = VocabularyState(model, torch.optim.AdamW(model.parameters()))
        >>> state.load_state_dict(state.state_dict())  # the same V′: nothing is said
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        vocabulary_of(model)  # raises if there is none
        self.model = model
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Give what tells this V′, its base and the rest shift from others.

        Returns:
            Plain numbers and text, which every format of checkpoints can hold.
        """
        return describe(self.model)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare a checkpoint with the model, once model and optimizer are loaded from it.

        A rest shift that was folded into the rows of the whole checkpoint is taken out
        again, so that training goes on as if it had not been interrupted.

        Args:
            state_dict: From `state_dict`.

        Raises:
            VocabularyMismatchError: If the checkpoint belongs to another V′ or another base.
        """
        agree(self.model, self.optimizer, state_dict, carry_over=False)
        check_optimizer_state(self.model, self.optimizer)
