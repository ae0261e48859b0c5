"""Answers of a model with E and with E′, compared to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoConfig, PreTrainedModel

import subvocab as sv
from paper import _squad, _windows
from paper._inference import Inference, Options, infer, load_partial, load_whole
from paper._jobs import Model

SIZES = {
    "embedding_reduction_percent": "embedding_parameters",
    "model_reduction_percent": "model_parameters",
    "weights_saved_percent": "weight_bytes",
    "peak_memory_saved_percent": "peak_bytes",
}
"""What is compared, by quantity."""
QUANTITIES = ("f1", "exact_match", *SIZES)


@dataclass(frozen=True)
class Compared:
    """A model's answers with E and with E′.

    Attributes:
        whole: With E.
        pema: With E′.
        scores: F1 and exact match with E′, in per cent, by quantity.
        whole_scores: The same with E.
        equal: What is equal to the last bit, or is not.
        windows: How many there were.
        full_vocab_size: |V|.
        partial_vocab_size: |V′|, special tokens included.
    """

    whole: Inference
    pema: Inference
    scores: dict[str, float]
    whole_scores: dict[str, float]
    equal: dict[str, bool]
    windows: int
    full_vocab_size: int
    partial_vocab_size: int

    @property
    def words(self) -> str:
        """What was compared, and how it came out."""
        different = [what for what, equal in self.equal.items() if not equal]
        verdict = (
            f"NOT EQUAL: {', '.join(different)}"
            if different
            else f"{', '.join(self.equal)} equal, bit for bit"
        )
        scores = ", ".join(f"{q.replace('_', ' ')} {v:.4f}" for q, v in self.whole_scores.items())
        return (
            f"{scores} with E; {verdict}; {self.windows:,} windows, {self.partial_vocab_size:,} of "
            f"{self.full_vocab_size:,} rows kept; weights {self.pema.weight_bytes / 1e6:,.1f} of "
            f"{self.whole.weight_bytes / 1e6:,.1f} MB, peak {self.pema.peak_bytes / 1e6:,.1f} of "
            f"{self.whole.peak_bytes / 1e6:,.1f} MB"
        )

    def figure(self, quantity: str) -> float:
        """Give what a cell holds.

        Args:
            quantity: One of ``QUANTITIES``.

        Returns:
            Per cent.
        """
        if quantity in self.scores:
            return self.scores[quantity]
        ours, theirs = (getattr(run, SIZES[quantity]) for run in (self.pema, self.whole))
        return 100 * (1 - float(ours) / float(theirs))


def compare(model: Model, questions: Sequence[_squad.Question], options: Options) -> Compared:
    """Answer all questions with E and with E′.

    Args:
        model: The model.
        questions: The questions.
        options: How to run it.

    Returns:
        Both, compared.

    Raises:
        CheckpointError: If the model has no trained head for question answering.
        DataError: If a window has no room for a paragraph.
    """
    load_whole(model)  # refuses one that was not trained to answer questions
    windows = _windows.cut(
        questions,
        model.tokenizer,
        max_length=longest_window(model, options),
        stride=options.doc_stride,
    )
    ids = [window.input_ids for window in windows]
    counts = sv.scan(
        ids, tokenizer=model.tokenizer, full_vocab_size=model.full_vocab_size, progress=False
    )
    vocabulary = counts.partial_vocabulary()

    def run(load: Callable[[], PreTrainedModel]) -> Inference:
        return infer(
            load, windows, model.tokenizer, batch_size=options.batch_size, device=options.device
        )

    # What the first run leaves behind can only make the peak of the other look smaller.
    pema = run(lambda: load_partial(model, vocabulary))
    whole = run(lambda: load_whole(model))
    answers, whole_answers = (
        _windows.best_answers(questions, windows, [(s.numpy(), e.numpy()) for s, e in run.logits])
        for run in (pema, whole)
    )
    scores, whole_scores = (scored(found, questions) for found in (answers, whole_answers))
    return Compared(
        whole=whole,
        pema=pema,
        scores=scores,
        whole_scores=whole_scores,
        equal={
            "all logits": all(
                torch.equal(ours, theirs)
                for our_pair, their_pair in zip(pema.logits, whole.logits, strict=True)
                for ours, theirs in zip(our_pair, their_pair, strict=True)
            ),
            "all answers": answers == whole_answers,
            "F1 and exact match": scores == whole_scores,
        },
        windows=len(windows),
        full_vocab_size=model.full_vocab_size,
        partial_vocab_size=len(vocabulary),
    )


def longest_window(model: Model, options: Options) -> int:
    """Tell how many tokens a window may have.

    Args:
        model: The model; some have positions that no token takes, as their tokenizers know.
        options: What was asked for.

    Returns:
        No more than the model has positions.
    """
    config = AutoConfig.from_pretrained(model.folder)
    positions = getattr(config, "max_position_embeddings", None) or options.max_length
    return int(min(options.max_length, positions, model.tokenizer.model_max_length))


def scored(answers: Sequence[str], questions: Sequence[_squad.Question]) -> dict[str, float]:
    """Score answers by SQuAD's two measures.

    Args:
        answers: One a question.
        questions: The questions.

    Returns:
        Per cent, by quantity.
    """
    return {
        "f1": _squad.score(_squad.f1, answers, questions),
        "exact_match": _squad.score(_squad.exact_match, answers, questions),
    }
