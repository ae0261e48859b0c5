"""Plans compared with numbers worked out by hand; real models are in `test_shape.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from subvocab.analysis.savings import (
    Memory,
    ModelShape,
    ParameterShape,
    Role,
    Training,
    estimate_savings,
)
from subvocab.errors import DataError, UnsupportedModelError, VocabularyMismatchError

TABLE = ParameterShape((1000, 8), Role.TABLE, looked_up=True)
POSITIONS = ParameterShape((16, 8), looked_up=True)
CLASSIFIER = ModelShape(
    "m", 1000, (TABLE, POSITIONS, ParameterShape((128, 64)), ParameterShape((8,)))
)
"""8,000 + 128 + 8,192 + 8 parameters; with 100 rows 9,128."""

UNTIED = ModelShape(
    "lm",
    1000,
    (TABLE, ParameterShape((1000, 8), Role.HEAD), ParameterShape((1000,), Role.BIAS)),
)
TIED = ModelShape(
    "tied",
    1000,
    (ParameterShape((1000, 8), Role.TIED, looked_up=True, reused=True), ParameterShape((8, 8))),
)
LOOKUP = 4 * 1000
LANGUAGE: dict[str, Any] = {"batch_size": 4, "length": 16}


def test_estimate_savings_counts_parameters() -> None:
    """N_emb, N and what is left of them."""
    counts = estimate_savings(CLASSIFIER, 100).parameters

    assert (counts.full_vocab_size, counts.partial_vocab_size) == (1000, 100)
    assert (counts.embedding_parameters, counts.partial_embedding_parameters) == (8000, 800)
    assert (counts.model_parameters, counts.partial_model_parameters) == (16328, 9128)
    assert counts.embedding_reduction == 0.9
    assert counts.model_reduction == 1 - 9128 / 16328


@pytest.mark.parametrize(
    ("precision", "optimizer", "full", "partial"),
    [
        ("fp32", "sgd", 0, 0),
        ("fp32", "momentum", 4 * 16328, 4 * 9128),
        ("fp32", "adamw", 8 * 16328, 8 * 9128),
        ("fp32", "adamw-8bit", 81728, 24128),
        ("fp32", "adafactor", 4928, 1328),
        ("bf16", "sgd", 0, 0),
        ("bf16", "momentum", 2 * 16328, 2 * 9128),
        ("bf16", "adamw", 4 * 16328, 4 * 9128),
        ("bf16", "adamw-8bit", 81728, 24128),
        ("bf16", "adafactor", 4928, 1328),
        ("mixed", "momentum", 4 * 16328, 4 * 9128),
        ("mixed", "adamw", 8 * 16328, 8 * 9128),
    ],
)
def test_estimate_savings_knows_optimizers(
    precision: str, optimizer: str, full: int, partial: int
) -> None:
    """Eight bits: 2 × (8,192 + 4 × 32) for the linear weight, fp32 for embeddings and biases."""
    training = Training(precision=precision, optimizer=optimizer)

    saved = estimate_savings(CLASSIFIER, 100, training)

    assert (saved.full.optimizer, saved.partial.optimizer) == (full, partial)


@pytest.mark.parametrize(("precision", "each"), [("fp32", 4), ("bf16", 2)])
def test_estimate_savings_adds_up_a_classifier(precision: str, each: int) -> None:
    """Weights, gradients, two moments, and the look-up that PEMA adds."""
    saved = estimate_savings(CLASSIFIER, 100, Training(precision=precision))

    assert saved.full == Memory(each * 16328, each * 16328, 2 * each * 16328, 0)
    assert saved.partial == Memory(each * 9128 + LOOKUP, each * 9128, 2 * each * 9128, 0)
    assert saved.full.total == 4 * each * 16328
    assert saved.memory_reduction == 1 - saved.partial.total / saved.full.total


def test_estimate_savings_counts_the_copies_of_autocast() -> None:
    """Of the linear weight alone; they are gone when the last gradient is there."""
    full = estimate_savings(CLASSIFIER, 100, Training(precision="mixed")).full

    assert full.weights == 4 * 16328 + 2 * 8192
    assert full.apart == 2 * 8192
    assert full.total == 16 * 16328


def test_estimate_savings_holds_copies_and_gradients_where_these_accumulate() -> None:
    """The gradients of one part are there during the next, and one more is on its way."""
    full = estimate_savings(CLASSIFIER, 100, Training(precision="mixed", accumulation=2)).full

    assert full.temporary == 4 * 8192
    assert full.total == 16 * 16328 + 4 * 8192


@pytest.mark.parametrize(("precision", "numbers"), [("fp32", 128 + 2 * 8192), ("bf16", 32896)])
def test_estimate_savings_counts_the_update_of_adafactor(precision: str, numbers: int) -> None:
    """The update of the positions is still there when that of the linear weight is made twice."""
    training = Training(precision=precision, optimizer="adafactor")

    full = estimate_savings(CLASSIFIER, 100, training).full

    assert full.temporary == 4 * numbers
    assert full.total == full.weights + full.gradients + full.optimizer + 4 * numbers


def test_frozen_weights_get_no_gradient() -> None:
    """Nor moments; they are still held."""
    shape = ModelShape("m", 1000, (TABLE, ParameterShape((8, 8), trained=False)))

    full = estimate_savings(shape, 100).full

    assert full == Memory(4 * 8064, 4 * 8000, 8 * 8000, 0)


@pytest.mark.parametrize(
    ("head", "weights", "trained", "columns"),
    [
        ("exact", 800 + 8000 + 1000, 800 + 800 + 100, 101),
        ("restricted", 800 + 800 + 100, 800 + 800 + 100, 100),
        ("whole", 800 + 8000 + 1000, 800 + 8000 + 1000, 1000),
    ],
)
def test_estimate_savings_knows_heads(head: str, weights: int, trained: int, columns: int) -> None:
    """The exact head keeps frozen rows, without gradient or moments."""
    partial = estimate_savings(UNTIED, 100, Training(head=head, **LANGUAGE)).partial

    assert partial.weights == 4 * weights + LOOKUP
    assert partial.gradients == 4 * trained
    assert partial.optimizer == 8 * trained
    assert partial.logits == 12 * 64 * columns


def test_estimate_savings_counts_a_tied_table_once() -> None:
    """Its frozen rows stay as weights; its gradient comes in two."""
    saved = estimate_savings(TIED, 100, Training(head="exact", **LANGUAGE))

    assert saved.full.weights == 4 * 8064
    assert saved.full.temporary == 4 * 8000
    assert saved.partial.weights == 4 * 8064 + LOOKUP
    assert saved.partial.gradients == 4 * 864
    assert saved.parameters.partial_embedding_parameters == 800
    assert saved.parameters.partial_model_parameters == 864


def test_logits_go_before_the_gradients_come() -> None:
    """With one part a step the worst moment is the loss, when there are no gradients."""
    full = estimate_savings(UNTIED, 100, Training(head="exact", **LANGUAGE)).full

    assert full.logits == 12 * 64 * 1000
    assert full.total == 12 * 17000 + full.logits


def test_accumulation_halves_the_logits_and_keeps_the_gradients() -> None:
    """With two parts the gradients of the first meet the logits of the second."""
    training = Training(head="exact", accumulation=2, **LANGUAGE)

    full = estimate_savings(UNTIED, 100, training).full

    assert full.logits == 12 * 32 * 1000
    assert full.total == 16 * 17000 + full.logits


def test_the_first_gradient_of_a_head_meets_that_of_the_logits() -> None:
    """Where few tokens make the head's gradient larger than what the loss holds."""
    narrow, wide = replace(TABLE, shape=(1000, 1)), ParameterShape((1000, 90), Role.HEAD)
    shape = ModelShape("lm", 1000, (narrow, wide))
    training = Training(head="exact", batch_size=1, length=40)

    full = estimate_savings(shape, 100, training).full

    # 4 × 40 × 1,000 of the logits and 4 × 90,000 of the head, more than 4 × 91,000 at the end.
    assert full.total == 12 * 91000 + 160_000 + 360_000


def test_a_batch_that_does_not_divide_is_counted_by_its_larger_part() -> None:
    """Five sequences in two parts are three and two."""
    assert Training(batch_size=5, length=10, accumulation=2).tokens == 30


def test_fits_is_exact_at_the_edge() -> None:
    """One byte less is too little."""
    memory = Memory(weights=4, gradients=4, optimizer=8, logits=3, temporary=2, apart=1)

    assert memory.total == 20
    assert memory.fits(20)
    assert not memory.fits(19)


def test_all_rows_kept_costs_the_look_up() -> None:
    """PEMA with V′ = V saves nothing, and says so."""
    saved = estimate_savings(CLASSIFIER, 1000)

    assert saved.partial.total == saved.full.total + LOOKUP
    assert saved.memory_reduction < 0


def test_figures_are_those_of_the_parts() -> None:
    """With what is worked out from them."""
    saved = estimate_savings(CLASSIFIER, 100)

    found = saved.figures()

    sizes = (found["full_vocab_size"], found["partial_vocab_size"])
    assert (found["model"], sizes) == ("m", (1000, 100))
    assert found["embedding_reduction"] == 0.9
    assert found["model_reduction"] == saved.parameters.model_reduction
    assert found["training"]["precision"] == "fp32"
    assert found["full_bytes"]["total"] == saved.full.total
    assert found["partial_bytes"]["total"] == saved.partial.total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"precision": "fp16"},
            "`precision` is `fp16`, expected one of fp32, bf16, mixed.",
        ),
        (
            {"optimizer": "lion"},
            "`optimizer` is `lion`, expected one of sgd, momentum, adamw, adamw-8bit, adafactor.",
        ),
        ({"head": "half"}, "`head` is `half`, expected one of none, exact, restricted, whole."),
        ({"length": 0}, "`length` is 0, expected one or more."),
        ({"accumulation": -1}, "`accumulation` is -1, expected one or more."),
        (
            {"batch_size": 2, "accumulation": 3},
            (
                "A batch of 2 sequences cannot be divided into 3 parts. `batch_size` counts all "
                "sequences of a step: give as many as parts, or more."
            ),
        ),
    ],
)
def test_training_refuses_what_it_does_not_know(options: dict[str, Any], message: str) -> None:
    """With what it knows."""
    with pytest.raises(DataError) as caught:
        Training(**options)

    assert str(caught.value) == message


@pytest.mark.parametrize("rows", [0, -5, 1001])
def test_estimate_savings_refuses_a_vocabulary_that_does_not_fit(rows: int) -> None:
    """V′ is a part of V."""
    with pytest.raises(VocabularyMismatchError) as caught:
        estimate_savings(CLASSIFIER, rows)

    assert str(caught.value) == (
        f"A partial vocabulary of {rows:,} tokens was asked for, but `m` has 1,000. Expected from "
        "one to as many: count the data with the model's own tokenizer."
    )


@pytest.mark.parametrize(
    ("shape", "head", "kind", "message"),
    [
        (
            UNTIED,
            "none",
            DataError,
            (
                "`lm` has an output head over the vocabulary, but `head` is `none`. Expected "
                "`exact`, `restricted` or, if it is not tied, `whole`."
            ),
        ),
        (
            CLASSIFIER,
            "exact",
            DataError,
            "`m` has no output head over the vocabulary, but `head` is `exact`. Expected `none`.",
        ),
        (
            TIED,
            "whole",
            UnsupportedModelError,
            (
                "The output head of `tied` is tied to its embedding matrix, so it cannot stay "
                "whole while the matrix shrinks. Choose `exact` or `restricted`."
            ),
        ),
    ],
)
def test_estimate_savings_refuses_heads_that_do_not_suit(
    shape: ModelShape, head: str, kind: type[Exception], message: str
) -> None:
    """A plan for what cannot be trained would mislead."""
    with pytest.raises(kind) as caught:
        estimate_savings(shape, 100, Training(head=head))

    assert str(caught.value) == message
