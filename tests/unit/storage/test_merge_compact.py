"""Tests of making a compact checkpoint whole: learned rows in the base's matrix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from subvocab.errors import CheckpointError, VocabularyMismatchError
from subvocab.storage import FullMatrix, expand_checkpoint, read_checkpoint
from subvocab.vocabulary import PartialVocabulary
from tests.unit.storage.checkpoints import (
    BODY,
    FULL,
    INDEX,
    LEARNED,
    SIZE,
    TOKEN_IDS,
    merged,
    names,
    refused,
    shard,
)

VOCABULARY = PartialVocabulary(TOKEN_IDS, SIZE)


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    """Write a compact checkpoint with the learned rows and a trained body."""
    folder = tmp_path / "compact"
    folder.mkdir()
    tensors = {"e": LEARNED, "body": BODY + 1}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "k": "v"})
    return folder


@pytest.fixture
def matrix(base: Path) -> FullMatrix:
    """Open the base's matrix."""
    return FullMatrix.open(base, "e")


# expand_checkpoint


def test_expand_checkpoint_gives_a_whole_model(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Learned rows in the base's matrix, and the trained body beside it."""
    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})

    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(tensors["e"], merged())
    assert np.array_equal(tensors["body"], BODY + 1)


def test_expand_checkpoint_keeps_metadata(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Loaders look for the framework's name there."""
    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})

    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "k": "v"}


def test_expand_checkpoint_without_tables_is_a_copy(compact: Path, tmp_path: Path) -> None:
    """No table, no new byte."""
    expand_checkpoint(compact, tmp_path / "out", {})

    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        compact / "model.safetensors"
    ).read_bytes()


def test_expand_checkpoint_corrects_the_sums_of_the_index(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Loaders plan memory by ``total_size``."""
    shard(compact, {"e": LEARNED}, {"body": BODY})

    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})

    index = json.loads((tmp_path / "out" / INDEX).read_text())
    size = FULL.nbytes + BODY.nbytes
    assert index["metadata"] == {"total_size": size, "total_parameters": size // 4, "more": True}
    assert index["weight_map"] == {"e": "m1.safetensors", "body": "m2.safetensors"}


@pytest.mark.parametrize("metadata", [None, {}, {"total_size": "many"}, {"total_size": 1.5}])
def test_expand_checkpoint_leaves_sums_alone_that_are_none(
    compact: Path, matrix: FullMatrix, tmp_path: Path, metadata: object
) -> None:
    """An index need not have them."""
    shard(compact, {"e": LEARNED}, {"body": BODY})
    index = json.loads((compact / INDEX).read_text()) | {"metadata": metadata}
    (compact / INDEX).write_text(json.dumps(index))

    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})

    found = json.loads((tmp_path / "out" / INDEX).read_text())
    assert found["metadata"] == metadata


def test_expand_checkpoint_takes_missing_files_from_the_base(
    compact: Path, base: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """The compact folder's own files win, and no weights of the base come."""
    (compact / "config.json").write_text("trained")
    (base / "odd-00001.safetensors").write_text("weights")
    (base / "vocab.json").write_text("tokens")

    expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)}, extra_files_from=base)

    out = tmp_path / "out"
    assert names(out) == {
        *("config.json", "vocab.json", "model.safetensors", "1_Pooling/config.json"),
    }
    assert (out / "config.json").read_text() == "trained"


def test_expand_checkpoint_leaves_excluded_files_behind(
    compact: Path, base: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """What describes the compact form has no place in the whole one."""
    (compact / "subvocab.json").write_text("compact")

    expand_checkpoint(
        compact,
        tmp_path / "out",
        {"e": (matrix, VOCABULARY)},
        extra_files_from=base,
        exclude={"subvocab.json", "1_Pooling/config.json"},
    )

    assert names(tmp_path / "out") == {"model.safetensors", "config.json"}


def test_expand_checkpoint_of_a_file_writes_the_weights_alone(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """A file stands for itself, as in ``merge_rows``."""
    (compact / "config.json").write_text("{}")

    expand_checkpoint(compact / "model.safetensors", tmp_path / "out", {"e": (matrix, VOCABULARY)})

    assert names(tmp_path / "out") == {"model.safetensors"}


def test_expand_checkpoint_refuses_a_target_inside_the_base(
    compact: Path, base: Path, matrix: FullMatrix
) -> None:
    """The base is copied from too."""
    with pytest.raises(CheckpointError, match=r"lies inside .*base, which is copied"):
        expand_checkpoint(compact, base / "out", {"e": (matrix, VOCABULARY)}, extra_files_from=base)


def test_expand_checkpoint_refuses_another_vocabulary(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Rows would go to other tokens."""
    other = PartialVocabulary(np.array([1, 2]), SIZE)

    with refused(
        VocabularyMismatchError,
        f"`e` in {compact}/model.safetensors has shape (3, 4) of F32, expected (2, 4) of F32: the "
        f"rows of V′, in the dtype of `e` in {matrix.tensor.path}. Use the vocabulary and base "
        "checkpoint of the training run, or save one of the two in the other's dtype.",
    ):
        expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, other)})


def test_expand_checkpoint_refuses_another_dtype(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Bytes of float16 are no float32."""
    save_file({"e": LEARNED.astype(np.float16)}, compact / "model.safetensors")

    with pytest.raises(VocabularyMismatchError, match=r"\(3, 4\) of F16, expected \(3, 4\) of F32"):
        expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY)})


def test_expand_checkpoint_refuses_a_matrix_of_another_height(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """The base must be the one the vocabulary was taken for."""
    with refused(
        VocabularyMismatchError,
        f"`e` in {matrix.tensor.path} has 10 rows, but the partial vocabulary was taken from 11. "
        "Use the base checkpoint that training began from.",
    ):
        expand_checkpoint(compact, tmp_path / "out", {"e": (matrix, VOCABULARY.resized(11))})


def test_expand_checkpoint_refuses_a_table_that_is_absent(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """The names that exist are listed."""
    with pytest.raises(CheckpointError, match=r"`wte` is not among the 2 tensors of .*: body, e"):
        expand_checkpoint(compact, tmp_path / "out", {"wte": (matrix, VOCABULARY)})


def test_expand_checkpoint_leaves_dropped_tensors_behind(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Token ids that stand beside a compact table are no part of a whole model."""
    expand_checkpoint(
        compact, tmp_path / "out", {"e": (matrix, VOCABULARY)}, dropped_tensors={"body"}
    )

    whole = load_file(tmp_path / "out" / "model.safetensors")
    assert list(whole) == ["e"]
    assert np.array_equal(whole["e"], merged())


def test_expand_checkpoint_drops_tensors_from_the_index(
    compact: Path, matrix: FullMatrix, tmp_path: Path
) -> None:
    """Neither the map nor the sums mention them any more."""
    shard(compact, {"e": LEARNED}, {"body": BODY, "more": BODY})

    expand_checkpoint(
        compact, tmp_path / "out", {"e": (matrix, VOCABULARY)}, dropped_tensors={"body"}
    )

    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert set(index["weight_map"]) == {"e", "more"}
    assert index["metadata"]["total_size"] == FULL.nbytes + BODY.nbytes
    assert index["metadata"]["total_parameters"] == FULL.size + BODY.size
    assert set(read_checkpoint(tmp_path / "out").tensors) == {"e", "more"}
