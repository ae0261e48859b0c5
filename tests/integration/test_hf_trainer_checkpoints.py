"""Runs that go on from a checkpoint: as if they had not been interrupted, or not at all."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    Trainer,
    TrainerControl,
    TrainerState,
)

import subvocab as sv
from subvocab.integrations.unfinished import set_unfinished_aside
from subvocab.model.checkpoint import DESCRIPTION_FILE, VOCABULARY_FILE
from tests.models import FULL_VOCAB_SIZE
from tests.reference import assert_equal_states, copied, drawn_vocabulary
from tests.trainer_runs import (
    IGNORED_WARNINGS,
    VOCABULARY,
    arguments_of,
    history,
    overlapping,
    shrunk,
    trainer_of,
    whole,
)

pytestmark = pytest.mark.filterwarnings(*IGNORED_WARNINGS)

ROOT = Path(__file__).parents[2]
SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}


def interrupted(folder: Path, model: Any, **options: Any) -> Path:
    """Train with a checkpoint after every third step; give the one in the middle."""
    trainer_of(model, folder, **SAVING, **options).train()
    return folder / "checkpoint-6"


def other_vocabulary(size: int) -> sv.PartialVocabulary:
    """Draw another V′, which has the tokens that the model itself needs."""
    return drawn_vocabulary(size, seed=5)


@pytest.mark.parametrize("family", ["bert", "t5", "bert lm", "gpt2 lm", "llama lm", "gemma3n lm"])
@pytest.mark.parametrize("compact", [False, True])
def test_a_resumed_run_is_equal(family: str, tmp_path: Path, *, compact: bool) -> None:
    """As if it had not been interrupted: the same model goes on, or one made anew."""
    model, again = shrunk(family), shrunk(family)
    watch = {"compact": compact}
    trainer = trainer_of(model, tmp_path, watch=watch, **SAVING)
    trainer.train()
    losses, expected = history(trainer), copied(model.state_dict())

    for resumed in (trainer_of(again, tmp_path, watch=watch), trainer):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
        assert history(resumed) == losses
        assert_equal_states(copied(resumed.model.state_dict()), expected)


@pytest.mark.parametrize("compact", [False, True])
def test_a_resumed_run_is_equal_with_callbacks_made_anew(tmp_path: Path, *, compact: bool) -> None:
    """The Trainer makes them from their state, on request."""
    model, again = shrunk("gpt2 lm"), shrunk("gpt2 lm")
    checkpoint = interrupted(tmp_path / "first", model, watch={"compact": compact})

    resumed = trainer_of(
        again, tmp_path / "then", restore_callback_states_from_checkpoint=True, **SAVING
    )
    resumed.train(resume_from_checkpoint=str(checkpoint))

    assert_equal_states(copied(again.state_dict()), model.state_dict())
    assert (tmp_path / "then/checkpoint-9" / DESCRIPTION_FILE).exists() == compact


PROCESS = """
import sys
from pathlib import Path
import torch
from tests.trainer_runs import shrunk, trainer_of
folder, resume, compact = Path(sys.argv[1]), sys.argv[2] == "resume", sys.argv[3] == "compact"
trainer = trainer_of(
    shrunk("gpt2 lm"), folder, watch={"compact": compact}, save_strategy="steps", save_steps=3
)
trainer.train(resume_from_checkpoint=resume)
trainer.save_model(folder / ("resumed" if resume else "uninterrupted"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "compact"])
def test_a_new_process_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    """The base is loaded anew, and the rest shift is what it was."""
    for how in ("begin", "resume"):
        command = [sys.executable, "-c", PROCESS, str(tmp_path), how, kind]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        for folder in [*tmp_path.glob("checkpoint-9"), *tmp_path.glob("checkpoint-12")]:
            shutil.rmtree(folder)  # the next begins in the middle

    first, then = (
        load_file(tmp_path / name / "model.safetensors") for name in ("uninterrupted", "resumed")
    )
    assert_equal_states(then, first)
    assert first["transformer.wte.weight"].shape[0] == FULL_VOCAB_SIZE


def test_checkpoints_are_whole_and_hold_the_vocabulary(tmp_path: Path) -> None:
    """Anyone can load them, and shrink the model alike to go on."""
    model = shrunk()
    checkpoint = interrupted(tmp_path, model)

    again = AutoModelForSequenceClassification.from_pretrained(checkpoint)

    assert again.get_input_embeddings().weight.shape[0] == FULL_VOCAB_SIZE
    for folder in tmp_path.glob("checkpoint-*"):
        assert sv.PartialVocabulary.load(folder / VOCABULARY_FILE) == sv.vocabulary_of(model)
        assert not (folder / DESCRIPTION_FILE).exists()
    assert len(list(tmp_path.glob("checkpoint-*"))) == 4


@pytest.mark.parametrize(
    ("family", "shard_size"), [("bert", None), ("gpt2 lm", None), ("gpt2 lm", "5KB")]
)
def test_compact_checkpoints_are_merged_and_loaded(
    family: str, shard_size: str | None, tmp_path: Path
) -> None:
    """In one file or in shards, which part rows from their token ids; the base is on disk."""
    base = tmp_path / "base"
    whole(family).save_pretrained(base)
    states, sizes = {}, {}
    for compact in (True, False):
        folder = tmp_path / str(compact)
        models = [type(whole(family)).from_pretrained(base) for _ in range(2)]
        for model in models:
            sv.shrink(model, VOCABULARY)
            if shard_size is not None:
                save = functools.partial(model.save_pretrained, max_shard_size=shard_size)
                vars(model)["save_pretrained"] = save
        trainer = trainer_of(models[0], folder, watch={"compact": compact}, **SAVING)
        trainer.train()
        checkpoint, last = folder / "checkpoint-6", folder / "checkpoint-12"
        resumed = trainer_of(models[1], folder, watch={"compact": compact})
        resumed.train(resume_from_checkpoint=str(checkpoint))
        assert_equal_states(copied(models[1].state_dict()), models[0].state_dict())
        shards = len(list(checkpoint.glob("*.safetensors"))) - 1
        assert (shards > 3) == (shard_size is not None)
        if shard_size and compact:
            index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
            files = index["weight_map"]
            assert files["transformer.wte.weight"] != files["transformer.wte.token_ids"]
        assert not list(checkpoint.glob("pytorch_model*"))
        sizes[compact] = sum(path.stat().st_size for path in checkpoint.glob("model*.safetensors"))
        if compact:
            last = sv.merge(last, base=base, out=tmp_path / "merged")
            assert not (last / "optimizer.pt").exists()
        states[compact] = copied(type(models[0]).from_pretrained(last).state_dict())

    assert_equal_states(states[True], states[False])
    assert sizes[True] < sizes[False]


def test_the_best_of_compact_checkpoints_is_loaded_and_then_all_is_whole(tmp_path: Path) -> None:
    """A state dict is compact for a checkpoint only."""
    states = []
    for compact in (False, True):
        model = shrunk("gpt2 lm")
        trainer = trainer_of(
            model,
            tmp_path / str(compact),
            watch={"compact": compact},
            save_strategy="epoch",
            eval_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="loss",
            learning_rate=0.05,  # the second pass is worse
        )
        trainer.train()
        assert Path(str(trainer.state.best_model_checkpoint)).name == "checkpoint-6"
        states.append(copied(model.state_dict()))
        trainer.save_model(tmp_path / "saved" / str(compact))

    assert_equal_states(states[1], states[0])
    saved = load_file(tmp_path / "saved/True/model.safetensors")
    assert saved["transformer.wte.weight"].shape[0] == FULL_VOCAB_SIZE
    assert not (tmp_path / "saved/True" / DESCRIPTION_FILE).exists()


class Interrupted(Trainer):
    """A Trainer whose user stops it while it writes a checkpoint."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        raise KeyboardInterrupt(output_dir)


def test_after_an_interruption_all_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint was to be compact, but what its user saves now is none."""
    monkeypatch.setattr("subvocab.integrations.unfinished.STILL_SECONDS", 0.1)
    model = shrunk("gpt2 lm")
    trainer = trainer_of(model, tmp_path, watch={"compact": True}, kind=Interrupted, **SAVING)

    with pytest.raises(KeyboardInterrupt):
        trainer.train()

    checkpoint = load_file(tmp_path / "checkpoint-3/model.safetensors")
    assert checkpoint["transformer.wte.weight"].shape[0] == len(VOCABULARY)
    assert model.state_dict()["transformer.wte.weight"].shape[0] == FULL_VOCAB_SIZE
    set_unfinished_aside(tmp_path)
    assert not (tmp_path / "checkpoint-3").exists()


def test_a_checkpoint_that_is_being_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may be training in the same folder."""
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()

    def write(_seconds: float) -> None:
        (folder / "optimizer.pt").write_bytes(b"0")

    monkeypatch.setattr("subvocab.integrations.unfinished.time.sleep", write)
    set_unfinished_aside(tmp_path)

    assert (folder / "optimizer.pt").exists()


def test_a_checkpoint_replaces_one_of_an_earlier_run(tmp_path: Path) -> None:
    """In the same folder, with another vocabulary, and of the other kind."""
    interrupted(tmp_path, shrunk(), watch={"compact": True})
    model = shrunk(vocabulary=overlapping(), out_of_vocabulary="frozen")

    checkpoint = interrupted(tmp_path, model)

    assert sv.PartialVocabulary.load(checkpoint / VOCABULARY_FILE) == sv.vocabulary_of(model)
    assert not (checkpoint / DESCRIPTION_FILE).exists()


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("size", [40, 30, 60])
def test_resuming_with_another_vocabulary_is_refused(
    size: int, tmp_path: Path, *, compact: bool
) -> None:
    """Before a step is taken, of the same size or not."""
    checkpoint = interrupted(tmp_path, shrunk(), watch={"compact": compact})
    trainer = trainer_of(shrunk(vocabulary=other_vocabulary(size)), tmp_path)

    message = "holds rows of a partial vocabulary" if compact else "was made with the partial voca"
    with pytest.raises(sv.VocabularyMismatchError, match=message):
        trainer.train(resume_from_checkpoint=str(checkpoint))

    assert not history(trainer)[6:]
    assert trainer.state.global_step == (0 if compact else 6)


@pytest.mark.parametrize("size", [30, 60])
def test_resuming_without_the_callbacks_state_checks_shapes(size: int, tmp_path: Path) -> None:
    """A checkpoint that was written without the callback still has its moments."""
    checkpoint = interrupted(tmp_path, shrunk(), callback=False)
    assert not (checkpoint / VOCABULARY_FILE).exists()
    kept = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]
    assert "VocabularyCallback" not in kept
    trainer = trainer_of(shrunk(vocabulary=other_vocabulary(size)), tmp_path)

    with pytest.raises(sv.VocabularyMismatchError, match="The optimizer's `exp_avg`"):
        trainer.train(resume_from_checkpoint=str(checkpoint))

    assert trainer.state.global_step == 6


def test_resuming_a_full_run_checks_shapes(tmp_path: Path) -> None:
    """Its weights fit, its moments do not."""
    checkpoint = interrupted(tmp_path, whole())

    with pytest.raises(sv.VocabularyMismatchError, match=r"has shape \(300, 32\), expected"):
        trainer_of(shrunk(), tmp_path).train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize("family", ["bert", "gpt2 lm"])
@pytest.mark.parametrize("compact", [False, True])
def test_resuming_from_another_base_is_refused(
    family: str, tmp_path: Path, *, compact: bool
) -> None:
    """The rows outside V′ would be others."""
    checkpoint = interrupted(tmp_path, shrunk(family), watch={"compact": compact})
    other = whole(family)
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(1.5)
    sv.shrink(other, VOCABULARY)

    with pytest.raises(sv.VocabularyMismatchError, match="from another base: its matrix"):
        trainer_of(other, tmp_path).train(resume_from_checkpoint=str(checkpoint))


def test_resuming_with_other_parts_is_refused(tmp_path: Path) -> None:
    """A head that was whole has moments for all of V."""
    checkpoint = interrupted(tmp_path, shrunk("llama lm", head="whole"))
    other = shrunk("llama lm", rest_shift=False)

    message = "with partial vocabularies for `model.embed_tokens.weight`, but the model has them"
    with pytest.raises(sv.VocabularyMismatchError, match=re.escape(message)):
        trainer_of(other, tmp_path).train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize("compact", [False, True])
def test_what_is_loaded_later_does_not_stay(tmp_path: Path, *, compact: bool) -> None:
    """Other rows outside V′, such as those of the best model, give way to the checkpoint's."""
    model = shrunk("gpt2 lm")
    trainer = trainer_of(model, tmp_path, watch={"compact": compact}, **SAVING)
    trainer.train()
    expected = copied(model.state_dict())
    model.load_state_dict({name: value * 1.5 for name, value in expected.items()})

    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))

    assert_equal_states(copied(model.state_dict()), expected)


def test_compact_checkpoints_are_not_pushed(tmp_path: Path) -> None:
    """Nobody could use them."""
    callback = sv.VocabularyCallback(model := shrunk(), compact=True)
    arguments = arguments_of(tmp_path, push_to_hub=True, hub_strategy="every_save")
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)

    with pytest.raises(sv.UnsupportedModelError, match='Use `hub_strategy="end"`, or leave'):
        callback.on_train_begin(
            arguments, TrainerState(), TrainerControl(), model=model, optimizer=optimizer
        )


def test_compact_checkpoints_of_what_cannot_be_merged_are_refused(tmp_path: Path) -> None:
    """Such as an adapter's, or those of a module of one's own."""
    model = peft.get_peft_model(
        shrunk(), peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    )

    with pytest.raises(sv.UnsupportedModelError, match="is no transformers model, whose checkp"):
        trainer_of(model, tmp_path, watch={"compact": True}).train()


def test_an_unknown_way_with_other_vocabularies_is_refused() -> None:
    """It names those there are."""
    with pytest.raises(sv.UnsupportedModelError, match="expected one of 'refuse', 'carry_over'"):
        sv.VocabularyCallback(other_vocabulary="keep")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adamw_torch"])
def test_resuming_without_the_line_stops_with_a_message(optimizer: str, tmp_path: Path) -> None:
    """A fused step of torch would write past the end of the smaller moments."""
    checkpoint = interrupted(tmp_path, shrunk())
    plain = trainer_of(whole(), tmp_path, optim=optimizer)

    with pytest.raises(RuntimeError, match="The size of tensor a"):
        plain.train(resume_from_checkpoint=str(checkpoint))


def test_a_resumed_run_is_fused_again(tmp_path: Path) -> None:
    """What was saved to stop others does not slow this one down."""
    checkpoint = interrupted(tmp_path, shrunk())
    trainer = trainer_of(shrunk(), tmp_path)

    trainer.train(resume_from_checkpoint=str(checkpoint))

    groups = trainer.optimizer.param_groups
    assert [group["fused"] for group in groups] == [True] * len(groups)
    assert not any("subvocab_fused" in group for group in groups)


def test_a_checkpoint_that_cannot_be_read_now_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails says nothing about what was written."""
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")

    def fail(_path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Input/output error"):
        set_unfinished_aside(tmp_path)

    assert checkpoint.exists()
