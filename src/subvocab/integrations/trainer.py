"""The Hugging Face Trainer: its checkpoints, and runs that go on from them.

A shrunk model trains under any Trainer as it is. What a Trainer does not notice is a checkpoint
that belongs to other rows (fused AdamW even writes past the end of smaller moments), or one that
was not finished when its process ended.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import nn
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from subvocab.errors import UnsupportedModelError
from subvocab.integrations.checkpoints import (
    check_compact,
    checkpoint_folder,
    is_adopted,
    write_beside,
)
from subvocab.integrations.optimizers import (
    check_optimizer_state,
    decay_of,
    held_tables,
    let_others_fail_loudly,
    warn_of_inexact_optimizer,
)
from subvocab.integrations.resuming import agree, describe, settle
from subvocab.integrations.unfinished import is_finished, set_unfinished_aside
from subvocab.model.checkpoint import next_state_dict_compact
from subvocab.model.partial import PartialModule
from subvocab.model.ranks import check_ranks
from subvocab.model.shrink import partial_tables, vocabulary_of

OtherVocabulary = Literal["refuse", "carry_over"]
OTHER_VOCABULARIES = ("refuse", "carry_over")
KEPT = "kept"
DECAYS = "decays"

logger = logging.getLogger("subvocab")


class VocabularyCallback(TrainerCallback, ExportableState):
    """Let the checkpoints of a Trainer know V′, and refuse to resume one of another.

    Args:
        model: The shrunk model that is trained; by default the Trainer's.
        compact: Whether checkpoints hold the learned rows and the body only, instead of the
            whole model. `subvocab.merge` makes them whole.
        other_vocabulary: What to do with a checkpoint of another V′: "refuse" it, or
            "carry_over" its rows, and the optimizer's moments of tokens in both. Tokens that
            are new begin without moments, and rows no longer in V′ keep what they learned.

    Raises:
        UnsupportedModelError: If the model is not shrunk, or there is no such option.

    Attributes:
        guesses: Whether no one says when the Trainer saves, by `saving_now`.

    Example:
        ``Trainer(model=model, callbacks=[VocabularyCallback(model)], ...)``
    """

    # The Trainer makes a callback anew from its state, which has no model in it.
    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        compact: bool = False,
        other_vocabulary: OtherVocabulary = "refuse",
    ) -> None:
        if other_vocabulary not in OTHER_VOCABULARIES:
            raise UnsupportedModelError(
                f"`other_vocabulary` is {other_vocabulary!r}, expected one of "
                f"{', '.join(map(repr, OTHER_VOCABULARIES))}."
            )
        self.compact = compact
        self.other_vocabulary = other_vocabulary
        self.model: nn.Module | None = None
        self.saving: Path | None = None
        self.decays: list[float] = []
        self._trained: nn.Module | None = None
        self._held: set[int] = set()
        self.guesses = True
        self._evaluates = False
        self._compact_once = ExitStack()
        if model is not None:
            vocabulary_of(model)  # raises if there is none
            self.watch(model)

    def state(self) -> dict[str, Any]:
        """Give what the Trainer keeps in ``trainer_state.json``.

        Returns:
            What `subvocab.integrations.resuming.agree` compares. The Trainer asks for it when
            the weights of a checkpoint are written, and completes it with that file: what
            belongs beside the weights is written now.
        """
        if self.saving is not None:
            self._write_beside(self.saving)
        kept = None if self.model is None else describe(self.model)
        options = {"compact": self.compact, "other_vocabulary": self.other_vocabulary}
        return {"args": options, "attributes": {KEPT: kept, DECAYS: self.decays}}

    def on_init_end(
        self,
        args: Any,
        state: Any,
        control: Any,  # noqa: ARG002 - the Trainer's signature
        **kwargs: Any,
    ) -> None:
        """Look at the model, and at what an earlier run may have left.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's: ``model`` among others.
        """
        self.watch(kwargs["model"])
        if state.is_world_process_zero:
            set_unfinished_aside(Path(str(args.output_dir)))

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Compare what was resumed with the model, before the first step.

        Args:
            args: The Trainer's.
            state: The Trainer's, from the checkpoint if one is resumed.
            control: The Trainer's.
            **kwargs: The Trainer's: ``model``, and ``optimizer`` with the state from the
                checkpoint, among others.

        Raises:
            UnsupportedModelError: If the model is not shrunk, or cannot be saved as asked for.
            VocabularyMismatchError: If the checkpoint belongs to another V′ or another base.
        """
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        vocabulary_of(model)  # raises if there is none
        for module in partial_tables(model).values():
            check_ranks(module.table.fingerprint)
        if self.compact:
            check_compact(model, args)
        self.decays = list(self._attributes(state).get(DECAYS, ()))
        if kept := self._attributes(state).get(KEPT):
            agree(model, optimizer, kept, carry_over=self.other_vocabulary == "carry_over")
        check_optimizer_state(model, optimizer)
        warn_of_inexact_optimizer(model, optimizer)
        let_others_fail_loudly(model, optimizer)
        self.watch(model)
        self._held = held_tables(model)
        self._trained = next(iter(partial_tables(model).values()))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Note what weight decay does to each row, for `subvocab.merge` to do to all others.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's: ``optimizer`` among others.
        """
        self.decays.append(decay_of(self._held, kwargs["optimizer"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Get ready for a checkpoint, if one comes next.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's.
        """
        self._evaluates = control.should_evaluate
        if control.should_save and not control.should_evaluate and self.guesses:
            self._expect(args, state, **kwargs)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Get ready for a checkpoint, if one comes next.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's.
        """
        comes = control.should_save or args.save_strategy == SaveStrategy.BEST
        # Who evaluates between two trainings saves no checkpoint next.
        if comes and self._evaluates and self.guesses:
            self._expect(args, state, **kwargs)
        self._evaluates = False

    on_epoch_end = on_step_end

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write V′ beside the checkpoint that was just saved, if it was not expected.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's.
        """
        if state.is_world_process_zero and self.saving is None:
            self._write_beside(checkpoint_folder(args, state))
        self._forget(args, state, control, **kwargs)

    def _forget(self, *_: Any, **__: Any) -> None:
        """Leave state dicts whole: what comes next is no checkpoint."""
        self.saving = None
        self._compact_once.close()

    on_prediction_step = on_epoch_begin = _forget

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the shift out of the rows of the best model, if that was loaded.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's: ``model`` among others.
        """
        self._forget(args, state, control, **kwargs)
        best = state.best_model_checkpoint
        if args.load_best_model_at_end and best is not None and is_finished(Path(best)):
            saved = TrainerState.load_from_json(str(Path(best) / TRAINER_STATE_NAME))
            if kept := self._attributes(saved).get(KEPT):
                settle(kwargs["model"], kept)
        # Nothing compares what a user loads from now on: rows without their tokens are refused.
        self._set_watched(kwargs["model"], None)

    @contextmanager
    def saving_now(self, args: Any, state: Any, model: nn.Module) -> Iterator[None]:
        """Make what a Trainer saves compact if it shall be, where it is known when it saves.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            model: The model that is trained.

        Yields:
            Nothing; inside, the checkpoint of this step is saved.
        """
        self.guesses = False
        self._expect(args, state, model=model)
        try:
            yield
        finally:
            self._compact_once.close()

    def watch(self, model: nn.Module) -> None:
        """Tell the tables of a model that vocabularies will be compared before the first step.

        Args:
            model: The model, which is about to be trained.
        """
        if partial_tables(model):
            self.model = model
        self._set_watched(model, self.other_vocabulary)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See that the model is still shrunk: the optimizer holds its rows.

        Args:
            args: The Trainer's.
            state: The Trainer's.
            control: The Trainer's.
            **kwargs: The Trainer's.

        Raises:
            UnsupportedModelError: If it was restored meanwhile.
        """
        self._forget(args, state, control, **kwargs)
        if self._trained is not None and not isinstance(self._trained, PartialModule):
            raise UnsupportedModelError(
                "The model was restored while it is trained, but the optimizer still holds the "
                "rows of its partial vocabulary: the whole matrix would learn nothing. Call "
                "`subvocab.restore` after `train()`."
            )

    def _expect(self, args: Any, state: Any, **kwargs: Any) -> None:
        """Make the next state dict compact if it shall be, and note where it goes."""
        self._forget()
        # The folder of a trial is found when it is there.
        self.saving = None if state.is_hyper_param_search else checkpoint_folder(args, state)
        if self.compact and not is_adopted(kwargs["model"]):
            self._compact_once.enter_context(next_state_dict_compact(kwargs["model"]))
        elif self.compact:
            logger.warning(
                "The checkpoint of step %d is written whole: rows outside the partial vocabulary "
                "are no longer those of the base, so a compact one could not be merged with it.",
                state.global_step,
            )

    def _set_watched(self, model: nn.Module, watched_by: OtherVocabulary | None) -> None:
        """Tell the tables of a model whether vocabularies will be compared."""
        for module in partial_tables(model).values():
            module.table.watched_by = watched_by

    def _attributes(self, state: TrainerState) -> dict[str, Any]:
        """Give what was kept in the checkpoint that is resumed."""
        callbacks: Any = state.stateful_callbacks or {}
        kept = callbacks.get(type(self).__name__) or {}
        kept = kept[-1] if isinstance(kept, list) else kept  # added twice
        attributes: dict[str, Any] = kept.get("attributes", {})
        return attributes

    def _write_beside(self, folder: Path) -> None:
        """Write what belongs beside saved weights."""
        if self.model is not None and folder.is_dir():
            write_beside(self.model, folder, decays=self.decays if self.compact else None)
