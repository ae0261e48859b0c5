"""The partial embedding module: an ``nn.Embedding`` over E′ that takes ids of V (paper §4).

Ids are renumbered inside the module, so data, tokenizer and config stay as they are. The module
object stays too: only its class changes, to a subclass made on the spot, because models scale
or normalise in embedding classes of their own.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subvocab.errors import VocabularyMismatchError
from subvocab.model.out_of_vocabulary import checked_partial_ids, partial_ids_or_absent
from subvocab.model.table import PartialTable
from subvocab.vocabulary.partial import ABSENT

LOOKUP_NAME = "token_lookup"
TOKEN_IDS_KEY = "token_ids"  # noqa: S105 - not that kind of token
"""Stands beside E′ in a compact state dict, so that rows never go without their tokens."""


class PartialEmbedding(nn.Embedding):
    """What every partial embedding class adds to the embedding class it came from.

    Never instantiated: see `make_partial`.
    """

    whole_class: type[nn.Embedding]
    table: PartialTable
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
        if self.training:
            raise self.table.out_of_vocabulary_error(input[absent])
        return self._forward_with_cold_rows(input, partial_ids, absent)

    def _forward_with_cold_rows(
        self, token_ids: Tensor, partial_ids: Tensor, absent: Tensor
    ) -> Tensor:
        """Run the whole class's forward over a small matrix of just the rows of this batch."""
        cold_ids, cold_position = token_ids[absent].unique(return_inverse=True)
        warm_ids, warm_position = partial_ids[~absent].unique(return_inverse=True)
        cold_rows = self.table.read_rows(cold_ids, like=self.weight)
        if torch.is_grad_enabled() and self.weight.requires_grad:
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

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Write the whole matrix, or for a compact checkpoint the rows and their tokens."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if keep_vars:  # the caller wants the parameters themselves
            return
        if self.table.compact:
            token_ids = self.table.vocabulary.token_ids
            destination[prefix + TOKEN_IDS_KEY] = torch.tensor(token_ids)
        else:
            destination[prefix + "weight"] = self.table.whole_tensor(self.weight, destination)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the whole matrix or a compact checkpoint of the same V′; refuse any other."""
        weight = state_dict.get(prefix + "weight")
        token_ids = state_dict.pop(prefix + TOKEN_IDS_KEY, None)
        if weight is not None:
            whole_shape = (self.table.vocabulary.full_vocab_size, self.embedding_dim)
            if token_ids is None and tuple(weight.shape) == whole_shape:
                self.table.adopt_unused_rows(weight, dtype=self.weight.dtype)
                rows = torch.from_numpy(np.array(self.table.vocabulary.token_ids))
                state_dict[prefix + "weight"] = weight[rows.to(weight.device)]
            else:
                self.table.check_token_ids(token_ids, prefix + "weight", tuple(weight.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Name the class by the one it came from: this one has no module to be imported from."""
        return _new_instance, (self.whole_class,), self.__dict__.copy()


_partial_classes: dict[type, type[PartialEmbedding]] = {}


def partial_class(whole_class: type[nn.Embedding]) -> type[PartialEmbedding]:
    """Make the partial form of an embedding class.

    Args:
        whole_class: ``nn.Embedding`` or a subclass with its own forward.

    Returns:
        A subclass of it, the same at each call.
    """
    if whole_class not in _partial_classes:
        name, bases = f"Partial{whole_class.__name__}", (PartialEmbedding, whole_class)
        _partial_classes[whole_class] = type(name, bases, {"whole_class": whole_class})
    return _partial_classes[whole_class]


def make_partial(module: nn.Embedding, weight: nn.Parameter, table: PartialTable) -> None:
    """Turn an embedding module into a partial one, in place.

    Args:
        module: The module as it is, over E.
        weight: E′, the same object for every module that shares the table.
        table: V′, and E on disk.

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
    lookup = torch.full((vocabulary.full_vocab_size,), ABSENT, dtype=torch.int32)
    lookup[torch.tensor(vocabulary.token_ids)] = torch.arange(len(vocabulary), dtype=torch.int32)
    module.register_buffer(LOOKUP_NAME, lookup.to(weight.device), persistent=False)
    module.__class__ = partial_class(type(module))
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
    module.__class__ = module.whole_class  # type: ignore[assignment]
    del module._buffers[LOOKUP_NAME], module.table  # noqa: SLF001
    module._non_persistent_buffers_set.discard(LOOKUP_NAME)  # noqa: SLF001
    module.weight = weight
    module.num_embeddings = weight.shape[0]


def _new_instance(whole_class: type[nn.Embedding]) -> PartialEmbedding:
    """Make an empty instance for pickle and deepcopy to fill."""
    made = partial_class(whole_class)
    return made.__new__(made)
