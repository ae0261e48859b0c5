"""Whole runs of the Trainer: with E′ as with E, interrupted or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

import subvocab as sv
from subvocab.model.checkpoint import VOCABULARY_FILE
from subvocab.model.shrink import partial_embeddings
from tests.models import FULL_VOCAB_SIZE, tiny_model
from tests.reference import assert_equal_states, copied, drawn_vocabulary, ids_of

EOS = 1
VOCABULARY = drawn_vocabulary().union([EOS])
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*pin_memory.*:UserWarning", "ignore:.*activation_checkpointing.*:FutureWarning"
)


def rows(token_ids: torch.Tensor, *, count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Make a dataset whose rows end in one and the same token, for the families that pool there."""
    generator = torch.Generator().manual_seed(seed)
    ids = token_ids[torch.randint(len(token_ids), (count, 8), generator=generator)]
    ids[ids == EOS] = token_ids[-1]
    ids[:, -1] = EOS
    return [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": i % 2}
        for i, row in enumerate(ids)
    ]


TRAINING = rows(ids_of(VOCABULARY))
UNSEEN = rows(torch.arange(FULL_VOCAB_SIZE), seed=1)


def trainer_of(model: Any, folder: Path, *, callback: bool = True, **options: Any) -> Trainer:
    """Make a Trainer with the defaults that everyone uses, and a callback for a shrunk model."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        num_train_epochs=2,
        learning_rate=1e-3,
        max_grad_norm=0.05,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        **{"save_strategy": "no"} | options,
    )
    watched = partial_embeddings(model) and callback
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=TRAINING,
        eval_dataset=UNSEEN,
        callbacks=[sv.VocabularyCallback(model)] if watched else None,
    )


def shrunk(family: str = "bert", size: int = 40, *, seed: int = 0) -> Any:
    """Make a shrunk model; seeds change its vocabulary, not its weights."""
    model = tiny_model(family)
    vocabulary = VOCABULARY if not seed else drawn_vocabulary(size, seed=seed)
    sv.shrink(model, vocabulary)
    return model


def history(trainer: Trainer) -> list[tuple[float, float]]:
    """Give loss and gradient norm of every step."""
    log = trainer.state.log_history
    return [(entry["loss"], entry["grad_norm"]) for entry in log if "loss" in entry]


@pytest.mark.parametrize("family", ["bert", "t5", "llama"])
@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "sgd"])
def test_a_run_is_equal(family: str, optimizer: str, tmp_path: Path) -> None:
    """Losses, gradient norms, weights, and predictions on text that was never seen."""
    runs: list[Any] = []
    for model in (tiny_model(family, pad_token_id=0), tiny_model(family, pad_token_id=0)):
        if runs:
            sv.shrink(model, VOCABULARY)
        trainer = trainer_of(model, tmp_path, optim=optimizer)
        trainer.train()
        predictions = trainer.predict(UNSEEN).predictions  # type: ignore[arg-type]
        logits = predictions[0] if isinstance(predictions, tuple) else predictions
        runs.append((history(trainer), logits, copied(model.state_dict())))

    (full_history, full_logits, full_state), (our_history, our_logits, our_state) = runs
    assert len(full_history) == 12
    assert our_history == full_history
    assert np.array_equal(our_logits, full_logits)
    assert_equal_states(our_state, full_state)


def interrupted(folder: Path, model: Any, **options: Any) -> Path:
    """Train with a checkpoint after every third step; give the one in the middle."""
    trainer = trainer_of(model, folder, save_strategy="steps", save_steps=3, **options)
    trainer.train()
    return folder / "checkpoint-6"


@pytest.mark.parametrize("family", ["bert", "t5"])
@pytest.mark.parametrize("restored", [False, True])
def test_a_resumed_run_is_equal(family: str, tmp_path: Path, *, restored: bool) -> None:
    """As if it had not been interrupted; callbacks made anew from their state too."""
    model, again = shrunk(family), shrunk(family)
    checkpoint = interrupted(tmp_path, model)

    trainer = trainer_of(again, tmp_path, restore_callback_states_from_checkpoint=restored)
    trainer.train(resume_from_checkpoint=str(checkpoint))

    assert_equal_states(copied(again.state_dict()), model.state_dict())


def test_checkpoints_are_whole_and_hold_the_vocabulary(tmp_path: Path) -> None:
    """Anyone can load them, and shrink the model alike to go on."""
    model = shrunk()
    checkpoint = interrupted(tmp_path, model)

    whole = AutoModelForSequenceClassification.from_pretrained(checkpoint)

    assert whole.get_input_embeddings().weight.shape[0] == FULL_VOCAB_SIZE
    for folder in tmp_path.glob("checkpoint-*"):
        assert sv.PartialVocabulary.load(folder / VOCABULARY_FILE) == sv.vocabulary_of(model)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 4


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    """Into the shrunk model, from a whole checkpoint."""
    options: dict[str, Any] = {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
    }
    states: list[Any] = []
    for model in (tiny_model("bert"), shrunk()):
        trainer = trainer_of(model, tmp_path / str(len(states)), **options)
        trainer.train()
        best = Path(str(trainer.state.best_model_checkpoint)).name
        states.append((best, trainer.evaluate()["eval_loss"], copied(model.state_dict())))

    assert states[0][:2] == states[1][:2]
    assert_equal_states(states[1][2], states[0][2])


@pytest.mark.parametrize(("size", "seed"), [(40, 5), (30, 5), (60, 5)])
def test_resuming_with_another_vocabulary_is_refused(size: int, seed: int, tmp_path: Path) -> None:
    """Before a step is taken, of the same size or not."""
    checkpoint = interrupted(tmp_path, shrunk())
    other = shrunk(size=size, seed=seed)
    assert len(sv.vocabulary_of(other)) == size
    assert len(sv.vocabulary_of(shrunk())) == 40
    trainer = trainer_of(other, tmp_path)

    with pytest.raises(sv.VocabularyMismatchError, match="made with the partial vocabulary"):
        trainer.train(resume_from_checkpoint=str(checkpoint))

    assert not history(trainer)[6:]
    assert trainer.state.global_step == 6


@pytest.mark.parametrize("size", [30, 60])
def test_resuming_without_the_callbacks_state_checks_shapes(size: int, tmp_path: Path) -> None:
    """A checkpoint that was written without the callback still has its moments."""
    checkpoint = interrupted(tmp_path, shrunk(), callback=False)
    assert not (checkpoint / VOCABULARY_FILE).exists()
    kept = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]
    assert "VocabularyCallback" not in kept
    trainer = trainer_of(shrunk(size=size, seed=5), tmp_path)

    with pytest.raises(sv.VocabularyMismatchError, match="The optimizer's `exp_avg`"):
        trainer.train(resume_from_checkpoint=str(checkpoint))

    assert trainer.state.global_step == 6


def test_resuming_a_full_run_checks_shapes(tmp_path: Path) -> None:
    """Its weights fit, its moments do not."""
    checkpoint = interrupted(tmp_path, tiny_model("bert"))

    with pytest.raises(sv.VocabularyMismatchError, match=r"has shape \(300, 32\), expected"):
        trainer_of(shrunk(), tmp_path).train(resume_from_checkpoint=str(checkpoint))
