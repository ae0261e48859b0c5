"""Whole runs of the Trainer: with E′ as with E, whatever the Trainer is asked to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, default_data_collator

import subvocab as sv
from subvocab.integrations.model_card import HEADING
from subvocab.model.shrink import partial_embeddings
from tests.models import FULL_VOCAB_SIZE
from tests.pages import python_blocks, run_block
from tests.reference import assert_equal_states, copied, ids_of, unused_ids
from tests.tiny_tokenizers import as_transformers, byte_level, wordpiece
from tests.trainer_runs import (
    IGNORED_WARNINGS,
    TRAINING,
    VOCABULARY,
    arguments_of,
    history,
    logits_of,
    shrunk,
    trainer_of,
    whole,
)

pytestmark = pytest.mark.filterwarnings(*IGNORED_WARNINGS)


class ShortOfMemory(Trainer):
    """A Trainer on a device that holds no more than two rows at a time."""

    def training_step(self, model: Any, inputs: Any, *more: Any) -> torch.Tensor:
        """Fail as a GPU does."""
        if len(inputs["input_ids"]) > 2:
            raise RuntimeError("CUDA out of memory.")
        return super().training_step(model, inputs, *more)


def run(model: Any, folder: Path, *, shrink: bool, **options: Any) -> tuple[Any, Any]:
    """Train; give all there is to compare."""
    trainer = trainer_of(model, folder, **options)
    if shrink:
        sv.shrink_trainer(trainer)
    trainer.train()
    state = copied(trainer.model.state_dict())
    scores = {k: v for k, v in trainer.evaluate().items() if not k.endswith("second")}
    scores.pop("eval_runtime")
    return trainer, (history(trainer), scores, logits_of(trainer).tolist(), state)


OPTIONS: dict[str, dict[str, Any]] = {
    "plainly": {},
    "sgd": {"optim": "sgd"},
    "accumulating": {"gradient_accumulation_steps": 2},
    "activation checkpointing": {"activation_checkpointing": True},
    "bf16": {"bf16": True},
    "compiled": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    "neftune": {"neftune_noise_alpha": 5.0},
    "short of memory": {"auto_find_batch_size": True, "kind": ShortOfMemory},
    "best at end": {
        "save_strategy": "steps",
        "save_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "save_total_limit": 1,
    },
    "best alone": {
        "save_strategy": "best",
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
    },
}
FAMILIES = {"plainly": ("bert", "t5", "llama"), "sgd": ("t5", "llama")}


@pytest.mark.parametrize(
    ("how", "family"),
    [
        pytest.param(how, family, marks=pytest.mark.slow if how == "compiled" else ())
        for how in OPTIONS
        for family in FAMILIES.get(how, ("bert",))
    ],
)
def test_a_run_is_equal(how: str, family: str, tmp_path: Path) -> None:
    """Losses, gradient norms, weights, scores and predictions on text that was never seen."""
    full, expected = run(whole(family), tmp_path / "full", shrink=False, **OPTIONS[how])
    ours, found = run(whole(family), tmp_path / "ours", shrink=True, **OPTIONS[how])

    assert len(expected[0]) == full.state.global_step >= 6
    assert partial_embeddings(ours.model)
    assert found[:3] == expected[:3]
    assert_equal_states(found[3], expected[3])
    if OPTIONS[how].get("load_best_model_at_end"):
        names = [Path(str(t.state.best_model_checkpoint)).name for t in (full, ours)]
        assert names[0] == names[1] != "None"
        left = [{path.name for path in tmp_path.glob(f"{run}/*")} for run in ("full", "ours")]
        assert left[0] == left[1]


def test_a_run_with_weight_decay_is_equal_in_used_rows(tmp_path: Path) -> None:
    """Full fine-tuning decays the others too, which a warning tells."""
    _, expected = run(whole(), tmp_path, shrink=False, weight_decay=0.1)
    with pytest.warns(UserWarning, match=r"Weight decay of 0\.1 falls on the embedding"):
        _, found = run(whole(), tmp_path, shrink=True, weight_decay=0.1)

    name = "bert.embeddings.word_embeddings.weight"
    unused, untouched = unused_ids(VOCABULARY), whole().state_dict()[name]
    assert found[0] == expected[0]
    assert not torch.equal(expected[3][name][unused], untouched[unused])
    assert torch.equal(found[3][name][unused], untouched[unused])
    expected[3][name][unused] = untouched[unused]
    assert_equal_states(found[3], expected[3])


def make_whole() -> Any:
    """Make a model without arguments, which the Trainer would take for a trial."""
    return whole()


def make_shrunk(_trial: Any) -> Any:
    """Make a shrunk one, for a trial."""
    return shrunk()


@pytest.mark.parametrize("inside", [False, True])
def test_a_model_that_the_trainer_makes_is_shrunk(tmp_path: Path, *, inside: bool) -> None:
    """Anew when training begins: by `shrink_trainer`, or by the function that makes it."""
    runs = []
    for shrinks in (False, True):
        make = make_shrunk if shrinks and inside else make_whole
        trainer: Any = Trainer(model_init=make, args=arguments_of(tmp_path), train_dataset=TRAINING)
        if shrinks and inside:
            trainer.add_callback(sv.VocabularyCallback())
        elif shrinks:
            sv.shrink_trainer(trainer)
        first = trainer.model
        trainer.train()
        assert trainer.model is not first
        assert bool(partial_embeddings(trainer.model)) is shrinks
        runs.append((history(trainer), copied(trainer.model.state_dict())))

    assert runs[0][0] == runs[1][0]
    assert_equal_states(runs[1][1], runs[0][1])


def test_the_handle_restores_the_model_that_was_trained(tmp_path: Path) -> None:
    """Not the one that the Trainer had before."""
    trainer: Any = Trainer(
        model_init=make_whole, args=arguments_of(tmp_path), train_dataset=TRAINING
    )

    with sv.shrink_trainer(trainer):
        trainer.train()

    assert trainer.model.get_input_embeddings().weight.shape[0] == FULL_VOCAB_SIZE


def test_what_the_collator_adds_is_kept(tmp_path: Path) -> None:
    """Its padding is in no row of the data, a column that no model takes is passed over."""
    tokenizer = as_transformers(wordpiece())
    tokenizer.pad_token = "##at"  # noqa: S105 - an id that nothing else would keep
    ragged = [
        {"input_ids": row["input_ids"][: 3 + i % 5], "labels": row["labels"], "source": "a text"}
        for i, row in enumerate(TRAINING)
    ]
    runs = []
    for shrinks in (False, True):
        trainer: Any = Trainer(
            model=whole(),
            args=arguments_of(tmp_path),
            train_dataset=datasets.Dataset.from_list(ragged),
            processing_class=tokenizer,  # whose collator pads
        )
        if shrinks:
            sv.shrink_trainer(trainer)
            assert tokenizer.pad_token_id in sv.vocabulary_of(trainer.model).token_ids
        trainer.train()
        runs.append((history(trainer), copied(trainer.model.state_dict())))

    assert tokenizer.pad_token_id not in VOCABULARY.token_ids
    assert runs[0][0] == runs[1][0]
    assert_equal_states(runs[1][1], runs[0][1])


def test_options_go_where_they_belong(tmp_path: Path) -> None:
    """Some are for the scan, some for shrinking, some for the callback."""
    trainer = trainer_of(whole("gpt2 lm"), tmp_path)

    sv.shrink_trainer(trainer, compact=True, columns="input_ids", head="restricted", threads=1)

    (callback,) = [c for c in trainer.callback_handler.callbacks if hasattr(c, "other_vocabulary")]
    assert callback.compact
    assert trainer.model.lm_head.mode == "restricted"
    used = ids_of(sv.vocabulary_of(trainer.model)).tolist()
    assert set(used) >= {int(token) for row in TRAINING for token in row["input_ids"]}


@pytest.mark.parametrize("compact", [False, True])
def test_what_is_pushed_is_whole_and_says_what_was_done(tmp_path: Path, *, compact: bool) -> None:
    """The folder holds a model that anyone can load, and a card with |V|, |V′| and the method."""
    model = whole()
    trainer = trainer_of(model, tmp_path, save_strategy="epoch")
    sv.shrink_trainer(trainer, compact=compact)
    trainer.train()

    trainer.save_model()
    trainer.create_model_card(model_name="mine")
    trainer.create_model_card(model_name="mine")

    again = type(model).from_pretrained(tmp_path)
    assert_equal_states(copied(again.state_dict()), model.state_dict())
    card = (tmp_path / "README.md").read_text()
    assert card.count(HEADING) == 1
    assert card.index("# mine") < card.index(HEADING)
    assert (
        f"{len(VOCABULARY)} of {FULL_VOCAB_SIZE} ({len(VOCABULARY) / FULL_VOCAB_SIZE:.1%})" in card
    )
    assert "Partial Embedding Matrix Adaptation" in card
    assert "2309.08708" in card


def test_shrink_trainer_refuses_a_trainer_that_has_begun(tmp_path: Path) -> None:
    """Its optimizer holds the whole matrix."""
    trainer = trainer_of(whole(), tmp_path, max_steps=1)
    trainer.train()

    with pytest.raises(sv.UnsupportedModelError, match="`Trainer` has an optimizer already"):
        sv.shrink_trainer(trainer)


def test_shrink_trainer_refuses_to_guess_the_data(tmp_path: Path) -> None:
    """A Trainer may have none."""
    trainer: Any = Trainer(model=whole(), args=arguments_of(tmp_path))

    with pytest.raises(sv.UnsupportedModelError, match="has no `train_dataset` to scan"):
        sv.shrink_trainer(trainer)


def test_shrink_trainer_refuses_a_tokenizer_with_more_ids_than_rows(tmp_path: Path) -> None:
    """Before anything is changed; resizing the matrix first is the way out."""
    tokenizer = as_transformers(byte_level())
    model = whole()
    trainer: Any = Trainer(
        model=model,
        args=arguments_of(tmp_path),
        train_dataset=TRAINING,
        processing_class=tokenizer,
        data_collator=default_data_collator,
    )

    message = r"The tokenizer has 320 ids, but the embedding matrix of the model 300 rows\. Call"
    with pytest.raises(sv.VocabularyMismatchError, match=message):
        sv.shrink_trainer(trainer)

    assert not partial_embeddings(model)
    model.resize_token_embeddings(len(tokenizer))
    with sv.shrink_trainer(trainer):
        assert sv.vocabulary_of(model).full_vocab_size == 320
    trainer.model = whole()
    with sv.shrink_trainer(trainer, full_vocab_size=300):
        assert sv.vocabulary_of(trainer.model).full_vocab_size == 300


def test_the_page_is_right(tmp_path: Path) -> None:
    """Its snippets run, one after the other."""
    base, out = tmp_path / "base", tmp_path / "out"
    whole().save_pretrained(base)
    names: dict[str, Any] = {
        "Trainer": Trainer,
        "args": arguments_of(tmp_path, max_steps=2, save_strategy="steps", save_steps=1),
        "dataset": TRAINING,
        "collator": default_data_collator,
        "base": base,
        "checkpoint": tmp_path / "checkpoint-2",
        "out": out,
    }

    def make_model() -> Any:
        return type(whole()).from_pretrained(base)

    one_line, by_hand, model_init, compact = python_blocks("docs/trainer.md")
    names |= {"make_model": make_model, "sv": sv}
    for block in (one_line, by_hand, model_init):
        run_block(block, names | {"model": make_model(), "vocabulary": VOCABULARY})
    trainer: Any = Trainer(make_model(), names["args"], train_dataset=TRAINING)
    run_block(compact, names | {"trainer": trainer})

    merged = copied(make_model().from_pretrained(out).state_dict())
    assert_equal_states(merged, trainer.model.state_dict())


def test_a_model_that_is_restored_while_it_trains_is_noticed(tmp_path: Path) -> None:
    """The optimizer would go on with rows that the model no longer has."""

    class Restoring(TrainerCallback):
        def on_step_end(self, *_: Any, **kwargs: Any) -> None:
            """Do what one should not."""
            if partial_embeddings(kwargs["model"]):
                sv.restore(kwargs["model"])

    trainer = trainer_of(shrunk(), tmp_path)
    trainer.add_callback(Restoring())

    with pytest.raises(sv.UnsupportedModelError, match="was restored while it is trained"):
        trainer.train()

    assert trainer.state.global_step == 1


def test_a_misspelt_option_is_told_before_anything_is_scanned(tmp_path: Path) -> None:
    """By its name, and what was meant."""
    trainer = trainer_of(whole(), tmp_path, callback=False)
    trainer.train_dataset = None

    with pytest.raises(sv.UnsupportedModelError, match=r"`max_lenght`.* Did you mean `max_length`"):
        sv.shrink_trainer(trainer, max_lenght=3)


@pytest.mark.parametrize("given", [[1, 2], sv.TokenCounts(np.ones(300, np.int64))])
def test_what_is_no_vocabulary_is_refused(given: Any, tmp_path: Path) -> None:
    """The likeliest slip is to forget to make one of the counts."""
    message = f"`vocabulary` is a `{type(given).__name__}`, expected a `PartialVocabulary`."

    with pytest.raises(sv.VocabularyMismatchError, match=re.escape(message)):
        sv.shrink_trainer(trainer_of(whole(), tmp_path, callback=False), given)
    with pytest.raises(sv.VocabularyMismatchError, match=re.escape(message)):
        sv.shrink(whole(), given)


def test_shrinking_twice_is_refused(tmp_path: Path) -> None:
    """Before the data is scanned once more."""
    trainer = trainer_of(whole(), tmp_path, callback=False)
    sv.shrink_trainer(trainer)

    with pytest.raises(sv.UnsupportedModelError, match=r"shrunk already\. Call `shrink_trainer`"):
        sv.shrink_trainer(trainer)


class ReadOnce(torch.utils.data.IterableDataset[Any]):
    """A stream that goes on where it was left."""

    def __init__(self) -> None:
        self.rows = iter(TRAINING)

    def __iter__(self) -> Any:
        """Give the same iterator each time."""
        return self.rows


def test_a_stream_that_can_be_read_once_is_not_read(tmp_path: Path) -> None:
    """A scan would leave nothing to train on; with a vocabulary it is trained on."""
    trainer = trainer_of(whole(), tmp_path, max_steps=6)
    trainer.train_dataset = ReadOnce()

    with pytest.raises(sv.UnsupportedModelError, match="is a `ReadOnce` that can be read only onc"):
        sv.shrink_trainer(trainer)

    sv.shrink_trainer(trainer, VOCABULARY)
    trainer.train()
    assert len(history(trainer)) == 6
