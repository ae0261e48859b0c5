"""Tests of the callback for the Trainer, without a Trainer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

import subvocab as sv
from subvocab.errors import UnsupportedModelError, VocabularyMismatchError
from subvocab.integrations.optimizers import check_optimizer_state, warn_of_inexact_optimizer
from subvocab.model.checkpoint import VOCABULARY_FILE
from subvocab.model.shrink import partial_tables
from tests.models import random_batch, tiny_model
from tests.reference import drawn_vocabulary, ids_of

VOCABULARY = drawn_vocabulary()


def shrunk(size: int = 40, *, seed: int = 0) -> Any:
    """Make a shrunk model."""
    model = tiny_model("bert")
    sv.shrink(model, drawn_vocabulary(size, seed=seed))
    return model


def stepped(model: Any, **options: Any) -> torch.optim.Optimizer:
    """Make an optimizer that has taken a step."""
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    model(**random_batch(model, ids_of(sv.vocabulary_of(model)))).loss.backward()
    optimizer.step()
    return optimizer


def begin(callback: Any, model: Any, state: TrainerState, optimizer: Any = None) -> None:
    """Do what the Trainer does when training begins."""
    callback.on_train_begin(
        TrainingArguments(use_cpu=True),
        state,
        TrainerControl(),
        model=model,
        optimizer=optimizer or torch.optim.AdamW(model.parameters(), weight_decay=0),
    )


def test_callback_refuses_a_whole_model() -> None:
    """It has no vocabulary to keep."""
    with pytest.raises(UnsupportedModelError, match="has no partial embedding"):
        sv.VocabularyCallback(tiny_model("bert"))


def test_callback_keeps_the_fingerprint() -> None:
    """In the state that the Trainer writes to each checkpoint."""
    model = shrunk()

    state = sv.VocabularyCallback(model).state()

    ((name, part),) = state["attributes"]["kept"]["parts"].items()
    assert name == "bert.embeddings.word_embeddings.weight"
    assert part["vocabulary"] == sv.vocabulary_of(model).fingerprint
    assert (
        part["base"] == partial_tables(model)[name.removesuffix(".weight")].table.base.fingerprint
    )
    assert json.loads(json.dumps(state)) == state


def test_callback_is_made_anew_from_its_state() -> None:
    """The Trainer does so on request; the model comes when training begins."""
    model = shrunk()
    state = sv.VocabularyCallback(model).state()

    again = sv.VocabularyCallback(**state["args"])
    begin(again, model, TrainerState())

    assert again.state() == state


def test_on_save_writes_the_vocabulary(tmp_path: Path) -> None:
    """Beside the checkpoint."""
    model, state = shrunk(), TrainerState(global_step=7)
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    sv.VocabularyCallback(model).on_save(arguments, state, TrainerControl())

    assert sv.PartialVocabulary.load(folder / VOCABULARY_FILE) == sv.vocabulary_of(model)


def test_on_save_writes_nothing_on_other_machines(tmp_path: Path) -> None:
    """One process writes."""
    model, state = shrunk(), TrainerState(global_step=7, is_world_process_zero=False)
    (tmp_path / "checkpoint-7").mkdir()

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    sv.VocabularyCallback(model).on_save(arguments, state, TrainerControl())

    assert not list((tmp_path / "checkpoint-7").iterdir())


@pytest.mark.parametrize("seed", [0, 5])
def test_on_train_begin_compares_fingerprints(seed: int) -> None:
    """The same V′ goes on, another of the same size is refused."""
    model, other = shrunk(), shrunk(seed=seed)
    state = TrainerState()
    state.stateful_callbacks = {"VocabularyCallback": sv.VocabularyCallback(other).state()}  # type: ignore[assignment]
    theirs, ours = (sv.vocabulary_of(m).fingerprint[:12] for m in (other, model))

    if seed == 0:
        begin(sv.VocabularyCallback(model), model, state)
        return
    message = (
        f"The checkpoint was made with the partial vocabulary {theirs} for "
        f"`bert.embeddings.word_embeddings.weight`, but the model has {ours}: the optimizer's "
        "moments belong to other tokens. Shrink the model with the V′ of the checkpoint (a "
        "Trainer's has a vocabulary.safetensors), start afresh, or, with a Trainer, pass "
        '`other_vocabulary="carry_over"` to take over what both have in common.'
    )
    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        begin(sv.VocabularyCallback(model), model, state)


def test_on_train_begin_refuses_a_model_that_was_restored() -> None:
    """A callback that watches nothing would be no help."""
    model = shrunk()
    callback = sv.VocabularyCallback(model)
    sv.restore(model)

    with pytest.raises(UnsupportedModelError, match="has no partial embedding"):
        begin(callback, model, TrainerState())


@pytest.mark.parametrize("size", [30, 60])
def test_check_optimizer_state_refuses_other_shapes(size: int) -> None:
    """Fused AdamW would read and write past the end."""
    model, other = shrunk(), shrunk(size)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    optimizer.load_state_dict(stepped(other, fused=True).state_dict())
    shapes = [(len(sv.vocabulary_of(m)), 32) for m in (other, model)]
    message = (
        "The optimizer's `exp_avg` for `bert.embeddings.word_embeddings.weight` has shape "
        f"{shapes[0]}, expected {shapes[1]}: the checkpoint was made with another partial "
        "vocabulary. Shrink the model with that one, or start afresh."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        check_optimizer_state(model, optimizer)


def test_check_optimizer_state_allows_its_own() -> None:
    """Step counts are of another shape by nature."""
    model = shrunk()

    check_optimizer_state(model, stepped(model))


def test_check_optimizer_state_allows_a_fresh_optimizer() -> None:
    """There is nothing to compare."""
    model = shrunk()

    check_optimizer_state(model, torch.optim.AdamW(model.parameters()))


def test_warn_of_inexact_optimizer_names_weight_decay_on_the_embedding() -> None:
    """It is right for the used rows, and not what full training does to the others."""
    model = shrunk()

    with pytest.warns(UserWarning, match=re.escape("Weight decay of 0.01 falls on the embedding")):
        warn_of_inexact_optimizer(model, torch.optim.AdamW(model.parameters()))


@pytest.mark.parametrize("kind", [torch.optim.Adafactor, torch.optim.Muon])
def test_warn_of_inexact_optimizer_names_those_that_mix_rows(kind: Any) -> None:
    """Their steps depend on how many rows there are."""
    model = shrunk()
    weight = model.get_input_embeddings().weight

    with pytest.warns(UserWarning, match=f"`{kind.__name__}` steps each row of the embedding"):
        warn_of_inexact_optimizer(model, kind([weight], weight_decay=0))


def test_warn_of_inexact_optimizer_is_silent_where_training_is_exact() -> None:
    """No decay on the embedding, and a step that knows one number at a time."""
    model = shrunk()
    weight = model.get_input_embeddings().weight
    others = [p for p in model.parameters() if p is not weight]
    groups: list[dict[str, Any]] = [
        {"params": [weight], "weight_decay": 0.0},
        {"params": others},
    ]

    warn_of_inexact_optimizer(model, torch.optim.AdamW(groups, weight_decay=0.1))


def test_warn_of_inexact_optimizer_names_the_shift_where_steps_differ() -> None:
    """SGD moves it by the sum of all rows' gradients; it is silent of Adam, and without a shift."""
    model = sv.shrink(tiny_model("gpt2", "causal-lm"), drawn_vocabulary()).model
    still = tiny_model("gpt2", "causal-lm")
    sv.shrink(still, drawn_vocabulary(), rest_shift=False)

    with pytest.warns(UserWarning, match="Use AdamW, or `rest_shift=False`"):
        warn_of_inexact_optimizer(model, torch.optim.SGD(model.parameters(), lr=0.1))

    warn_of_inexact_optimizer(model, torch.optim.AdamW(model.parameters(), weight_decay=0))
    warn_of_inexact_optimizer(still, torch.optim.SGD(still.parameters(), lr=0.1))
