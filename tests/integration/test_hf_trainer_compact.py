"""Who gets a compact state dict: the checkpoint, and nobody else; and what holds after training."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import TrainerCallback

import subvocab as sv
from subvocab.model.checkpoint import DESCRIPTION_FILE
from tests.models import FULL_VOCAB_SIZE
from tests.reference import assert_equal_states, copied
from tests.trainer_runs import IGNORED_WARNINGS, VOCABULARY, shrunk, trainer_of, whole

pytestmark = pytest.mark.filterwarnings(*IGNORED_WARNINGS)

BEST: dict[str, Any] = {
    "save_strategy": "best",
    "eval_strategy": "steps",
    "eval_steps": 3,
    "metric_for_best_model": "loss",
}
EVALUATING: dict[str, Any] = {
    "save_strategy": "steps",
    "save_steps": 3,
    "eval_strategy": "steps",
    "eval_steps": 3,
}


def compact_trainer(folder: Path, *, bare: bool, family: str = "bert", **options: Any) -> Any:
    """Make a Trainer with compact checkpoints: by the one line, or by hand."""
    if bare:
        return trainer_of(shrunk(family), folder, watch={"compact": True}, **options)
    trainer = trainer_of(whole(family), folder, **options)
    sv.shrink_trainer(trainer, VOCABULARY, compact=True)
    return trainer


def rows_in(folder: Path) -> int:
    """Count the rows of the table in a folder."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        shape = file.get_slice("bert.embeddings.word_embeddings.weight").get_shape()
    return int(shape[0])


class Saving(TrainerCallback):
    """A callback that keeps a model of its own whenever it was judged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_evaluate(self, *_: Any, **kwargs: Any) -> None:
        """Save it."""
        kwargs["model"].save_pretrained(self.folder)


class Stopping(TrainerCallback):
    """A user who stops the run once there is a checkpoint."""

    def on_save(self, *_: Any, **__: Any) -> None:
        """Press Ctrl-C."""
        raise KeyboardInterrupt


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_what_is_saved_after_an_evaluation_is_whole(
    tmp_path: Path, *, bare: bool, stopped: bool
) -> None:
    """Where each evaluation in training may end in a checkpoint, one by itself does not."""
    trainer = compact_trainer(tmp_path, bare=bare, **BEST)
    if stopped:
        trainer.add_callback(Stopping())
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    else:
        trainer.train()

    trainer.evaluate()
    trainer.save_model(tmp_path / "final")

    assert rows_in(tmp_path / "final") == FULL_VOCAB_SIZE
    for folder in tmp_path.glob("checkpoint-*"):
        assert rows_in(folder) == len(VOCABULARY)
    assert list(tmp_path.glob("checkpoint-*"))


def test_a_callback_that_saves_the_model_gets_all_of_it(tmp_path: Path) -> None:
    """Before the Trainer saves its checkpoint, which is compact all the same."""
    trainer = compact_trainer(tmp_path, bare=False, **EVALUATING)
    trainer.add_callback(Saving(tmp_path / "mine"))

    trainer.train()

    assert rows_in(tmp_path / "mine") == FULL_VOCAB_SIZE
    for folder in tmp_path.glob("checkpoint-*"):
        assert rows_in(folder) == len(VOCABULARY)
        assert (folder / DESCRIPTION_FILE).exists()


@pytest.mark.parametrize("last", [False, True])
def test_a_callback_alone_tells_where_a_checkpoint_is_not_compact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, last: bool
) -> None:
    """Another callback that comes after it took the state dict; one that comes before does not."""
    trainer = compact_trainer(tmp_path, bare=True, **EVALUATING)
    own = trainer.pop_callback(sv.VocabularyCallback)
    for callback in (Saving(tmp_path / "mine"), own) if last else (own, Saving(tmp_path / "mine")):
        trainer.add_callback(callback)

    with caplog.at_level(logging.WARNING, logger="subvocab"):
        trainer.train()

    folder = tmp_path / "checkpoint-3"
    expected = (
        f"{folder} is whole, though `compact=True`: another callback took the state dict that was "
        "to be compact. Use `subvocab.shrink_trainer`, which knows when the Trainer saves, or add "
        "the `VocabularyCallback` after all that save the model."
    )
    assert (expected in caplog.messages) is not last
    assert rows_in(folder) == (len(VOCABULARY) if last else FULL_VOCAB_SIZE)
    assert (folder / DESCRIPTION_FILE).exists() is last


def test_a_callback_that_is_made_anew_is_told_too(tmp_path: Path) -> None:
    """The Trainer takes the one away that `shrink_trainer` added."""
    compact_trainer(tmp_path, bare=False, **EVALUATING).train()
    options = {**EVALUATING, "restore_callback_states_from_checkpoint": True}
    trainer = compact_trainer(tmp_path / "then", bare=False, **options)

    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    (callback,) = (
        c for c in trainer.callback_handler.callbacks if isinstance(c, sv.VocabularyCallback)
    )
    assert not callback.guesses
    assert rows_in(tmp_path / "then/checkpoint-9") == len(VOCABULARY)


@pytest.mark.parametrize("family", ["gpt2 lm", "llama lm"])
@pytest.mark.parametrize("compact", [False, True])
def test_rows_of_the_best_model_fit_the_base(family: str, tmp_path: Path, *, compact: bool) -> None:
    """A whole checkpoint has the rest shift in its rows; it is taken out again."""
    best = {**EVALUATING, "load_best_model_at_end": True, "learning_rate": 1e-2}
    best |= {"metric_for_best_model": "loss", "greater_is_better": True}  # which is not the last
    trainer = trainer_of(shrunk(family), tmp_path, watch={"compact": compact}, **best)

    trainer.train()

    assert Path(trainer.state.best_model_checkpoint).name != "checkpoint-12"
    base = whole(family)
    sv.RowAdapter.of(trainer.model).apply(base)
    name = "transformer.wte.weight" if family == "gpt2 lm" else "lm_head.weight"
    assert torch.equal(base.state_dict()[name], trainer.model.state_dict()[name])


def test_rows_without_their_tokens_are_refused_after_training(tmp_path: Path) -> None:
    """They may be those of another V′ of the same size: nothing compares it any more."""
    trainer = trainer_of(shrunk(), tmp_path, max_steps=1)
    rows = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}

    trainer.train()

    with pytest.raises(sv.VocabularyMismatchError, match="or a compact one with its token ids"):
        trainer.model.load_state_dict(rows)


def test_a_trainer_resumes_twice_from_shards(tmp_path: Path) -> None:
    """Rows and their token ids stand in two files, each of which is loaded by itself."""
    trainer = compact_trainer(tmp_path, bare=False, family="gpt2 lm", **EVALUATING)
    save = functools.partial(trainer.model.save_pretrained, max_shard_size="5KB")
    vars(trainer.model)["save_pretrained"] = save
    trainer.train()
    expected = copied(trainer.model.state_dict())
    assert len(list((tmp_path / "checkpoint-6").glob("model-*"))) > 2

    for _ in range(2):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))

        assert_equal_states(copied(trainer.model.state_dict()), expected)
