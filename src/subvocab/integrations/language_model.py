"""The tasks of language models: the next token, masked tokens, or the response to a prompt.

Perplexity is that of the whole vocabulary, before and after training, over all tokens alike.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
)

from subvocab._progress import progress_bar
from subvocab.data import dialogues, texts
from subvocab.data.loading import Contents, choose_texts, load_split
from subvocab.errors import DataError, UnsupportedModelError
from subvocab.integrations.job import EVAL_SPLITS, TRAIN_SPLITS, FineTuning, Task
from subvocab.integrations.masking import PartialMaskingCollator
from subvocab.vocabulary import PartialVocabulary

RUNNING_TEXT = Contents("texts", plain_text=True)
DIALOGUES = Contents("prompts and responses")
NO_LABEL = dialogues.NO_LABEL
LARGEST_LOSS = 700.0
"""In nats; the perplexity of a larger one is beyond what a number can hold."""
LOGITS_BYTES = 1 << 27
"""About what the logits of a batch may take in evaluation, where they are as wide as V."""


def token_loss(
    model: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]], *, shifted: bool
) -> float:
    """Compute the mean loss of a language model over tokens, each of the same weight.

    Args:
        model: The model; it is put in evaluation mode.
        batches: Batches with ``labels``, in which -100 is passed over.
        shifted: Whether the model foretells each label from those before it, and so
            passes over the first.

    Returns:
        The loss a token, in nats; NaN if nothing is foretold.
    """
    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            placed = {name: values.to(model.device) for name, values in batch.items()}
            count = int(placed["labels"][:, int(shifted) :].ne(NO_LABEL).sum())
            if count:  # the mean over none would be NaN
                total += float(model(**placed).loss) * count
                tokens += count
    return total / tokens if tokens else math.nan


def prepare(job: FineTuning) -> Task:
    """See that the model is one for the task, and load the data.

    Args:
        job: What to do.

    Returns:
        The task. Its scores are loss and perplexity.

    Raises:
        DataError: If the data cannot be loaded.
        UnsupportedModelError: If the model cannot learn the task.
    """
    kinds = {
        "causal-lm": (MODEL_FOR_CAUSAL_LM_MAPPING, _causal),
        "masked-lm": (MODEL_FOR_MASKED_LM_MAPPING, _masked),
        "seq2seq": (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, _seq2seq),
    }
    config = AutoConfig.from_pretrained(job.model)
    known = [name for name, (models, _) in kinds.items() if type(config) in models]
    if "masked-lm" in known and getattr(config, "is_decoder", None) is False:
        known = [name for name in known if name != "causal-lm"]  # it sees the tokens to foretell
    if job.task not in known:
        raise UnsupportedModelError(
            f"The model in {job.model} is of type `{config.model_type}`, which cannot learn the "
            f"task `{job.task}`, but {' or '.join(known) or 'none of language models'}. Choose "
            "another task, or another model."
        )
    return kinds[job.task][1](job)


def _causal(job: FineTuning) -> Task:
    """Foretell the next token of running text, or of responses."""
    kinds: dict[bool, str] = {}

    def load(source: str, splits: Sequence[str]) -> Any:
        dataset = load_split(source, splits, RUNNING_TEXT)
        found = None if job.text_columns else _dialogues(dataset, source, job)
        kinds[found is not None] = source
        if len(kinds) > 1:
            raise DataError(
                f"{kinds[True]} holds prompts and responses, but {kinds[False]} running text: the "
                "scores would be of another task than the training. Give two of a kind."
            )
        if found is not None:
            return dialogues.causal_rows(found, job.tokenizer, job.max_length)
        column = _text_column(dataset, source, job)
        return texts.causal_rows(dataset, column, job.tokenizer, job.max_length)

    collator = DataCollatorForSeq2Seq(_that_pads(job.tokenizer))
    return _task(job, AutoModelForCausalLM, load, collator)


def _seq2seq(job: FineTuning) -> Task:
    """Foretell the response to a prompt."""

    def load(source: str, splits: Sequence[str]) -> Any:
        dataset = load_split(source, splits, DIALOGUES)
        found = _dialogues(dataset, source, job)
        if found is None:
            columns = ", ".join(f"`{name}`" for name in dataset.column_names)
            raise DataError(
                f"{source} has no columns of prompts and responses: its columns are {columns}. "
                "Name them in `prompt_column` and `response_column`."
            )
        return dialogues.seq2seq_rows(found, job.tokenizer, job.max_length)

    collator = DataCollatorForSeq2Seq(_that_pads(job.tokenizer))
    return _task(job, AutoModelForSeq2SeqLM, load, collator)


def _masked(job: FineTuning) -> Task:
    """Foretell the tokens of running text that are masked."""
    tokenizer, share = job.tokenizer, job.mask_probability
    if tokenizer.mask_token is None:
        raise DataError(
            "The tokenizer names no token that masks another, which a masked language model "
            "foretells tokens by. Set `mask_token` in its `tokenizer_config.json`, or train "
            "with the task `causal-lm`."
        )

    def load(source: str, splits: Sequence[str]) -> Any:
        dataset = load_split(source, splits, RUNNING_TEXT)
        column = _text_column(dataset, source, job)
        return texts.masked_rows(dataset, column, tokenizer, job.max_length)

    def collator(vocabulary: PartialVocabulary | None) -> Any:
        if vocabulary is None:
            return DataCollatorForLanguageModeling(tokenizer, mlm_probability=share)
        return PartialMaskingCollator(tokenizer, mlm_probability=share, vocabulary=vocabulary)

    train_rows = load(job.train, TRAIN_SPLITS)
    eval_rows = _masked_once(_evaluation(job, load, train_rows), job)
    return Task(
        train_rows,
        AutoModelForMaskedLM,
        collator,
        _scorer(job, eval_rows, DataCollatorForTokenClassification(tokenizer), shifted=False),
        partial_options=_partial_options(job),
        scores_before=True,
    )


def _evaluation(job: FineTuning, load: Callable[[str, Sequence[str]], Any], train_rows: Any) -> Any:
    """Load the rows to evaluate on."""
    return train_rows if job.evaluation is None else load(job.evaluation, EVAL_SPLITS)


def _masked_once(rows: Any, job: FineTuning) -> Any:
    """Mask rows to evaluate on: whatever V′ is, and however they are put in batches, alike."""
    collator = DataCollatorForLanguageModeling(
        job.tokenizer, mlm_probability=job.mask_probability, seed=job.seed
    )
    masked: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for row in rows:
        batch = collator([row])
        for name, values in masked.items():
            values.append(batch[name][0].tolist())
    return datasets.Dataset.from_dict(masked)


def _task(
    job: FineTuning,
    auto_class: Any,
    load: Callable[[str, Sequence[str]], Any],
    collator: DataCollatorForSeq2Seq,
) -> Task:
    """Put together a task whose rows have labels, in training as in evaluation."""
    train_rows = load(job.train, TRAIN_SPLITS)
    eval_rows = _evaluation(job, load, train_rows)
    shifted = auto_class is AutoModelForCausalLM
    return Task(
        train_rows,
        auto_class,
        lambda _vocabulary: collator,
        _scorer(job, eval_rows, collator, shifted=shifted),
        partial_options=_partial_options(job),
        # Those of the next token are the tokens that were counted already, or fewer.
        label_columns=() if shifted else ("labels",),
        scores_before=True,
    )


def _scorer(
    job: FineTuning, rows: Any, collator: Any, *, shifted: bool
) -> Callable[[Trainer], Mapping[str, float]]:
    """Make what evaluates a Trainer's model by its loss and perplexity."""

    def score(trainer: Trainer) -> Mapping[str, float]:
        model: Any = trainer.model
        row_bytes = 4 * job.max_length * model.config.get_text_config().vocab_size
        batch_size = min(job.batch_size, max(1, LOGITS_BYTES // row_bytes))
        batches = DataLoader(rows, batch_size=batch_size, collate_fn=collator)
        loss = token_loss(model, _shown(batches, job), shifted=shifted)
        perplexity = math.exp(loss) if loss < LARGEST_LOSS else loss * math.inf
        return {"loss": loss, "perplexity": perplexity}

    return score


def _shown(batches: DataLoader[Any], job: FineTuning) -> Iterator[Mapping[str, torch.Tensor]]:
    """Give batches behind a progress bar."""
    with progress_bar("Evaluating", total=float(len(batches)), enabled=job.progress) as advance:
        for batch in batches:
            yield batch
            advance(1.0)


def _partial_options(job: FineTuning) -> dict[str, Any]:
    """Say how the loss treats tokens outside V′."""
    shift = {"rest_shift": job.rest_shift} if job.head == "exact" else {}
    return {"head": job.head, **shift}


def _dialogues(dataset: Any, source: str, job: FineTuning) -> dialogues.Dialogues | None:
    return dialogues.find_dialogues(
        dataset, source, prompt_column=job.prompt_column, response_column=job.response_column
    )


def _text_column(dataset: Any, source: str, job: FineTuning) -> str:
    """Choose the one column of running text."""
    column, *others = choose_texts(dataset, source, job.text_columns)
    if others:
        raise DataError(
            f"The text columns `{column}` and `{others[0]}` were named, expected one: running text "
            "has no pairs. Name one, or columns of prompts and responses."
        )
    return column


def _that_pads(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give a tokenizer that pads; what is padded has no label, so its EOS will do."""
    if tokenizer.pad_token_id is not None:
        return tokenizer
    texts.end_of_text(tokenizer)
    tokenizer = copy.deepcopy(tokenizer)  # the model's own is saved as it was
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
