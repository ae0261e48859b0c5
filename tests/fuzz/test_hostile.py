"""What a stranger would try first: leave the folder, run code, exhaust the machine."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from transformers import AutoModelForSequenceClassification

import subvocab as sv
from subvocab.storage import merge_rows, read_checkpoint
from tests.models import FULL_VOCAB_SIZE, tiny_model

VOCABULARY = sv.PartialVocabulary(np.arange(5), FULL_VOCAB_SIZE)


class Harm:
    """Unpickling it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    "shard",
    [
        *("../secret.safetensors", "/etc/passwd", "..", ".", "", "a/../../secret.safetensors"),
        *("..\\secret.safetensors", "C:secret", "a\0.safetensors", "sub/a.safetensors", 7, None),
        "a" * 256,
    ],
)
def test_an_index_leads_nowhere_else(shard: object, tmp_path: Path) -> None:
    """Shards lie beside their index."""
    (tmp_path / "secret.safetensors").write_bytes(save({"a": np.zeros(2)}))
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.safetensors").write_bytes(save({"a": np.zeros(2)}))
    index = json.dumps({"weight_map": {"a": shard}})
    (folder / "model.safetensors.index.json").write_text(index)

    with pytest.raises(sv.CheckpointError, match="Do not trust this checkpoint"):
        read_checkpoint(folder)


def test_a_link_to_itself_ends(tmp_path: Path) -> None:
    """Links are followed, as the Hub's cache needs it, but not for ever."""
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")

    with pytest.raises(sv.CheckpointError, match="holds neither"):
        read_checkpoint(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody may ever write to a pipe; a device has no end."""
    (tmp_path / "base").mkdir()
    os.mkfifo(tmp_path / "base" / "model.safetensors")

    with pytest.raises(sv.CheckpointError, match="holds neither"):
        read_checkpoint(tmp_path / "base")

    (tmp_path / "base" / "model.safetensors").unlink()
    (tmp_path / "base" / "model.safetensors").write_bytes(save({"a": np.zeros((2, 2))}))
    os.mkfifo(tmp_path / "base" / "pipe")

    merge_rows(tmp_path / "base", tmp_path / "out", {})

    assert sorted(os.listdir(tmp_path / "out")) == ["model.safetensors"]  # noqa: PTH208
    (tmp_path / "base" / "zeros").symlink_to("/dev/zero")
    with pytest.raises(sv.CheckpointError, match="a link to /dev/zero, where there is no file"):
        merge_rows(tmp_path / "base", tmp_path / "again", {})


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickles_are_never_read(name: str, tmp_path: Path) -> None:
    """Reading one runs what is in it."""
    base = tmp_path / "base"
    tiny_model("bert").config.save_pretrained(base)
    (base / name).write_bytes(pickle.dumps({"a": Harm(tmp_path / "harmed")}))

    for read in (
        lambda: sv.from_pretrained(AutoModelForSequenceClassification, base, VOCABULARY),
        lambda: sv.FullMatrix.open(base, "a"),
        lambda: sv.PartialVocabulary.load(base / name),
        lambda: sv.TokenCounts.load(base / name),
        lambda: merge_rows(base, tmp_path / "out", {}),
    ):
        with pytest.raises(sv.CheckpointError):
            read()

    assert not (tmp_path / "harmed").exists()
    pickle.loads((base / name).read_bytes())  # noqa: S301  it would have done harm
    assert (tmp_path / "harmed").exists()


def test_pickles_beside_the_weights_stay_behind(tmp_path: Path) -> None:
    """A merged model carries no file that a reader may run."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(save({"a": np.zeros((2, 2))}))
    for name in ("pytorch_model.bin", "optimizer.pt"):
        (base / name).write_bytes(pickle.dumps(Harm(tmp_path / "harmed")))

    merge_rows(base, tmp_path / "out", {})

    assert sorted(os.listdir(tmp_path / "out")) == ["model.safetensors"]  # noqa: PTH208
    assert not (tmp_path / "harmed").exists()


def test_code_beside_a_model_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    """The library never says so in the user's place."""
    base = tmp_path / "base"
    tiny_model("bert").save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    config["model_type"] = "never-heard-of"
    config["auto_map"] = {
        "AutoConfig": "harm.HarmConfig",
        "AutoModelForSequenceClassification": "harm.HarmModel",
    }
    (base / "config.json").write_text(json.dumps(config))
    (base / "harm.py").write_text(f"import os; os.mkdir({str(tmp_path / 'harmed')!r})\n")

    with pytest.raises((ValueError, OSError)):
        sv.from_pretrained(AutoModelForSequenceClassification, base, VOCABULARY)

    assert not (tmp_path / "harmed").exists()


def test_a_compact_checkpoint_names_no_base_to_be_read(tmp_path: Path) -> None:
    """What it says of its base is for people: only the base that the user names is read."""
    tiny_model("bert").save_pretrained(tmp_path / "base")
    model = sv.from_pretrained(AutoModelForSequenceClassification, tmp_path / "base", VOCABULARY)
    sv.save_compact(model, tmp_path / "compact")
    path = tmp_path / "compact" / "subvocab.json"
    description = json.loads(path.read_text()) | {"base": "/etc"}
    path.write_text(json.dumps(description))

    out = sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "out")

    assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["\\ud800", "a\\uDFFFb"])
def test_half_a_character_is_refused(name: str, tmp_path: Path) -> None:
    """It could be neither written into a new header nor shown."""
    header = f'{{"{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}}}'.encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(sv.CheckpointError, match="surrogates not allowed"):
        read_checkpoint(file)
