"""One line for a training script that has a Trainer: scan its data, shrink its model.

Libraries that build on the Trainer of transformers feed their models in ways of their own. What
is special to one stands in the file of its integration, in functions that are looked up there:
``scan_trainer(trainer, **options_of_scan)`` gives the counts, ``prepare_trainer(trainer,
vocabulary, options)`` is called before the model is shrunk, ``finish_trainer`` with the same
arguments after it. The options are those of `subvocab.shrink`, and may be changed.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from contextlib import ExitStack
from difflib import get_close_matches
from inspect import signature
from typing import Any

from transformers.trainer_utils import number_of_arguments

from subvocab.data import scan
from subvocab.data.scanner import ScanOptions
from subvocab.errors import UnsupportedModelError
from subvocab.integrations.model_card import add_to_model_card
from subvocab.integrations.trainer import VocabularyCallback
from subvocab.model.choose import check_is_vocabulary
from subvocab.model.shrink import Shrunk, partial_tables, shrink
from subvocab.vocabulary import PartialVocabulary, TokenCounts

LIBRARIES = ("trl", "sentence_transformers")
"""Packages with a Trainer of their own, each with an integration of its name."""
CALLBACK_OPTIONS = ("compact", "other_vocabulary")


def shrink_trainer(
    trainer: Any, vocabulary: PartialVocabulary | None = None, **options: Any
) -> Shrunk[Any]:
    """Shrink the model of a Trainer to the rows that its training data uses.

    Where the Trainer makes its models by ``model_init``, each of them is shrunk.

    Args:
        trainer: A Trainer of transformers, or of a library built on it, that has not begun
            to train.
        vocabulary: V′. By default the tokens of the training data, as the Trainer will
            feed them to the model, and all that its collator adds.
        **options: For `VocabularyCallback`, `subvocab.scan` and `subvocab.shrink`.

    Returns:
        A handle on the model: ``with shrink_trainer(trainer): ...`` restores it.

    Raises:
        UnsupportedModelError: If the Trainer has an optimizer already, or the model cannot
            be shrunk.

    Example:
        ``sv.shrink_trainer(trainer)``, before ``trainer.train()``.
    """
    if partial_tables(trainer.model):
        raise UnsupportedModelError(
            f"The model of `{type(trainer).__name__}` is shrunk already. Call `shrink_trainer` "
            "once, or give the Trainer a `VocabularyCallback` where you shrunk the model yourself."
        )
    if trainer.optimizer is not None:
        raise UnsupportedModelError(
            f"`{type(trainer).__name__}` has an optimizer already, which would go on training "
            "the whole matrix. Shrink before `train()`, and make an optimizer of your own "
            "from the model after it is shrunk."
        )
    _check_options(options)
    if vocabulary is not None:
        check_is_vocabulary(vocabulary)
    for_callback = {name: options.pop(name) for name in CALLBACK_OPTIONS if name in options}
    tokenizer = trainer.processing_class or getattr(trainer.data_collator, "tokenizer", None)
    options.setdefault("tokenizer", tokenizer)
    for_scan = {name: options[name] for name in ScanOptions.__annotations__ if name in options}
    options = {name: value for name, value in options.items() if name not in for_scan}
    options["tokenizer"] = for_scan["tokenizer"]
    if vocabulary is None:
        counts = _hook(trainer, "scan_trainer", scan_trainer)(trainer, **for_scan)
        vocabulary = counts.partial_vocabulary()
    _hook(trainer, "prepare_trainer", _nothing)(trainer, vocabulary, options)
    shrunk = shrink(trainer.model, vocabulary, **options)
    if trainer.model_init is not None:
        _shrink_each(trainer, shrunk, vocabulary, options)
    callback = VocabularyCallback(trainer.model, **for_callback)
    callback.guesses = False
    trainer.add_callback(callback)
    callback.on_init_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    for name, around in WRAPPED.items():
        setattr(trainer, name, functools.partial(around, trainer, getattr(trainer, name)))
    _hook(trainer, "finish_trainer", _nothing)(trainer, vocabulary, options)
    return shrunk


def _check_options(options: dict[str, Any]) -> None:
    """Refuse an option that nobody knows, before all data is scanned."""
    known = {*CALLBACK_OPTIONS, *ScanOptions.__annotations__, *signature(shrink).parameters}
    for name in options:
        if name not in known - {"model", "vocabulary"}:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise UnsupportedModelError(
                f"`shrink_trainer` has no option `{name}`, expected one of `subvocab.scan`, "
                f"`subvocab.shrink` or `VocabularyCallback`.{hint}"
            )


def scan_trainer(trainer: Any, **options: Any) -> TokenCounts:
    """Count the tokens that a plain Trainer will feed to its model.

    Args:
        trainer: The Trainer.
        **options: For `subvocab.scan`.

    Returns:
        The counts over as many ids as the model's matrix has rows.

    Raises:
        UnsupportedModelError: If the Trainer has no training data, or it can be read once only.
    """
    if trainer.train_dataset is None:
        raise UnsupportedModelError(
            f"`{type(trainer).__name__}` has no `train_dataset` to scan. Give it one, or a "
            "`vocabulary` from `subvocab.scan`."
        )
    _check_read_again(trainer)
    # Not of the Trainer's interface, but the only way to see the columns that its collator sees.
    collator = trainer._get_collator_with_removed_columns(trainer.data_collator)  # noqa: SLF001
    return scan(trainer.train_dataset, **{"model": trainer.model, "collator": collator, **options})


def _save_checkpoint(trainer: Any, save: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Save a checkpoint, and tell the callback, which alone would have to guess."""
    with ExitStack() as saving:
        for callback in _watching(trainer):
            saving.enter_context(callback.saving_now(trainer.args, trainer.state, trainer.model))
        save(*args, **kwargs)


def _load_checkpoint(trainer: Any, load: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Load a checkpoint to go on from, once more too: the callback will compare vocabularies."""
    for callback in _watching(trainer):
        callback.watch(trainer.model)
    load(*args, **kwargs)


WRAPPED = {
    "create_model_card": add_to_model_card,
    # Not of the Trainer's interface, but no event is sent before it saves or loads.
    "_save_checkpoint": _save_checkpoint,
    "_load_from_checkpoint": _load_checkpoint,
}
"""Methods of a Trainer, and what is called in their place with the Trainer and the method."""


def _watching(trainer: Any) -> list[VocabularyCallback]:
    """Find the callback as it is now: a Trainer may have made it anew from a checkpoint."""
    callbacks = trainer.callback_handler.callbacks
    return [callback for callback in callbacks if isinstance(callback, VocabularyCallback)]


def _hook(trainer: Any, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
    """Find what the integration of a Trainer's library does at some point."""
    packages = {kind.__module__.partition(".")[0] for kind in type(trainer).__mro__}
    for library in LIBRARIES:
        if library in packages:
            integration = importlib.import_module(f"subvocab.integrations.{library}")
            return getattr(integration, name, default)
    return default


def _check_read_again(trainer: Any) -> None:
    """Refuse a stream of which a scan would leave nothing to train on."""
    data = trainer.train_dataset
    if hasattr(data, "__iter__") and iter(data) is iter(data):
        raise UnsupportedModelError(
            f"The `train_dataset` is a `{type(data).__name__}` that can be read only once: each "
            "`iter` of it is the same, so a scan would leave nothing to train on. Scan the data "
            "beforehand with `subvocab.scan`, and pass a `vocabulary`."
        )


def _nothing(trainer: Any, vocabulary: Any, options: dict[str, Any]) -> None:
    """Do what most Trainers need at that point."""


def _shrink_each(
    trainer: Any, shrunk: Shrunk[Any], vocabulary: PartialVocabulary, options: dict[str, Any]
) -> None:
    """Let a Trainer make small models: it makes one when training begins, and one a trial."""
    make_model = trainer.model_init

    def small(model: Any) -> Any:
        shrunk.model = model
        return shrink(model, vocabulary, **options).model

    # The Trainer looks at the signature: whether a model depends on the trial.
    if number_of_arguments(make_model):
        trainer.model_init = lambda trial: small(make_model(trial))
    else:
        trainer.model_init = lambda: small(make_model())
