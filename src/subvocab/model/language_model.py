"""A language model over a partial head: it computes its own loss on |V′| + 1 columns.

Labels keep their ids of V until they enter the model, where they are renumbered like the tokens.
What models do to logits after their head has to come before the log-sum-exp; so the head does it,
and while the model's forward runs, its configuration says that nothing is left to do.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from contextlib import nullcontext
from threading import RLock
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from subvocab.errors import OutOfVocabularyError, UnsupportedModelError
from subvocab.model.adapters import running_modules
from subvocab.model.fused import is_fused, over_partial_head
from subvocab.model.head import PartialHead
from subvocab.model.logits import (
    Sites,
    check_logits,
    find_sites,
    loss_logits_of,
    refuse_label_smoothing,
)
from subvocab.model.out_of_vocabulary import partial_ids_or_absent
from subvocab.model.swap import Swapped, refuse_foreign_forward, swap_class

IGNORED = -100
LABELS = ("labels", "shift_labels")

_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
"""One a head. Beside it: a lock can be neither copied nor pickled."""


class PartialLanguageModel(Swapped):
    """What a model over a partial head adds to its class. Never instantiated.

    Attributes:
        logit_sites: What the model does to its logits, found out at the first loss.
    """

    logit_sites: Sites | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a forward that fuses the head with the loss, unless it is known: TRL's."""
        if name == "forward" and is_fused(value):
            value = _with_partial_head(value)
        elif name == "forward":
            refuse_foreign_forward(self, value)
        super().__setattr__(name, value)

    @classmethod
    def members_for(cls, whole_class: type[nn.Module]) -> dict[str, Any]:
        """Give the forward, whose signature is the model's own: trainers choose inputs by it.

        Args:
            whole_class: The class of a language model.

        Returns:
            The forward.
        """

        @functools.wraps(whole_class.forward)
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            # A library may hold on to this method for longer than the model is partial.
            if self.training and isinstance(self, PartialLanguageModel):
                return forward_in_training(self, *args, **kwargs)
            return whole_class.forward(self, *args, **kwargs)

        return {"forward": forward}


def make_partial_language_model(model: Any) -> None:
    """Let a model compute its loss over a partial head, in place.

    Args:
        model: A language model as it is, but for its head, which is partial.

    Raises:
        UnsupportedModelError: If its forward was replaced by one that is not known.
    """
    fused = vars(model).get("forward")
    if is_fused(fused):
        del model.forward
    swap_class(model, PartialLanguageModel)
    if is_fused(fused):
        model.forward = fused


def _with_partial_head(method: Any) -> MethodType:
    """Let a fused forward know of the partial head, for as long as there is one."""
    function = method.__func__
    twins: WeakKeyDictionary[nn.Module, FunctionType] = WeakKeyDictionary()

    # What it calls is compiled by itself: a copy of the model comes here too, with another head.
    @torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
    @functools.wraps(function)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        heads = [head for head in partial_heads(self) if len(head.frozen)]
        if not heads or not kwargs.get("fused_lm_head"):
            return function(self, *args, **kwargs)
        trains_on_frozen = heads[0].frozen.table.trains_on_frozen and heads[0].mode == "exact"
        if self.training and not trains_on_frozen:
            for name in LABELS:
                if kwargs.get(name) is not None:
                    partial_labels(kwargs[name], heads[0])
        if heads[0] not in twins:
            twins[heads[0]] = over_partial_head(function, heads[0])
        return twins[heads[0]](self, *args, **kwargs)

    return MethodType(forward, method.__self__)


# Functions rather than methods: a model may have methods of these names, as ProphetNet has.
@torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
def forward_in_training(model: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a model's forward; if it computes a loss, on the head's loss logits.

    Args:
        model: A model over a partial head.
        *args: For its forward.
        **kwargs: For its forward.

    Returns:
        What the forward returns; beside a loss its logits are ``(..., partial + 1)``.

    Raises:
        OutOfVocabularyError: If a label is not in V′.
        UnsupportedModelError: If the model computes its loss otherwise.
    """
    heads = partial_heads(model)
    # The head and the models around it hold a state while a loss is computed.
    with _locks.setdefault(heads[0], RLock()) if len(heads) == 1 else nullcontext():
        if _computes_loss(model, heads, args, kwargs):
            return _compute_loss(model, heads[0], _named(model.whole_class, args, kwargs))
        return model.whole_class.forward(model, *args, **kwargs)


def _compute_loss(model: Any, head: PartialHead, named: dict[str, Any]) -> Any:
    """Compute a loss on renumbered labels and the head's loss logits."""
    if _derives_decoder_inputs(model, named):
        given = {name: value for name, value in named.items() if value is not None}
        named = decoder_inputs(model, named["labels"]) | given
    ignored = named.pop("ignore_index", IGNORED)  # an id of V, which the loss must not compare
    for name in LABELS:
        if named.get(name) is not None:
            if ignored != IGNORED:
                named[name] = named[name].masked_fill(named[name] == ignored, IGNORED)
            named[name] = partial_labels(named[name], head)
    models, sites, forward = _models_over(model, head), model.logit_sites, model.whole_class.forward
    try:
        if sites is None:
            refuse_label_smoothing(models)
            sites = find_sites(models, head, lambda: forward(model, **_on_trial(named)))
        with loss_logits_of(models, head, sites):
            output = forward(model, **named)
        if head.produced is None:
            raise UnsupportedModelError(
                f"`{type(model).__name__}` computed a loss without calling its output head, "
                "expected logits from it. Is its forward replaced by a fused one? Use it as "
                "transformers has it."
            )
        check_logits(model, output, head, closely=model.logit_sites is None)
        vars(model)["logit_sites"] = sites
    finally:
        head.produced = None
    return output


def partial_heads(model: nn.Module) -> list[PartialHead]:
    """Find the partial output heads of a model, without those in whose place a copy runs.

    Args:
        model: Any model.

    Returns:
        The modules; nearly always one or none.
    """
    return [module for _, module in running_modules(model) if isinstance(module, PartialHead)]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def partial_labels(labels: Tensor, head: PartialHead) -> Tensor:
    """Renumber labels for the columns of a partial head.

    Args:
        labels: Ids of V; -100 where there is nothing to predict.
        head: The head.

    Returns:
        Ids of V′, -100 where it was.

    Raises:
        OutOfVocabularyError: If one is not in V′.
    """
    ignored = labels == IGNORED
    lookup = head.token_lookup
    anything = head.frozen.table.vocabulary.token_ids[0]
    token_ids = labels.masked_fill(ignored, int(anything)).to(lookup.device)
    partial_ids, absent = partial_ids_or_absent(token_ids, lookup)
    if absent is not None:
        table = head.frozen.table
        raise OutOfVocabularyError(
            "Labels must be tokens of the partial vocabulary, whose rows are trained. "
            + str(table.out_of_vocabulary_error(token_ids[absent])),
            token_ids=token_ids[absent].unique().tolist(),
        )
    return partial_ids.to(labels.dtype).masked_fill(ignored.to(lookup.device), IGNORED)


def _computes_loss(
    model: Any, heads: list[PartialHead], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Tell whether a call is to compute a loss that is known to be a cross entropy."""
    given = _named(model.whole_class, args, kwargs) if args else kwargs
    if given.get(LABELS[0]) is None:
        return False
    # An outer model may be computing its loss already; and where V′ is V, all is as it was.
    if len(heads) != 1 or heads[0].loss_logits is not None or not len(heads[0].frozen):
        return False
    # A loss of the user's own gets logits over all of V, and labels as they are.
    loss = inspect.unwrap(getattr(model, "loss_function", None) or nn.CrossEntropyLoss)
    return getattr(loss, "__module__", "").split(".")[0] in ("transformers", "torch")


def _named(
    whole_class: type[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Give the arguments of a model's forward by name."""
    names = list(inspect.signature(whole_class.forward).parameters)[1:]
    return dict(zip(names, args, strict=False)) | kwargs


def _on_trial(named: dict[str, Any]) -> dict[str, Any]:
    """Give arguments to a forward that shall leave nothing behind: caches grow as they are used."""
    cache: Any = named.get("past_key_values")
    if not hasattr(cache, "layers"):
        return named
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return named | {"past_key_values": twin}


def _derives_decoder_inputs(model: Any, named: dict[str, Any]) -> bool:
    """Tell whether the forward would make the decoder's input out of labels."""
    return (
        model.config.is_encoder_decoder
        and named.get("labels") is not None
        and named.get("decoder_input_ids") is None
        and named.get("decoder_inputs_embeds") is None
    )


def decoder_inputs(model: Any, labels: Tensor) -> dict[str, Tensor]:
    """Make the decoder's input out of labels, as the model's forward would.

    Args:
        model: An encoder-decoder.
        labels: Ids of V.

    Returns:
        Arguments for the forward: the labels shifted to the right and, for models that
        hide padding from their decoder, a mask.

    Raises:
        UnsupportedModelError: If it is not known how.
    """
    config = model.config
    shift = getattr(sys.modules[type(model).__module__], "shift_tokens_right", None)
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        token_ids = model.prepare_decoder_input_ids_from_labels(labels)
    elif hasattr(model, "_shift_right"):
        token_ids = model._shift_right(labels)  # noqa: SLF001
    elif shift is not None:
        token_ids = shift(labels, config.pad_token_id, config.decoder_start_token_id)
    else:
        raise UnsupportedModelError(
            f"It is not known how `{type(model).__name__}` makes its decoder's input out of "
            "labels. Pass `decoder_input_ids`."
        )
    made = {"decoder_input_ids": token_ids}
    if config.model_type.endswith("encoder-decoder"):  # two models put together
        made["decoder_attention_mask"] = (token_ids != config.pad_token_id).to(token_ids.dtype)
    return made


def _models_over(model: nn.Module, head: PartialHead) -> list[Any]:
    """Find the models whose head it is: an EncoderDecoder's is its decoder's too."""
    return [
        part
        for part in model.modules()
        if isinstance(part, PartialLanguageModel) and head in partial_heads(part)
    ]
