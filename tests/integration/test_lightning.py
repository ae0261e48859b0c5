"""Whole runs of Lightning: with E′ as with E, interrupted or not, in one process and in two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

import subvocab as sv
from subvocab.integrations.lightning import ShrinkCallback
from subvocab.model.shrink import partial_embeddings
from tests.lightning_module import EOS, VOCABULARY, Module, Rows, fit, padded
from tests.models import FULL_VOCAB_SIZE
from tests.pages import python_blocks, run_block
from tests.reference import assert_equal_states, copied, drawn_vocabulary
from tests.workers.launching import launch, results_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]


@pytest.mark.parametrize("family", ["bert", "t5", "llama"])
def test_a_run_is_equal(family: str, tmp_path: Path) -> None:
    """Losses, weights, and the order of shuffled rows: the scan draws no random number."""
    whole, module = Module(family), Module(family)

    fit(whole, tmp_path / "whole")
    fit(module, tmp_path / "shrunk", [ShrinkCallback()])

    assert len(whole.losses) == 16
    assert module.losses == whole.losses
    assert_equal_states(copied(module.state_dict()), whole.state_dict())


def test_the_training_data_gives_the_vocabulary(tmp_path: Path) -> None:
    """With the padding that only its collator adds."""
    module = Module()

    fit(module, tmp_path, [ShrinkCallback()], epochs=1)

    seen = {i for row in Rows().rows for i in row.tolist()}
    assert 0 not in seen
    assert set(sv.vocabulary_of(module).token_ids.tolist()) == seen | {0, EOS}


def test_checkpoints_are_whole(tmp_path: Path) -> None:
    """Anyone can load them into a module that is not shrunk."""
    module, whole = Module(), Module()

    fit(module, tmp_path, [ShrinkCallback(VOCABULARY)])

    saved = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    assert_equal_states(copied(module.state_dict()), saved["state_dict"])
    whole.load_state_dict(saved["state_dict"])
    fit(whole, tmp_path / "plain", epochs=1)


def test_a_resumed_run_is_equal(tmp_path: Path) -> None:
    """As the whole model's; Lightning itself keeps neither dropout nor the order of rows."""
    losses, states = [], []
    for folder, callbacks in (("whole", []), ("shrunk", [ShrinkCallback(VOCABULARY)])):
        fit(Module(), tmp_path / folder, callbacks, epochs=1)
        again = Module()
        fit(again, tmp_path / folder, callbacks, resumed=tmp_path / folder / "epoch=0.ckpt")
        losses.append(again.losses)
        states.append(copied(again.state_dict()))

    assert len(losses[0]) == 8
    assert losses[1] == losses[0]
    assert_equal_states(states[1], states[0])


def test_a_resumed_language_model_is_equal(tmp_path: Path) -> None:
    """As if it had not been interrupted: the rest shift is taken out of the rows again."""
    module, again = Module("gpt2"), Module("gpt2")
    fit(module, tmp_path, [ShrinkCallback(VOCABULARY)], shuffle=False)

    checkpoint = tmp_path / "epoch=0.ckpt"
    fit(again, tmp_path, [ShrinkCallback(VOCABULARY)], resumed=checkpoint, shuffle=False)

    assert again.losses == module.losses[8:]
    assert_equal_states(copied(again.state_dict()), copied(module.state_dict()))


@pytest.mark.parametrize("size", [len(VOCABULARY), 30])
def test_resuming_with_another_vocabulary_is_refused(size: int, tmp_path: Path) -> None:
    """Of the same size or not, before a step is taken."""
    fit(Module(), tmp_path, [ShrinkCallback(VOCABULARY)], epochs=1)
    used = VOCABULARY if size == 30 else drawn_vocabulary(size - 2, seed=5).union([1, EOS])
    other = Module()
    callback = ShrinkCallback(used.union([299]) if size == 30 else used)

    with pytest.raises(sv.VocabularyMismatchError, match="made with the partial vocabulary"):
        fit(other, tmp_path, [callback], resumed=tmp_path / "epoch=0.ckpt")

    assert not other.losses


def test_resuming_a_full_run_is_refused(tmp_path: Path) -> None:
    """Its weights fit, its moments do not."""
    fit(Module(), tmp_path, epochs=1)
    module = Module()

    with pytest.raises(sv.VocabularyMismatchError, match=r"has shape \(300, 32\), expected"):
        fit(module, tmp_path, [ShrinkCallback(VOCABULARY)], resumed=tmp_path / "epoch=0.ckpt")

    assert not module.losses


def test_a_model_is_restored_if_asked_for(tmp_path: Path) -> None:
    """After the run, with all that was learned."""
    whole, module = Module(), Module()

    fit(whole, tmp_path / "whole", epochs=1)
    fit(module, tmp_path / "shrunk", [ShrinkCallback(restores=True)], epochs=1)

    assert not partial_embeddings(module)
    assert_equal_states(module.state_dict(), whole.state_dict())
    fit(module, tmp_path / "again", [ShrinkCallback(restores=True)], epochs=1)


def test_a_module_that_is_shrunk_already_is_left_as_it_is(tmp_path: Path) -> None:
    """By hand, with options of one's own."""
    module = Module()
    sv.shrink(module.model, VOCABULARY)

    fit(module, tmp_path, [ShrinkCallback()], epochs=1)

    assert sv.vocabulary_of(module) == VOCABULARY


def test_data_that_cannot_be_scanned_is_refused(tmp_path: Path) -> None:
    """A list of batches is no loader with a dataset."""
    import lightning  # noqa: PLC0415 - of use here alone

    trainer = lightning.Trainer(
        accelerator="cpu", callbacks=[ShrinkCallback()], default_root_dir=tmp_path, logger=False
    )
    message = (
        "The training data is a `list`, expected a `DataLoader` to scan. Scan it with "
        "`subvocab.scan`, and pass the callback a `vocabulary`."
    )

    with pytest.raises(sv.UnsupportedModelError, match=f"^{re.escape(message)}$"):
        trainer.fit(Module(), [padded([Rows()[0]])])


def test_a_callback_that_averages_a_whole_copy_is_refused(tmp_path: Path) -> None:
    """One that comes after copies the small model."""
    averaging = [EMAWeightAveraging(), ShrinkCallback(VOCABULARY)]
    message = (
        "`EMAWeightAveraging` comes before `ShrinkCallback`, and has copied the model while it was "
        "whole: the two would not fit. Put `ShrinkCallback` first in `callbacks`."
    )

    with pytest.raises(sv.UnsupportedModelError, match=f"^{re.escape(message)}$"):
        fit(Module(), tmp_path, averaging, epochs=1)

    fit(Module(), tmp_path, [ShrinkCallback(VOCABULARY), EMAWeightAveraging()], epochs=1)


def test_a_trainer_under_the_older_name_takes_the_callback(tmp_path: Path) -> None:
    """`pytorch_lightning` has classes of its own."""
    older: Any = pytest.importorskip("pytorch_lightning")

    class Older(older.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = Module().model

        def training_step(self, batch: Any) -> Any:
            return self.model(**batch).loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), weight_decay=0)

    module, loader = Older(), torch.utils.data.DataLoader(Rows(), 4, collate_fn=padded)
    older.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=tmp_path,
        callbacks=[ShrinkCallback()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, loader)

    assert len(sv.vocabulary_of(module)) < FULL_VOCAB_SIZE / 2


def test_two_processes_are_equal(tmp_path: Path) -> None:
    """Lightning's own data parallelism: losses, weights, whole checkpoints, resumed runs."""
    done = launch("lightning_ddp", tmp_path)

    assert results_of(tmp_path) == {"equal": [None, None], "resumed": [None, None]}, done.stderr


def test_the_page_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snippets run one after another."""
    monkeypatch.chdir(tmp_path)
    loader = torch.utils.data.DataLoader(Rows(), 4, collate_fn=padded)
    names: dict[str, Any] = {"module": Module(), "Module": Module, "train_loader": loader}

    for block in python_blocks("docs/lightning.md"):
        run_block(block, names)

    assert not partial_embeddings(names["module"])
