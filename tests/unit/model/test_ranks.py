"""Tests of what is refused before several processes go wrong; real ones run in `integration`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from transformers import AutoModelForSequenceClassification

import subvocab as sv
from subvocab.errors import UnsupportedModelError, VocabularyMismatchError
from subvocab.model import ranks
from subvocab.model.ranks import check_ranks, gathered, spread_like
from tests.models import tiny_model
from tests.reference import drawn_vocabulary

VOCABULARY = drawn_vocabulary()


@pytest.fixture
def _one_process(tmp_path: Path) -> Any:
    """Start a process group of one."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_check_ranks_is_silent_in_a_single_process() -> None:
    """There is nobody to compare with."""
    check_ranks("a")
    check_ranks("b")


@pytest.mark.usefixtures("_one_process")
def test_check_ranks_refuses_what_another_rank_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first to come says which; a known one costs nothing more."""
    store = distributed.distributed_c10d._get_default_store()
    monkeypatch.setattr(ranks, "_numbers", iter([7, 8]))
    store.set("subvocab/vocabulary/8", "3 bbbbbbbbbbbbbb")
    check_ranks("aaaaaaaaaaaaaa")
    check_ranks("aaaaaaaaaaaaaa")
    message = (
        "Rank 0 has the partial vocabulary cccccccccccc, but rank 3 has bbbbbbbbbbbb: each was "
        "made from other data, and rows of different tokens would be averaged. Scan all data once, "
        "keep the result with `vocabulary.save(path)`, and let every rank load it with "
        "`PartialVocabulary.load(path)`."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        check_ranks("cccccccccccccc")


@pytest.mark.usefixtures("_one_process")
def test_shrink_compares_before_it_changes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the error the model is whole."""
    store = distributed.distributed_c10d._get_default_store()
    monkeypatch.setattr(ranks, "_numbers", iter([9]))
    store.set("subvocab/vocabulary/9", "1 another")
    model = tiny_model("bert")

    with pytest.raises(VocabularyMismatchError, match="but rank 1 has another"):
        sv.shrink(model, VOCABULARY)

    assert model.get_input_embeddings().weight.shape[0] == VOCABULARY.full_vocab_size


def test_shrink_refuses_what_zero_3_partitioned() -> None:
    """DeepSpeed marks such parameters."""
    model = tiny_model("bert")
    model.classifier.weight.ds_id = 5
    message = (
        "`classifier.weight` of `BertForSequenceClassification` is partitioned by DeepSpeed "
        "ZeRO-3, so its rows are not here to be chosen. Use ZeRO-1 or ZeRO-2 "
        '(`"stage": 2`), DDP or FSDP2: without the unused rows, the model and its optimizer need '
        "less memory."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.shrink(model, VOCABULARY)


@pytest.mark.parametrize("option", ["tp_plan", "tp_size", "device_mesh", "distributed_config"])
def test_from_pretrained_refuses_to_spread(option: str, tmp_path: Path) -> None:
    """Before anything is read."""
    options: dict[str, Any] = {option: "auto"}
    message = (
        f"`{option}` spreads a model over several processes as it is loaded. Leave it out, and "
        "call `fully_shard` on the small model; tensor parallelism is not supported."
    )

    with pytest.raises(UnsupportedModelError, match=f"^{re.escape(message)}$"):
        sv.from_pretrained(AutoModelForSequenceClassification, tmp_path, VOCABULARY, **options)


@pytest.mark.usefixtures("_one_process")
def test_from_pretrained_refuses_to_leave_weights_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accelerate's launcher asks transformers to, by its environment."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")

    with pytest.raises(UnsupportedModelError, match=r"^`cpu_ram_efficient_loading` of accelerate"):
        sv.from_pretrained(AutoModelForSequenceClassification, tmp_path, VOCABULARY)


def test_what_lies_in_one_process_stays_as_it_is() -> None:
    """No copy, no talk."""
    tensor = torch.zeros(2)

    assert gathered(tensor) is tensor
    assert gathered(None) is None
    assert spread_like(tensor, torch.ones(2)) is tensor
