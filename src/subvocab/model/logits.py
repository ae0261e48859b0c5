"""What models do to their logits after the head: found out by trying, and taken over by the head.

Gemma 2 squeezes logits below a cap, Cohere and Granite scale them, BART adds a bias. All of it must
come before the log-sum-exp. Which entries a model really applies cannot be told from its
configuration (some inherit entries that they ignore), so each is tried on the first batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from subvocab.errors import UnsupportedModelError
from subvocab.model.head import LossLogits, PartialHead
from subvocab.model.rest import Transform

CAP, FACTOR, DIVISOR = "cap", "factor", "divisor"
CANDIDATES = {
    "final_logit_softcapping": (CAP,),
    "logits_soft_cap": (CAP,),
    "output_logit_soft_cap": (CAP,),
    "logit_scale": (FACTOR,),
    "lm_head_multiplier": (FACTOR,),
    "output_multiplier": (FACTOR,),
    "logits_scaling": (DIVISOR, FACTOR),
}
"""Entries of configurations and models, and what they may do to logits."""
NO_CAP = 2.0**40
"""So high that the squeezed logits are the logits, to the last bit."""
WIDTHS = ("vocab_size", "n_words", "text_vocab_size")
"""Attributes of models by which they fold logits for the cross entropy."""
FINAL_BIAS = "final_logits_bias"
CLOSE = 1e-4

Sites = dict[str, str]
"""By the place of an entry: what it does."""


def find_sites(models: list[Any], head: PartialHead, run: Callable[[], Any]) -> Sites:
    """Find out what models do to the logits of their head.

    Args:
        models: Those around the head, the outermost first.
        head: The head.
        run: Runs the outermost model's forward on a batch.

    Returns:
        The entries that are applied.

    Raises:
        UnsupportedModelError: If anything else is done to them.
    """
    with loss_logits_of(models, head, {}) as places:
        candidates = [place for place, entries, key in places if _is_number(entries[key])]
    if not candidates:
        return {}
    devices = [head.weight.device] if head.weight.device.type == "cuda" else []
    sites: Sites = {}
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        for place in candidates:
            others = [other for other in candidates if other != place]
            with loss_logits_of(models, head, {}, others) as places:
                logits = _logits_of(run(), head)
                entries, key = next((e, k) for p, e, k in places if p == place)
            if logits is None or _equal(head.produced, logits):
                continue
            for kind in CANDIDATES[key]:
                if _close(_transform({kind: entries[key]})(cast("Tensor", head.produced)), logits):
                    sites[place] = kind
                    break
            else:
                raise unknown_logits(models[0])
    return sites


def unknown_logits(model: nn.Module) -> UnsupportedModelError:
    """Say that a model does to its logits what the head cannot do for it.

    Args:
        model: The model.

    Returns:
        The error to raise.
    """
    return UnsupportedModelError(
        f"`{type(model).__name__}` changes the logits after its output head in a way that is not "
        "known here, or does not return them, so a softmax over a partial vocabulary would be "
        "wrong. Compute the loss outside of the model, from logits without labels, or use "
        '`head="whole"` where the head is not tied.'
    )


def check_logits(model: nn.Module, output: Any, head: PartialHead, *, closely: bool) -> None:
    """See that a loss came from the head's logits as they are.

    Args:
        model: The model, for the message.
        output: What it returned.
        head: Its head.
        closely: Whether to compare all numbers, too.

    Raises:
        UnsupportedModelError: If the model changed them, does not show them, or computed
            no loss.
    """
    if head.produced is None or head.produced._version != head.version:  # noqa: SLF001
        raise unknown_logits(model)  # changed in place
    if hasattr(output, "loss") and output.loss is None:
        raise UnsupportedModelError(
            f"`{type(model).__name__}` was given `labels`, but computed no loss, so its logits "
            "would be those of the partial vocabulary to no purpose. Pass all labels that it "
            "needs, or none."
        )
    if not closely:
        return
    logits = _logits_of(output, head)
    if logits is None or not _equal(head.produced, logits):
        raise unknown_logits(model)


def refuse_label_smoothing(models: list[Any]) -> None:
    """Refuse models that spread a part of each label over all columns, which stand for more.

    Args:
        models: Those around a head.

    Raises:
        UnsupportedModelError: If one does.
    """
    for model in models:
        for part in model.modules():
            smoothing = vars(getattr(part, "config", None) or object).get("label_smoothing")
            smoothing = vars(part).get("label_smoothing", smoothing)
            if _is_number(smoothing) and smoothing > 0:
                raise UnsupportedModelError(
                    f"`{type(part).__name__}` smooths its labels by {smoothing:g} over all logits, "
                    "of which one stands for many tokens here. Set `label_smoothing` to zero, and "
                    "let the trainer smooth labels."
                )


@contextmanager
def loss_logits_of(
    models: list[Any], head: PartialHead, sites: Sites, silenced: Collection[str] | None = None
) -> Iterator[list[tuple[str, dict[str, Any], str]]]:
    """Let the head make loss logits, and the models around it take them as they are.

    Args:
        models: Those around the head, the outermost first.
        head: The head.
        sites: What they do to logits, which the head does instead.
        silenced: On trial: entries that shall have no effect.

    Yields:
        The places of all candidates: name, entries and key.
    """
    full = head.frozen.table.vocabulary.full_vocab_size
    columns = len(head.frozen.table.vocabulary) + (head.mode == "exact")
    bias = None
    values: dict[str, float] = {}
    with ExitStack() as changes:
        places = []
        for number, model in enumerate(models):
            for name, entries, is_config in _entries_of(model, changes):
                for key in CANDIDATES.keys() & entries.keys():
                    place = f"{number}.{name}.{key}"
                    places.append((place, entries, key))
                    if place in sites:
                        values[sites[place]] = entries[key]
                    if place in sites or place in (silenced or ()):
                        neutral = NO_CAP if CAP in CANDIDATES[key] else 1.0
                        changes.enter_context(_set(entries, key, neutral))
                for key, value in entries.items():
                    widths = is_config and key.endswith(WIDTHS[0])
                    if (widths or key in WIDTHS) and value == full and type(value) is int:
                        changes.enter_context(_set(entries, key, columns))
            if FINAL_BIAS in model._buffers:  # noqa: SLF001
                bias = model._buffers[FINAL_BIAS].view(-1)  # noqa: SLF001
                changes.enter_context(_set(model._buffers, FINAL_BIAS, bias.new_zeros(1, 1)))  # noqa: SLF001
        head.loss_logits = LossLogits(_transform(values), bias, on_trial=silenced is not None)
        head.produced = None
        try:
            yield places
        finally:
            head.loss_logits = None


def _entries_of(model: Any, changes: ExitStack) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Give a model's settings, wherever it may look them up; configurations as copies.

    A configuration is shared with parts of the model that must not see the changes.
    """
    config = copy.copy(model.config)
    changes.enter_context(_set(vars(model), "config", config))
    yield "config", vars(config), True
    for name, value in list(vars(config).items()):
        if callable(getattr(value, "to_dict", None)):
            vars(config)[name] = nested = copy.copy(value)
            yield f"config.{name}", vars(nested), True
    yield "self", vars(model), False
    base = getattr(model, "model", None)
    if isinstance(base, nn.Module):
        yield "model", vars(base), False
    decoder = model.get_decoder() if callable(getattr(model, "get_decoder", None)) else None
    if isinstance(decoder, nn.Module) and "config" in vars(decoder) and decoder is not model:
        copied = copy.copy(decoder.config)
        changes.enter_context(_set(vars(decoder), "config", copied))
        yield "decoder.config", vars(copied), False
    for name, part in model.named_modules():
        if "n_words" in vars(part) and part is not model:  # XLM's head folds logits itself
            yield name, vars(part), False


def _transform(values: dict[str, float]) -> Transform:
    """Put together what is done to logits."""
    return Transform(values.get(FACTOR, 1.0) / values.get(DIVISOR, 1.0), values.get(CAP))


def _logits_of(output: Any, head: PartialHead) -> Tensor | None:
    """Find the logits in what a model returned."""
    for name in ("logits", "prediction_logits"):
        if isinstance(getattr(output, name, None), Tensor):
            return getattr(output, name)  # type: ignore[no-any-return]
    width = None if head.produced is None else head.produced.shape[-1]
    values = output if isinstance(output, tuple) else ()
    found = [v for v in values if isinstance(v, Tensor) and v.dim() > 1 and v.shape[-1] == width]
    return found[0] if found else None


def _equal(produced: Tensor | None, logits: Tensor) -> bool:
    """Tell whether logits were left as they are, to the last bit."""
    return _close(produced, logits, tolerance=0)


def _close(produced: Tensor | None, logits: Tensor, tolerance: float = CLOSE) -> bool:
    """Tell whether two are nearly the same, whatever their shape."""
    if produced is None or produced.numel() != logits.numel():
        return False
    mine, theirs = produced.detach().flatten(), logits.detach().flatten()
    tolerance = tolerance if theirs.dtype == torch.float32 else tolerance and 1e-2
    mine = mine.to(theirs.dtype)
    return torch.allclose(mine, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


def _is_number(value: Any) -> bool:
    """Tell whether an entry says anything."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def _set(entries: Any, key: str, value: Any) -> Iterator[None]:
    """Give an entry another value for a while."""
    before = entries[key]
    entries[key] = value
    try:
        yield
    finally:
        entries[key] = before
