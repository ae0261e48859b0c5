"""One line for a training script that has a Trainer: scan its data, shrink its model."""

from __future__ import annotations

from typing import Any

from subvocab.data import scan
from subvocab.errors import UnsupportedModelError
from subvocab.integrations.trainer import VocabularyCallback
from subvocab.model.shrink import Shrunk, shrink
from subvocab.vocabulary import PartialVocabulary


def shrink_trainer(
    trainer: Any, vocabulary: PartialVocabulary | None = None, **options: Any
) -> Shrunk[Any]:
    """Shrink the model of a Trainer to the rows that its training data uses.

    Args:
        trainer: A Trainer of transformers, or of a library built on it, that has not begun
            to train.
        vocabulary: V′. By default the tokens of the training data, as the Trainer will
            feed them to the model, and all that its collator adds.
        **options: For `subvocab.shrink`.

    Returns:
        A handle on the model: ``with shrink_trainer(trainer): ...`` restores it.

    Raises:
        UnsupportedModelError: If the Trainer has an optimizer already, or the model cannot
            be shrunk.

    Example:
        ``sv.shrink_trainer(trainer)``, before ``trainer.train()``.
    """
    if trainer.optimizer is not None:
        raise UnsupportedModelError(
            f"`{type(trainer).__name__}` has an optimizer already, which would go on training "
            "the whole matrix. Shrink before `train()`, and make an optimizer of your own "
            "from the model after it is shrunk."
        )
    tokenizer = options.setdefault("tokenizer", trainer.processing_class)
    if vocabulary is None:
        counts = scan(trainer.train_dataset, tokenizer=tokenizer)
        vocabulary = counts.partial_vocabulary()
    shrunk = shrink(trainer.model, vocabulary, **options)
    trainer.add_callback(VocabularyCallback(trainer.model))
    return shrunk
