"""The partial embedding module: it takes ids of V, and looks up in E′ (paper §4).

Ids are renumbered inside the module, so data, tokenizer and config stay as they are. The module
object stays too: only its class changes, to a subclass made on the spot, because models scale
or normalise in embedding classes of their own. An ``nn.EmbeddingBag`` is one more such class.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subvocab.errors import VocabularyMismatchError
from subvocab.model.out_of_vocabulary import checked_partial_ids, partial_ids_or_absent
from subvocab.model.partial import (
    PartialModule,
    make_whole_module,
    register_shifts,
)
from subvocab.model.ranks import check_ranks
from subvocab.model.swap import swap_class
from subvocab.model.table import PartialTable


class PartialEmbedding(PartialModule):
    """What every partial embedding class adds to the embedding class it came from.

    Never instantiated: see `make_partial`.
    """

    table: PartialTable
    weight: nn.Parameter
    padding_idx: int | None
    num_embeddings: int
    sparse: bool

    def forward(self, input: Tensor, *options: Any, **more: Any) -> Any:  # noqa: A002 - torch's name
        """Look token ids up in E′.

        Args:
            input: Token ids of V, any shape.
            *options: What else the whole module takes: a bag's offsets, and a weight an id.
            **more: The same by name.

        Returns:
            What the whole module would return, bit for bit.

        Raises:
            OutOfVocabularyError: In training, if an id is not in V′. In evaluation its
                row is read from E on disk instead.
            VocabularyMismatchError: If another rank trains on another V′, or the module was
                given other rows than those of V′.
        """
        if self.training:  # the process group may have been started after the model was shrunk
            check_ranks(self.table.fingerprint)
        self.table.check_weight(self.weight)
        lookup = self.table.lookup_on(input.device)
        if torch.compiler.is_compiling():
            return super().forward(checked_partial_ids(input, lookup), *options, **more)
        partial_ids, absent = partial_ids_or_absent(input, lookup)
        if absent is None:
            return super().forward(partial_ids, *options, **more)
        if self.training and not self.table.trains_on_frozen:
            raise self.table.out_of_vocabulary_error(input[absent])
        twin, positions = self._twin_with_cold_rows(input, partial_ids, absent)
        return self.whole_class.forward(twin, positions, *options, **more)

    def _twin_with_cold_rows(
        self, token_ids: Tensor, partial_ids: Tensor, absent: Tensor
    ) -> tuple[Any, Tensor]:
        """Make a whole module over a small matrix of just the rows of this batch."""
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
        twin: Any = copy.copy(self)
        twin.__class__ = self.whole_class
        twin._parameters = {"weight": torch.cat([self.weight[warm_ids], cold_rows])}  # noqa: SLF001
        if self.padding_idx is not None:  # no gradient for it, and a bag passes it over
            padding = (warm_ids == self.padding_idx).nonzero()
            twin.padding_idx = int(padding) if len(padding) else None
        twin.sparse = False
        return twin, positions


def make_partial(
    module: nn.Embedding | nn.EmbeddingBag,
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
    make_whole_module(module)
    module.weight = weight
    module.num_embeddings = weight.shape[0]
