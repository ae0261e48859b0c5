"""Make the modules of a model partial, and whole again: the one place that knows all kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from subvocab.errors import UnsupportedModelError
from subvocab.model.bias import PartialBias, bias_holders
from subvocab.model.by_value import FindsTokensByValue, finds_tokens_by_value
from subvocab.model.embedding import PartialEmbedding, make_partial, make_whole
from subvocab.model.fixed_tables import fix_tables, free_tables
from subvocab.model.frozen import PLACES, RestDevice
from subvocab.model.fused import is_fused
from subvocab.model.head import (
    HEAD_MODES,
    HeadMode,
    PartialHead,
    make_partial_head,
    make_whole_head,
)
from subvocab.model.language_model import PartialLanguageModel, make_partial_language_model
from subvocab.model.partial import PartialModule, make_bias_partial, make_whole_module
from subvocab.model.ranks import check_ranks
from subvocab.model.swap import Swapped, refuse_replaced_forward, swap_back, swap_class
from subvocab.model.table import PartialTable
from subvocab.model.tables import EmbeddingTable
from subvocab.model.watch import watch


class Prepared(NamedTuple):
    """A table that is ready to be made partial.

    Attributes:
        table: The table.
        weight: E′.
        partial_table: V′, and E on disk.
    """

    table: EmbeddingTable
    weight: nn.Parameter
    partial_table: PartialTable


@dataclass(frozen=True)
class HeadPlan:
    """What to make of output heads.

    Attributes:
        mode: "exact", "restricted" or "whole".
        rest_shift: Whether an exact head trains a vector for all rows outside V′.
        rest_device: Where those rows stay.

    Raises:
        UnsupportedModelError: If there is no such mode or place.
    """

    mode: HeadMode = "exact"
    rest_shift: bool = True
    rest_device: RestDevice = None

    def __post_init__(self) -> None:
        if self.mode not in HEAD_MODES:
            raise UnsupportedModelError(
                f"`head` is {self.mode!r}, expected one of {', '.join(map(repr, HEAD_MODES))}."
            )
        if self.rest_device not in PLACES:
            raise UnsupportedModelError(
                f"`rest_device` is {self.rest_device!r}, expected None (beside the model), "
                "'cpu' or 'disk'."
            )


def attach(model: nn.Module, prepared: Sequence[Prepared], plan: HeadPlan) -> None:
    """Make every module over some tables partial, in place.

    Args:
        model: The model.
        prepared: Its tables; for each E′, for all of its modules, and V′ with E on disk.
        plan: What to make of its output heads.

    Raises:
        UnsupportedModelError: If a forward that has to change was replaced.
        VocabularyMismatchError: If another rank has another V′.
    """
    # All that may fail comes before the first module is touched.
    for module in _modules_to_change(model, prepared):
        if not is_fused(vars(module).get("forward")):
            refuse_replaced_forward(module)
    for one in prepared:
        check_ranks(one.partial_table.fingerprint)
    watch()
    predicts = any(one.table.heads for one in prepared)
    for one in prepared:
        table, weight, partial_table = one
        partial_table.predicts = predicts
        shift = _shift(one, plan)
        for lookup in table.owners.values():
            make_partial(lookup, weight, partial_table, shift)
        for head in table.heads.values():
            _attach_head(model, head, one, plan, shift)
        for part in _models_with(model, table.heads.values()):
            make_partial_language_model(part)
    for part in list(model.modules()):
        if finds_tokens_by_value(part):
            swap_class(part, FindsTokensByValue)
    fix_tables(model)


def _modules_to_change(model: nn.Module, prepared: Sequence[Prepared]) -> Iterator[nn.Module]:
    """Find all modules whose class will be another."""
    for table, *_ in prepared:
        yield from table.owners.values()
        yield from table.heads.values()
        for head in table.heads.values():
            bias = head._parameters.get("bias")  # noqa: SLF001
            yield from () if bias is None else bias_holders(model, bias).values()
        yield from _models_with(model, table.heads.values())
    yield from filter(finds_tokens_by_value, model.modules())


def _shift(prepared: Prepared, plan: HeadPlan) -> nn.Parameter | None:
    """Make the vector that is added to every row outside V′, if there shall be one."""
    table, weight, partial_table = prepared
    vocabulary = partial_table.vocabulary
    wanted = plan.rest_shift and plan.mode == "exact" and table.heads
    if not wanted or len(vocabulary) == vocabulary.full_vocab_size:
        return None
    return _zeros(weight, weight.shape[1])


def _attach_head(
    model: nn.Module,
    head: nn.Module,
    prepared: Prepared,
    plan: HeadPlan,
    shift: nn.Parameter | None,
) -> None:
    """Make one output head and its bias partial."""
    table, weight, partial_table = prepared
    make_partial_head(
        head,
        weight,
        partial_table,
        mode=plan.mode,
        rest_device=plan.rest_device,
        rest_shift=shift,
    )
    if not isinstance(head, nn.Linear):  # the embedding has the matrix, and so the shift
        for lookup in table.owners.values():
            vars(lookup)["keeps_shift"] = True
    bias = head._parameters.get("bias")  # noqa: SLF001
    if bias is not None:
        _attach_bias(model, bias, partial_table, shifts=shift is not None)


def _attach_bias(
    model: nn.Module, bias: nn.Parameter, table: PartialTable, *, shifts: bool
) -> None:
    """Leave the biases of V′ in every module that holds them."""
    partial_bias = PartialBias(table.vocabulary, bias)
    small = nn.Parameter(partial_bias.of_vocabulary(bias.detach()), bias.requires_grad)
    shift = _zeros(small, 1) if shifts else None
    for holder in bias_holders(model, bias).values():
        make_bias_partial(holder, small, partial_bias, shift)


def detach(model: nn.Module) -> None:
    """Make every module of a shrunk model whole again, in place.

    Args:
        model: A shrunk model.
    """
    modules = [m for m in model.modules() if isinstance(m, PartialModule)]
    wholes: dict[int, nn.Parameter] = {}
    for module in modules:
        for source, part, shift in module.parts().values():
            wholes.setdefault(id(part), _whole(source, part, shift))
    for module in modules:
        new = {name: wholes[id(part)] for name, (_, part, _) in module.parts().items()}
        if isinstance(module, PartialEmbedding):
            make_whole(module, new["weight"])
        elif isinstance(module, PartialHead):
            make_whole_head(module, new.get("weight"))
        else:
            make_whole_module(module)
        if "bias" in new:
            module.bias = new["bias"]
    free_tables(model)
    for model_part in model.modules():
        if isinstance(model_part, PartialLanguageModel):
            vars(model_part).pop("logit_sites", None)
        if isinstance(model_part, Swapped):
            swap_back(model_part)


def _whole(source: PartialTable | PartialBias, part: Tensor, shift: Tensor | None) -> nn.Parameter:
    """Make the whole Parameter of which a module holds a part."""
    whole = source.whole_tensor(part, shift=shift).clone().to(part.device)
    return nn.Parameter(whole, requires_grad=part.requires_grad)


def _zeros(like: nn.Parameter, size: int) -> nn.Parameter:
    """Make a trainable vector of zeros."""
    return nn.Parameter(
        torch.zeros_like(like.detach().flatten()[:1]).repeat(size), like.requires_grad
    )


def _models_with(model: nn.Module, heads: Any) -> list[Any]:
    """Find the models that one of these heads belongs to."""
    wanted = list(heads)
    return [
        part
        for part in model.modules()
        if isinstance(part, PreTrainedModel)
        and any(module is head for head in wanted for module in part.modules())
        and not isinstance(part, PartialLanguageModel)
    ]
