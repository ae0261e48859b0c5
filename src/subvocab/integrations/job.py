"""What a job of fine-tuning is, what a task adds to it, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer

from subvocab.analysis.savings import ParameterCounts
from subvocab.vocabulary import PartialVocabulary, TokenCounts

TRAIN_SPLITS = ("train",)
EVAL_SPLITS = ("validation", "dev", "test", "train")


@dataclass(frozen=True)
class FineTuning:
    """What to fine-tune, on what, and how.

    Attributes:
        model: A folder, or a name on the Hub.
        train: Training data (see `subvocab.data.loading.load_split`).
        tokenizer: The model's own.
        evaluation: Evaluation data; None stands for the training data.
        out: The folder for the whole model; it must not exist, or be empty.
        task: ``classification``, or what a language model learns: ``causal-lm``,
            ``masked-lm`` or ``seq2seq``.
        label_column: The column of classes.
        text_columns: The column of text, or two that make a pair of texts to classify.
        prompt_column: The column of prompts (see `subvocab.data.dialogues.find_dialogues`).
        response_column: The column of responses.
        head: How a language model's loss treats tokens outside V′: ``exact``,
            ``restricted`` or ``whole``; see `subvocab.from_pretrained`.
        rest_shift: Whether one trained vector stands for how those tokens move.
        mask_probability: The share of tokens that a masked language model foretells.
        epochs: Passes over the training data.
        max_steps: Steps to end after, however many epochs that is; -1 for all.
        optimizer: As `transformers.TrainingArguments` names it in ``optim``.
        weight_decay: Its own.
        learning_rate: At its peak; it falls linearly to zero.
        batch_size: Rows a step.
        max_length: Tokens to truncate each row to, or to cut running text into; no more
            than the model has positions.
        seed: Of a head's random weights, the order of rows, masks and dropout.
        full: Whether to train the ordinary way, with the whole matrix.
        use_cpu: Whether to leave an accelerator alone, if there is one.
        progress: Whether to show progress bars.
    """

    model: str
    train: str
    tokenizer: PreTrainedTokenizerBase
    evaluation: str | None = None
    out: Path = Path()
    task: str = "classification"
    label_column: str = "label"
    text_columns: Sequence[str] = ()
    prompt_column: str | None = None
    response_column: str | None = None
    head: str = "exact"
    rest_shift: bool = True
    mask_probability: float = 0.15
    epochs: float = 3.0
    max_steps: int = -1
    optimizer: str = "adamw_torch_fused"
    weight_decay: float = 0.0
    learning_rate: float = 2e-5
    batch_size: int = 32
    max_length: int = 128
    seed: int = 42
    full: bool = False
    use_cpu: bool = False
    progress: bool = True


@dataclass
class FineTuned:
    """What came of it.

    Attributes:
        counts: Tokens of the training data.
        parameters: Before and after; the same where the whole matrix was trained.
        peak_bytes: The most memory that loading, training and evaluation took (see
            `subvocab.model.peak_memory.PeakMemory`).
        seconds: Time by phase.
        losses: Training loss of every step.
        metrics: Scores on the evaluation data.
        out: The folder with the whole model.
    """

    counts: TokenCounts
    parameters: ParameterCounts
    out: Path
    peak_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What a task adds: its data, its kind of model, and how that is judged.

    Attributes:
        train_rows: A ``datasets.Dataset`` of token ids.
        auto_class: The class of transformers that loads the model.
        collator: Makes batches to train on, given V′; or None where the whole is trained.
        score: Evaluates the model of a Trainer.
        options: For loading the model.
        partial_options: More of them where only the rows of V′ are loaded.
        label_columns: Columns of labels that are tokens.
        scores_before: Whether scores before training say anything.
    """

    train_rows: Any
    auto_class: Any
    collator: Callable[[PartialVocabulary | None], Any]
    score: Callable[[Trainer], Mapping[str, float]]
    options: Mapping[str, Any] = field(default_factory=dict)
    partial_options: Mapping[str, Any] = field(default_factory=dict)
    label_columns: Sequence[str] = ()
    scores_before: bool = False
