"""Runs that go on with another V′, on request, and models with several of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer

import subvocab as sv
from subvocab.integrations.optimizers import carry_over_moments
from subvocab.model.checkpoint import DESCRIPTION_FILE
from subvocab.model.shrink import partial_tables
from tests.properties.test_two_vocabularies import marian, vocabularies
from tests.reference import assert_equal_states, copied, ids_of
from tests.trainer_runs import (
    IGNORED_WARNINGS,
    VOCABULARY,
    arguments_of,
    history,
    larger,
    overlapping,
    rows,
    shrunk,
    trainer_of,
    whole,
)

pytestmark = pytest.mark.filterwarnings(*IGNORED_WARNINGS)

SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
CARRY_OVER = {"other_vocabulary": "carry_over"}
FAMILIES = ["bert", "t5", "gpt2 lm", "llama lm", "bert lm"]
"""One table, one in three modules, and heads: tied, untied, tied with a bias."""


def begun(folder: Path, model: Any, *, compact: bool = False) -> Path:
    """Train half of the way with the usual tokens."""
    watch = {"compact": compact}
    trainer_of(model, folder, watch=watch, max_steps=6, num_train_epochs=1, **SAVING).train()
    return folder / "checkpoint-6"


@pytest.mark.parametrize("family", ["bert", "t5"])
@pytest.mark.parametrize("compact", [False, True])
def test_a_run_with_new_tokens_equals_full_fine_tuning(
    family: str, tmp_path: Path, *, compact: bool
) -> None:
    """Rows new to V′ begin without moments, as those that no batch has touched."""
    dataset = rows(ids_of(larger()), seed=2)
    assert {int(i) for row in dataset for i in row["input_ids"]} - set(VOCABULARY.token_ids)
    runs = []
    for shrinks in (False, True):
        first, then = (
            (shrunk(family), shrunk(family, larger())) if shrinks else (whole(family),) * 2
        )
        checkpoint = begun(tmp_path / str(shrinks), first, compact=compact)
        trainer = trainer_of(then, tmp_path, watch=CARRY_OVER, dataset=dataset)
        trainer.train(resume_from_checkpoint=str(checkpoint))
        runs.append((history(trainer), copied(then.state_dict())))

    assert len(runs[0][0]) == 12
    assert runs[0][0] == runs[1][0]
    assert_equal_states(runs[1][1], runs[0][1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compact", [False, True])
def test_all_that_was_learned_is_carried_over(
    family: str, tmp_path: Path, *, compact: bool
) -> None:
    """Rows no longer in V′, and the rest shift, are part of what unused rows are."""
    first, then = shrunk(family), shrunk(family, overlapping())
    checkpoint = begun(tmp_path, first, compact=compact)
    trainer = trainer_of(then, tmp_path, watch=CARRY_OVER, max_steps=6, num_train_epochs=1)

    trainer.train(resume_from_checkpoint=str(checkpoint))  # to where it is already

    assert_equal_states(copied(then.state_dict()), first.state_dict())
    assert any(module.table.adopted for module in partial_tables(then).values())
    both = np.intersect1d(VOCABULARY.token_ids, overlapping().token_ids)
    theirs = torch.load(checkpoint / "optimizer.pt")["state"]
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    checked = 0
    for index, parameter in enumerate(parameters):
        for key in ("exp_avg", "exp_avg_sq"):
            moment, before = trainer.optimizer.state[parameter][key], theirs[index][key]
            assert moment.shape == parameter.shape
            if before.shape == moment.shape:
                assert torch.equal(moment, before)
                continue
            new, old = overlapping().to_partial(both), VOCABULARY.to_partial(both)
            assert torch.equal(moment[new], before[old])
            assert before[old].any()
            rest = np.setdiff1d(np.arange(len(overlapping())), new)
            assert len(rest)
            assert not moment[rest].any()
            checked += 1
        assert trainer.optimizer.state[parameter]["step"] == 6
    assert checked


@pytest.mark.parametrize("compact", [False, True])
def test_a_run_that_carried_over_goes_on_in_its_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, compact: bool
) -> None:
    """From whole checkpoints, since rows outside V′ are no longer those of the base."""
    checkpoint = begun(tmp_path / "first", shrunk(), compact=compact)
    watch = {**CARRY_OVER, "compact": compact}
    dataset = rows(ids_of(overlapping()))
    models = [shrunk(vocabulary=overlapping()) for _ in range(2)]
    options: dict[str, Any] = {"watch": watch, "dataset": dataset, **SAVING}
    with caplog.at_level(logging.WARNING, logger="subvocab"):
        trainer_of(models[0], tmp_path, **options).train(resume_from_checkpoint=str(checkpoint))
    assert ("step 9 is written whole" in caplog.text) == compact

    trainer_of(models[1], tmp_path, **options).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-9")
    )

    assert not (tmp_path / "checkpoint-9" / DESCRIPTION_FILE).exists()
    assert_equal_states(copied(models[1].state_dict()), models[0].state_dict())


def test_carrying_over_refuses_what_is_no_moment() -> None:
    """What zero would be for a row that was never seen is not known."""
    model = shrunk()
    weight = model.get_input_embeddings().weight
    optimizer = torch.optim.Adagrad([weight])

    with pytest.raises(sv.VocabularyMismatchError, match="The optimizer's `sum` of shape"):
        carry_over_moments(optimizer, weight, VOCABULARY, VOCABULARY)


def translated() -> list[dict[str, Any]]:
    """Make rows of two vocabularies."""
    generator = torch.Generator().manual_seed(0)
    source, target = (ids_of(vocabulary) for vocabulary in vocabularies().values())
    return [
        {
            "input_ids": source[torch.randint(len(source), (7,), generator=generator)],
            "labels": target[torch.randint(len(target), (5,), generator=generator)],
        }
        for _ in range(24)
    ]


def translator(**changes: sv.PartialVocabulary) -> Any:
    """Make a shrunk translation model."""
    torch.manual_seed(0)
    model = marian()
    sv.shrink(model, {**vocabularies(), **changes})
    return model


@pytest.mark.parametrize("compact", [False, True])
def test_each_of_two_vocabularies_is_compared(tmp_path: Path, *, compact: bool) -> None:
    """Both the same: the run goes on; one of them another: it does not, unless asked to."""
    more = vocabularies()["decoder"]
    more = more.union(np.setdiff1d(np.arange(200), more.token_ids)[:1])
    models = [translator(), translator(), translator(decoder=more), translator(decoder=more)]
    watches: list[dict[str, Any]] = [{}, {}, {}, CARRY_OVER]
    trainers: list[Any] = [
        Trainer(
            model=model,
            args=arguments_of(tmp_path, **SAVING),
            train_dataset=translated(),
            callbacks=[sv.VocabularyCallback(model, compact=compact, **watch)],
        )
        for model, watch in zip(models, watches, strict=True)
    ]
    trainers[0].train()

    trainers[1].train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    with pytest.raises(sv.VocabularyMismatchError, match=r"decoder\.embed_tokens\.weight"):
        trainers[2].train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    trainers[3].train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))

    assert_equal_states(copied(models[1].state_dict()), models[0].state_dict())
    assert len(history(trainers[3])) == 12
