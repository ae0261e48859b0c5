"""The partial embedding module: an ``nn.Embedding`` over E′ that takes ids of V (paper §4).

Ids are renumbered inside the module, so data, tokenizer and config stay as they are. The module
object stays too: only its class changes, to a subclass made on the spot, because models scale
or normalise in embedding classes of their own.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from subvocab.errors import VocabularyMismatchError
from subvocab.model.out_of_vocabulary import checked_partial_ids, partial_ids_or_absent
from subvocab.model.partial import (
    PartialModule,
    add_lookup,
    drop_lookup,
    make_whole_module,
    register_shifts,
)
from subvocab.model.swap import swap_class
from subvocab.model.table import PartialTable


class PartialEmbedding(PartialModule, nn.Embedding):
    """What every partial embedding class adds to the embedding class it came from.

    Never instantiated: see `make_partial`.
    """

    whole_class: type[nn.Embedding]
    table: PartialTable
    weight: nn.Parameter
    token_lookup: Tensor

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Embedding gives it
        """Look token ids up in E′.

        Args:
            input: Token ids of V, any shape.

        Returns:
            What the whole module would return, bit for bit.

        Raises:
            OutOfVocabularyError: In training, if an id is not in V′. In evaluation its
                row is read from E on disk instead.
        """
        if torch.compiler.is_compiling():
            return super().forward(checked_partial_ids(input, self.token_lookup))
        partial_ids, absent = partial_ids_or_absent(input, self.token_lookup)
        if absent is None:
            return super().forward(partial_ids)
        if self.training and not self.table.trains_on_frozen:
            raise self.table.out_of_vocabulary_error(input[absent])
        return self._forward_with_cold_rows(input, partial_ids, absent)

    def _forward_with_cold_rows(
        self, token_ids: Tensor, partial_ids: Tensor, absent: Tensor
    ) -> Tensor:
        """Run the whole class's forward over a small matrix of just the rows of this batch."""
        cold_ids, cold_position = token_ids[absent].unique(return_inverse=True)
        warm_ids, warm_position = partial_ids[~absent].unique(return_inverse=True)
        cold_rows = self.table.read_rows(cold_ids, like=self.weight, shift=self.rest_shift)
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        if learns and not self.table.trains_on_frozen:
            # Nothing may learn from a row that is not there.
            cold_rows.requires_grad_().register_hook(self.table.refuse_gradient(cold_ids))
        positions = torch.empty_like(token_ids)
        positions[~absent] = warm_position.to(positions.dtype)
        positions[absent] = (len(warm_ids) + cold_position).to(positions.dtype)
        # A twin rather than a swap of this module's weight: other threads may be evaluating too.
        twin = copy.copy(self)
        twin.__class__ = self.whole_class  # type: ignore[assignment]
        twin._parameters = {"weight": torch.cat([self.weight[warm_ids], cold_rows])}  # type: ignore[dict-item]  # noqa: SLF001
        twin.padding_idx = None  # it only concerns gradients
        twin.sparse = False
        return self.whole_class.forward(twin, positions)


def make_partial(
    module: nn.Embedding,
    weight: nn.Parameter,
    table: PartialTable,
    rest_shift: nn.Parameter | None = None,
) -> None:
    """Turn an embedding module into a partial one, in place.

    Args:
        module: The module as it is, over E.
        weight: E′, the same object for every module that shares the table.
        table: V′, and E on disk.
        rest_shift: What an output head over the same table adds to every row outside V′,
            ``(dim,)``.

    Raises:
        VocabularyMismatchError: If the module's padding token is not in V′.
    """
    vocabulary = table.vocabulary
    if module.padding_idx is not None:
        if not vocabulary.contains(np.array([module.padding_idx])).all():
            raise VocabularyMismatchError(
                f"The padding id {module.padding_idx} is not in the partial vocabulary of "
                f"{len(vocabulary):,}. Add it with `vocabulary.union([{module.padding_idx}])`."
            )
        module.padding_idx = int(np.searchsorted(vocabulary.token_ids, module.padding_idx))
    module.weight = weight
    module.num_embeddings = len(vocabulary)
    add_lookup(module, table, weight.device)
    register_shifts(module, rest_shift)
    swap_class(module, PartialEmbedding)
    vars(module)["table"] = table


def make_whole(module: PartialEmbedding, weight: nn.Parameter) -> None:
    """Undo `make_partial`.

    Args:
        module: A partial embedding module.
        weight: E, the same object for every module that shares the table.
    """
    vocabulary = module.table.vocabulary
    if module.padding_idx is not None:
        module.padding_idx = int(vocabulary.token_ids[module.padding_idx])
    drop_lookup(module)
    make_whole_module(module)
    module.weight = weight
    module.num_embeddings = weight.shape[0]
