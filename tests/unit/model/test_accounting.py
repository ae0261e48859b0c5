"""Tests of what is counted and measured."""

from __future__ import annotations

import mmap
import time

import pytest
from torch import nn

import subvocab as sv
from subvocab.analysis.savings import Training, estimate_savings
from subvocab.errors import UnsupportedModelError
from subvocab.model.shape import model_shape
from tests.models import DIM, FULL_VOCAB_SIZE, tiny_language_model, tiny_model
from tests.reference import drawn_vocabulary


@pytest.mark.parametrize("family", ["bert", "t5", "bart", "albert"])
def test_count_parameters_counts_as_the_whole_model_does(family: str) -> None:
    """A matrix that three modules share counts once."""
    model = tiny_model(family)
    whole = sum(p.numel() for p in model.parameters())
    dim = model.get_input_embeddings().embedding_dim
    sv.shrink(model, drawn_vocabulary())

    counts = sv.count_parameters(model)

    rows = len(sv.vocabulary_of(model))
    assert counts.full_vocab_size == FULL_VOCAB_SIZE
    assert counts.partial_vocab_size == rows
    assert counts.embedding_parameters == FULL_VOCAB_SIZE * dim
    assert counts.partial_embedding_parameters == rows * dim
    assert counts.model_parameters == whole
    assert counts.partial_model_parameters == sum(p.numel() for p in model.parameters())


def test_an_output_head_of_its_own_is_no_embedding() -> None:
    """Its rows go with the model's parameters; a plan counts alike."""
    model = tiny_language_model("llama")
    assert not model.config.tie_word_embeddings
    whole = sum(p.numel() for p in model.parameters())
    shape = model_shape(model.config, task="causal-lm")
    sv.shrink(model, drawn_vocabulary(), rest_shift=False)

    counts = sv.count_parameters(model)

    rows = len(sv.vocabulary_of(model))
    assert counts == estimate_savings(shape, rows, Training(head="exact")).parameters
    assert counts.embedding_parameters == FULL_VOCAB_SIZE * model.config.hidden_size
    assert counts.model_parameters == whole
    assert counts.partial_model_parameters == sum(p.numel() for p in model.parameters())


def test_parameter_counts_give_reductions() -> None:
    """Fractions, as in the paper's Table 5."""
    counts = sv.ParameterCounts(
        full_vocab_size=100,
        partial_vocab_size=25,
        embedding_parameters=100 * DIM,
        partial_embedding_parameters=25 * DIM,
        model_parameters=200 * DIM,
        partial_model_parameters=125 * DIM,
    )

    assert counts.embedding_reduction == 0.75
    assert counts.model_reduction == 0.375


def test_count_parameters_refuses_a_whole_model() -> None:
    """There is nothing to compare."""
    with pytest.raises(UnsupportedModelError, match=r"^`Linear` has no partial embedding\.$"):
        sv.count_parameters(nn.Linear(2, 2))


def test_peak_memory_sees_memory_that_comes_and_goes() -> None:
    """The most that was held, not what is left."""
    # Fresh from the system: the heap of a long run may have as much to give away.
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with sv.PeakMemory() as memory, mmap.mmap(-1, 64 << 20, flags=private) as block:
        block[:: mmap.PAGESIZE] = bytes((64 << 20) // mmap.PAGESIZE)
        time.sleep(0.2)  # on a busy machine the sampler may wait long for its turn

    assert 60 << 20 < memory.peak_bytes < 130 << 20


def test_peak_memory_of_nothing_is_little() -> None:
    """It can fail: the test before would pass if it always said 64 MiB."""
    with sv.PeakMemory() as memory:
        pass

    assert memory.peak_bytes < 20 << 20
