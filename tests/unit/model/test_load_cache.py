"""Tests of loading by name: the Hub's cache is read, and never written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from tests.models import tiny_model
from tests.reference import assert_equal_states
from tests.unit.model.loading import run_offline


def make_cache(home: Path, save: Callable[[Path], None]) -> Path:
    """Lay a model out as the Hub's cache does: blobs, and links to them."""
    repository = home / "hub/models--some--model"
    snapshot = repository / "snapshots" / ("a" * 40)
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs/main").write_text("a" * 40)
    save(home / "made")
    for number, file in enumerate(sorted((home / "made").iterdir())):
        blob = repository / "blobs" / f"{number:064x}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return repository


LOADING_BY_NAME = """
import numpy as np, torch, transformers as hf, subvocab as sv
vocabulary = sv.PartialVocabulary(np.arange(0, 300, 9), 300)
cls = hf.AutoModelForSequenceClassification
model = sv.from_pretrained(cls, "some/model", vocabulary)
whole = cls.from_pretrained("some/model")
assert all(torch.equal(model.state_dict()[k], v) for k, v in whole.state_dict().items())
assert model.config.name_or_path == "some/model"
"""


def test_from_pretrained_takes_a_name_from_the_cache(tmp_path: Path) -> None:
    """Files there are links; nothing is written to them, saving and merging included."""
    repository = make_cache(tmp_path, lambda folder: tiny_model("bert").save_pretrained(folder))
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (repository / "blobs").iterdir()}
    links = sorted(p for p in repository.rglob("*") if p.is_symlink())

    out = tmp_path / "compact"
    run_offline(
        tmp_path,
        LOADING_BY_NAME
        + f"sv.save_compact(model, {str(out)!r})\n"
        + f"sv.merge({str(out)!r}, base='some/model', out={str(tmp_path / 'whole')!r})\n",
    )

    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before
    assert sorted(p for p in repository.rglob("*") if p.is_symlink()) == links
    assert_equal_states(
        load_file(tmp_path / "whole/model.safetensors"),
        load_file(repository / f"snapshots/{'a' * 40}/model.safetensors"),
    )


def test_from_pretrained_says_that_a_name_is_not_in_the_cache(tmp_path: Path) -> None:
    """Without a network, a name is either here or nowhere."""
    output = run_offline(
        tmp_path,
        "import numpy as np, transformers as hf, subvocab as sv\n"
        "try:\n"
        "    sv.from_pretrained(hf.AutoModel, 'no/model', sv.PartialVocabulary(np.arange(3), 9))\n"
        "except sv.CheckpointError as error:\n"
        "    print(error)\n",
    )

    assert output.startswith("`no/model` is no folder here, and could not be had from the Hub: ")
