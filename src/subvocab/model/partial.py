"""What every partial module adds to the class it came from: state dicts that are whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from subvocab.model.bias import PartialBias
from subvocab.model.ranks import gathered, spread_like
from subvocab.model.swap import (
    Swapped,
    refuse_foreign_forward,
    swap_back,
    swap_class,
)
from subvocab.model.table import PartialTable

TOKEN_IDS_KEY = "token_ids"  # noqa: S105 - not that kind of token
"""Stands beside E′ in a compact state dict, so that rows never go without their tokens."""
BASE_KEY = "base_fingerprint"
"""Stands there too, so that they never go without the unused rows that they were trained beside."""
SHIFT_KEY = "rest_shift"
BIAS_SHIFT_KEY = "rest_bias_shift"


def is_compact(names: Iterable[str]) -> bool:
    """Tell whether a state dict of these names is compact: token ids stand beside its rows."""
    return any(name.endswith(f".{TOKEN_IDS_KEY}") for name in names)


class PartialModule(Swapped):
    """A module of which some parameters hold only what belongs to V′. Never instantiated.

    Attributes:
        table: What its ``weight`` is a part of, or None.
        partial_bias: What its ``bias`` is a part of, or None.
        rest_shift: What is added to every row outside V′, ``(dim,)``, or None. One
            Parameter for all modules over a table; the head alone keeps it in compact
            checkpoints (``keeps_shift``).
        rest_bias_shift: The same for biases, ``(1,)``, or None.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    table: PartialTable | None = None
    partial_bias: PartialBias | None = None
    keeps_shift = False
    rest_shift: nn.Parameter | None
    rest_bias_shift: nn.Parameter | None

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a forward that would compute with the rows of V′ by itself."""
        if name == "forward":
            refuse_foreign_forward(self, value)
        super().__setattr__(name, value)

    @classmethod
    def name_for(cls, whole_class: type[nn.Module]) -> str:
        """Name the class that is made of another.

        Args:
            whole_class: The other.

        Returns:
            Its name after "Partial".
        """
        return f"Partial{whole_class.__name__}"

    @property
    def token_ids(self) -> Tensor:
        """V′; torch's distributed checkpoints look up all that stands in a state dict."""
        if self.table is None:
            raise AttributeError(TOKEN_IDS_KEY)
        return torch.tensor(self.table.vocabulary.token_ids)

    @property
    def base_fingerprint(self) -> Tensor:
        """The name of E, as the bytes of a text."""
        if self.table is None:
            raise AttributeError(BASE_KEY)
        return self.table.base_name()

    def parts(self) -> dict[str, tuple[PartialTable | PartialBias, nn.Parameter, Tensor | None]]:
        """Give the parameters that hold only what belongs to V′.

        Returns:
            By name: what each is a part of, the part, and what is added to the rest.
        """
        parts: dict[str, tuple[PartialTable | PartialBias, nn.Parameter, Tensor | None]] = {}
        if self.table is not None:
            parts["weight"] = (self.table, self.weight, self.rest_shift)
        if self.partial_bias is not None:
            parts["bias"] = (self.partial_bias, self.bias, self.rest_bias_shift)
        return parts

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Write the whole matrix, or for a compact checkpoint the rows and their tokens."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if keep_vars:  # the caller wants the parameters themselves
            return
        compact = self.table is not None and self.table.compact
        if not (compact and self.keeps_shift):
            destination.pop(prefix + SHIFT_KEY, None)
        destination.pop(prefix + BIAS_SHIFT_KEY, None)
        for name, (source, part, shift) in self.parts().items():
            if compact and isinstance(source, PartialTable):  # biases are small, so always whole
                destination[prefix + TOKEN_IDS_KEY] = self.token_ids
                destination[prefix + BASE_KEY] = self.base_fingerprint
            else:
                whole = source.whole_tensor(part, destination, shift=shift)
                destination[prefix + name] = whole

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the whole matrix or a compact checkpoint of the same V′; refuse any other."""
        if self.table is not None:
            self._take_weight(self.table, state_dict, prefix)
        if self.partial_bias is not None:
            self._take_bias(self.partial_bias, state_dict, prefix)
        for key in (SHIFT_KEY, BIAS_SHIFT_KEY):  # a whole checkpoint has them in its rows
            if self._parameters.get(key) is not None:
                state_dict.setdefault(prefix + key, self._parameters[key])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _take_weight(self, table: PartialTable, state_dict: dict[str, Any], prefix: str) -> None:
        """Put the rows of V′ in place of the whole matrix, and settle the shift."""
        weight = state_dict.get(prefix + "weight")
        token_ids = state_dict.pop(prefix + TOKEN_IDS_KEY, None)
        base = state_dict.pop(prefix + BASE_KEY, None)
        shift = self.rest_shift
        zero = None if shift is None else torch.zeros_like(shift)
        whole_shape = (table.vocabulary.full_vocab_size, self.weight.shape[1])
        if weight is not None:
            table.foreign = None
        if weight is not None and token_ids is None and tuple(weight.shape) == whole_shape:
            whole, dtype = gathered(weight), self.weight.dtype
            adopted = table.adopt_unused_rows(whole, dtype=dtype, shift=gathered(shift))
            if adopted and zero is not None:
                state_dict[prefix + SHIFT_KEY] = zero
            rows = torch.tensor(table.vocabulary.token_ids)
            part = spread_like(whole[rows.to(whole.device)], self.weight)
            state_dict[prefix + "weight"] = part
        elif token_ids is not None and table.keeps_foreign(token_ids, weight):
            state_dict[prefix + "weight"] = self.weight
        elif weight is not None:
            table.check_token_ids(token_ids, prefix + "weight", tuple(weight.shape))
            table.check_base(base, prefix + "weight")
            if self.keeps_shift and zero is not None and not table.watched_by:
                state_dict.setdefault(prefix + SHIFT_KEY, zero)  # else another shard may have it
        elif token_ids is not None:  # a tied one, or that of another shard
            table.check_token_ids(token_ids, prefix + "weight", (len(token_ids),))

    def _take_bias(self, bias: PartialBias, state_dict: dict[str, Any], prefix: str) -> None:
        """Put the biases of V′ in place of all, and settle their shift."""
        whole, shift = gathered(state_dict.get(prefix + "bias")), self.rest_bias_shift
        if whole is not None and tuple(whole.shape) == tuple(bias.whole.shape):
            if bias.adopt_unused(whole, gathered(shift)) and shift is not None:
                state_dict[prefix + BIAS_SHIFT_KEY] = torch.zeros_like(shift)
            state_dict[prefix + "bias"] = spread_like(bias.of_vocabulary(whole), self.bias)


def register_shifts(
    module: nn.Module,
    rest_shift: nn.Parameter | None = None,
    rest_bias_shift: nn.Parameter | None = None,
) -> None:
    """Give a module what is added to all that lies outside V′.

    Args:
        module: A module that is made partial.
        rest_shift: To rows, ``(dim,)``.
        rest_bias_shift: To biases, ``(1,)``.
    """
    module.register_parameter(SHIFT_KEY, rest_shift)
    module.register_parameter(BIAS_SHIFT_KEY, rest_bias_shift)


def make_bias_partial(
    module: nn.Module, bias: nn.Parameter, partial_bias: PartialBias, shift: nn.Parameter | None
) -> None:
    """Leave only the biases of V′ in a module that holds them, in place.

    Args:
        module: An output head, or another module that holds the same bias.
        bias: Those of V′, the same object for every module.
        partial_bias: V′, and all biases as they were.
        shift: What is added to all others, ``(1,)``, or None.
    """
    if not isinstance(module, PartialModule):
        register_shifts(module)
        swap_class(module, PartialModule)
    module.bias = bias
    vars(module)["partial_bias"] = partial_bias
    module.register_parameter(BIAS_SHIFT_KEY, shift)


def make_whole_module(module: PartialModule) -> None:
    """Take away what any partial module was given, but for its tensors.

    Args:
        module: A partial module.
    """
    swap_back(module)
    for name in ("table", "partial_bias", "keeps_shift"):
        vars(module).pop(name, None)
    for name in (SHIFT_KEY, BIAS_SHIFT_KEY):
        module._parameters.pop(name, None)  # noqa: SLF001
