"""The base that a shrunk model reads from is changed, gone or cut short; memory runs out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import subvocab as sv
from tests.models import FULL_VOCAB_SIZE, tiny_model

VOCABULARY = sv.PartialVocabulary(np.arange(0, FULL_VOCAB_SIZE, 7), FULL_VOCAB_SIZE)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Save a base model."""
    tiny_model("bert").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def model(base: Path) -> Any:
    """Load a part of it, and let it learn something."""
    model = sv.from_pretrained(AutoModelForSequenceClassification, base, VOCABULARY)
    with torch.no_grad():
        model.get_input_embeddings().weight += 1
    return model


def _delete(weights: Path) -> None:
    weights.unlink()


def _replace(weights: Path) -> None:
    other = weights.with_name("other.safetensors")
    shutil.copyfile(weights, other)
    other.replace(weights)


def _write_over(weights: Path) -> None:
    with weights.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"abcd")


CHANGES = (_delete, _replace, _write_over)
USES: dict[str, Callable[[Any, Path], object]] = {
    "state_dict": lambda model, _: model.state_dict(),
    "save_pretrained": lambda model, folder: model.save_pretrained(folder / "saved"),
    "restore": lambda model, _: sv.restore(model),
    "evaluation": lambda model, _: model.eval()(input_ids=torch.tensor([[1, 2, 3]])),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("use", USES)
def test_a_base_that_changes_under_a_run_is_noticed(
    use: str, change: Callable[[Path], None], base: Path, model: Any, tmp_path: Path
) -> None:
    """Rows of another model never mix with what was learned, and that is not lost."""
    weights = base / "model.safetensors"
    learned = model.get_input_embeddings().weight.detach().clone()
    change(weights)

    with pytest.raises(sv.CheckpointError) as caught:
        USES[use](model, tmp_path)

    assert str(weights) in str(caught.value)
    expected = ("is gone",) if change is _delete else ("has changed since",)
    assert any(words in str(caught.value) for words in expected)
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    assert torch.equal(model.get_input_embeddings().weight, learned)
    compact = sv.compact_state_dict(model)
    assert torch.equal(compact["bert.embeddings.word_embeddings.weight"], learned)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_what_was_learned_can_be_saved_when_the_base_is_gone(
    change: Callable[[Path], None], base: Path, model: Any, tmp_path: Path
) -> None:
    """A compact checkpoint has none of its rows, and is made whole when it is back."""
    weights = base / "model.safetensors"
    shutil.copyfile(weights, tmp_path / "kept")
    learned = model.get_input_embeddings().weight.detach().clone()
    change(weights)

    sv.save_compact(model, tmp_path / "compact")
    (tmp_path / "kept").replace(weights)

    out = sv.merge(tmp_path / "compact", base=base, out=tmp_path / "out", progress=False)
    whole = AutoModelForSequenceClassification.from_pretrained(out)
    assert torch.equal(
        whole.get_input_embeddings().weight[torch.tensor(VOCABULARY.token_ids)], learned
    )


def test_a_base_that_was_changed_before_a_merge_is_noticed(
    base: Path, model: Any, tmp_path: Path
) -> None:
    """By its fingerprint: the file may have been written anew since."""
    sv.save_compact(model, tmp_path / "compact")
    tiny_model("bert", seed=1).save_pretrained(base)

    with pytest.raises(sv.VocabularyMismatchError, match="is the one that was shrunk"):
        sv.merge(tmp_path / "compact", base=base, out=tmp_path / "out", progress=False)

    assert not (tmp_path / "out").exists()


WITHOUT_MEMORY = """
import resource
from pathlib import Path
import numpy as np, torch, transformers
import subvocab as sv

SIZE, DIM = 400_000, 64
torch.set_num_threads(1)
config = transformers.BertConfig(
    vocab_size=SIZE, hidden_size=DIM, num_hidden_layers=1, num_attention_heads=1,
    intermediate_size=8, max_position_embeddings=16,
)
model = transformers.BertForSequenceClassification(config)
whole = model.get_input_embeddings().weight.detach().clone()
sv.shrink(model, sv.PartialVocabulary(np.arange(0, SIZE, 1000), SIZE))
with torch.no_grad():
    model.get_input_embeddings().weight += 1
learned = model.get_input_embeddings().weight.detach().clone()
whole[::1000] += 1

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
try:
    sv.restore(model)
except (MemoryError, RuntimeError, OSError, sv.SubvocabError) as error:
    print(type(error).__name__, error)
else:
    print("there was enough")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert torch.equal(model.get_input_embeddings().weight, learned), "the learned rows are lost"
sv.restore(model)
assert torch.equal(model.get_input_embeddings().weight, whole), "the model is not whole"
print("restored")
"""


@pytest.mark.slow
def test_memory_that_runs_out_while_restoring_loses_nothing() -> None:
    """The model stays as it was, and can be restored when there is memory."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    failed, restored = ended.stdout.splitlines()
    assert "memory" in failed.lower(), failed
    assert restored == "restored"
