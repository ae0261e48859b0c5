"""Every task that a model can be fine-tuned for, by its name."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from subvocab._typing import StrPath
from subvocab.integrations import classifier, language_model
from subvocab.integrations.finetuning import run
from subvocab.integrations.job import FineTuned, FineTuning, Task
from subvocab.integrations.verification import Verification, compare


def finetune(job: FineTuning) -> FineTuned:
    """Fine-tune a model on the embedding rows that its training data uses.

    Args:
        job: What to do; see `subvocab.integrations.finetuning.run` for how it may fail.

    Returns:
        The measurements, with the scores of the task. The whole model and its tokenizer
        lie in ``job.out``.
    """
    return run(job, prepare)


def prepare(job: FineTuning) -> Task:
    """Load the data of a job.

    Args:
        job: The job.

    Returns:
        What its task adds.
    """
    if job.task == "classification":
        return classifier.prepare(job)
    return language_model.prepare(job)


def verify(
    model: StrPath, train: StrPath, *, steps: int = 8, tokenizer: Any = None, **settings: Any
) -> Verification:
    """Train a model both ways on its own data, and compare every number bit for bit.

    Args:
        model: A folder, or a name on the Hub.
        train: Training data: a file, a folder, or a dataset on the Hub.
        steps: Steps to train, each way.
        tokenizer: The model's own; by default the one that lies beside it.
        **settings: Others of `subvocab.integrations.job.FineTuning`, such as ``task``,
            ``label_column``, ``optimizer``, ``weight_decay`` or ``head``.

    Returns:
        The verdicts; its ``holds`` says whether all that is promised for the setting held.

    Raises:
        CheckpointError: If the model is missing or damaged.
        DataError: If the data cannot be loaded.
        UnsupportedModelError: If the model cannot be shrunk.

    Example:
        ``assert sv.verify("bert-base-uncased", "train.jsonl", label_column="label").holds``
    """
    own = tokenizer or AutoTokenizer.from_pretrained(str(model))
    job = FineTuning(str(model), str(train), own, max_steps=steps, **{"progress": False} | settings)
    return compare(job, prepare)
