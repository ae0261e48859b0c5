"""Biases over the vocabulary, of which those of V′ are trained and the rest frozen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from subvocab.model.partial_matrix import share_whole, shared_whole
from subvocab.model.ranks import gathered
from subvocab.model.tensors import to_bytes
from subvocab.vocabulary import PartialVocabulary
from subvocab.vocabulary.partial import ABSENT


class PartialBias:
    """A vector with a number for each token of V, of which only those of V′ are trained.

    It is small, so the whole of it stays in memory, and every checkpoint holds it whole.

    Args:
        vocabulary: V′.
        whole: The biases as they were, ``(full,)``.

    Attributes:
        replaced: Those that gave way to what was loaded: the first, and the latest.
    """

    def __init__(self, vocabulary: PartialVocabulary, whole: Tensor) -> None:
        self.vocabulary = vocabulary
        self.whole = whole.detach().clone()
        self.replaced: tuple[Tensor, ...] = ()
        self._used = torch.tensor(vocabulary.token_ids)
        self._unused = torch.tensor(vocabulary.lookup == ABSENT).nonzero().squeeze(1)

    def __deepcopy__(self, _memo: object) -> PartialBias:
        """Share what is only ever replaced, never changed."""
        copied = object.__new__(PartialBias)
        copied.__dict__.update(self.__dict__)
        return copied

    def of_vocabulary(self, whole: Tensor) -> Tensor:
        """Take the biases of V′.

        Args:
            whole: ``(full,)``.

        Returns:
            ``(partial,)``.
        """
        return whole[self._used.to(whole.device)]

    def of_rest(self, *, like: Tensor) -> Tensor:
        """Give the frozen biases.

        Args:
            like: A tensor of the dtype and device wanted.

        Returns:
            ``(full − partial,)``, in the order of the ids.
        """
        return self.whole[self._unused.to(self.whole.device)].to(like.device, like.dtype)

    def whole_tensor(
        self,
        bias: Tensor,
        destination: dict[str, Any] | None = None,
        *,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Give all biases, those of V′ as they are now.

        Args:
            bias: Those of V′, ``(partial,)``.
            destination: As for ``PartialTable.whole_tensor``.
            shift: What is added to all others, ``(1,)``.

        Returns:
            ``(full,)`` on the device of ``bias``.
        """
        if (shared := shared_whole(bias, destination)) is not None:
            return shared
        part = gathered(bias).detach()
        whole = self._shifted(gathered(shift), like=part)
        whole[self._used.to(whole.device)] = part
        return share_whole(whole, bias)

    def adopt_unused(self, whole: Tensor, shift: Tensor | None) -> bool:
        """Make the frozen biases those of a vector that is being loaded.

        Args:
            whole: ``(full,)``.
            shift: What is added to them at present.

        Returns:
            Whether they were others; if so the shift must go.
        """
        if self._same_unused(self.whole, shift, whole):
            return False
        self.replaced = (*self.replaced[:1], self.whole)
        self.whole = whole.detach().to(self.whole.device, self.whole.dtype, copy=True)
        return True

    def put_back(self, bias: Tensor, shift: Tensor | None, wanted: Tensor) -> bool:
        """Undo `adopt_unused` where nothing but a shift was folded in.

        Args:
            bias: Those of V′, ``(partial,)``.
            shift: What is added to all others at present, ``(1,)``.
            wanted: What shall be added to them, ``(1,)``.

        Returns:
            As ``PartialTable.put_back``.
        """
        whole = self.whole_tensor(bias, shift=shift)
        known = (*self.replaced, self.whole)
        for number, held in enumerate(known):
            if self._same_unused(held, wanted, whole):
                self.whole, self.replaced = held, known[:number]
                return True
        return False

    def return_to_base(self) -> None:
        """Let the frozen biases be those that the model was shrunk with."""
        self.whole = (*self.replaced, self.whole)[0]
        self.replaced = ()

    @property
    def adopted(self) -> bool:
        """Whether they are what was loaded into the model, rather than its own."""
        return bool(self.replaced)

    def _same_unused(self, held: Tensor, shift: Tensor | None, whole: Tensor) -> bool:
        """Compare frozen biases, shifted, with those of a whole vector, by bits."""
        mine = held if shift is None else held + shift.detach().to(held.device, held.dtype)
        theirs = whole.detach().to(held.device, held.dtype)
        unused = self._unused.to(held.device)
        return bool((to_bytes(mine[unused, None]) == to_bytes(theirs[unused, None])).all())

    def _shifted(self, shift: Tensor | None, *, like: Tensor) -> Tensor:
        """Copy all biases shifted; who wants those of V′ puts them over the copy."""
        whole = self.whole.to(like.device, like.dtype, copy=True)
        return whole if shift is None else whole + shift.detach().to(like.device, like.dtype)


def bias_holders(model: nn.Module, parameter: Tensor) -> dict[str, nn.Module]:
    """Find every module that holds a bias: BERT's stands in two.

    Args:
        model: The model.
        parameter: The bias.

    Returns:
        The modules by name.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if module._parameters.get("bias") is parameter  # noqa: SLF001
    }
