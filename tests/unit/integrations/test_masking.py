"""Masks are those of transformers; random words come from V′."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

import subvocab as sv
from subvocab.errors import DataError
from subvocab.integrations.masking import PartialMaskingCollator
from subvocab.model.table import OutOfVocabulary
from subvocab.vocabulary import PartialVocabulary
from tests.models import tiny_model

ROWS = 400
LENGTH = 20
KEPT = 40
"""Tokens in V′, besides the special ones; ids from 5 on."""


def _vocabulary(size: int, tokenizer: Any) -> PartialVocabulary:
    """Take some ids of a matrix that has 200 rows more than the tokenizer has tokens."""
    return PartialVocabulary(np.arange(size), len(tokenizer) + 200)


def _examples() -> list[dict[str, list[int]]]:
    """Draw rows from V′, each with one special token at either end."""
    drawn = torch.randint(5, KEPT, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": [3, *row, 4]} for row in drawn.tolist()]


def _batch(collator: Any, *, seed: int = 7) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    batch: dict[str, torch.Tensor] = collator(_examples())
    return batch


@pytest.mark.parametrize("extra", [0, 150])
@pytest.mark.parametrize("options", [{}, {"seed": 3}, {"mlm_probability": 0.5}])
def test_collator_with_all_of_v_is_that_of_transformers(
    wordpiece_tokenizer: PreTrainedTokenizerFast, options: dict[str, Any], extra: int
) -> None:
    """To the last word drawn; rows of the matrix beyond the tokenizer are no words."""
    theirs = DataCollatorForLanguageModeling(wordpiece_tokenizer, **options)
    vocabulary = _vocabulary(len(wordpiece_tokenizer) + extra, wordpiece_tokenizer)
    ours = PartialMaskingCollator(wordpiece_tokenizer, vocabulary=vocabulary, **options)

    one, other = _batch(ours), _batch(theirs)

    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_collator_draws_words_from_the_vocabulary(
    wordpiece_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """All of them; where the words of transformers stand, and nothing else is changed."""
    theirs = DataCollatorForLanguageModeling(wordpiece_tokenizer)
    vocabulary = PartialVocabulary(
        np.array([0, 1, 2, 3, 4, *range(5, KEPT), 90]), len(wordpiece_tokenizer)
    )
    ours = PartialMaskingCollator(wordpiece_tokenizer, vocabulary=vocabulary)

    one, other = _batch(ours), _batch(theirs)

    assert torch.equal(one["labels"], other["labels"])
    differs = one["input_ids"] != other["input_ids"]
    assert not differs[one["labels"] == -100].any()
    assert set(one["input_ids"].unique().tolist()) == set(vocabulary.token_ids.tolist())
    assert other["input_ids"].max() > KEPT


def test_collator_draws_nothing_if_told_so(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """Then it is transformers' collator, whatever V′ is."""
    theirs = DataCollatorForLanguageModeling(wordpiece_tokenizer, random_replace_prob=0)
    vocabulary = _vocabulary(KEPT, wordpiece_tokenizer)
    ours = PartialMaskingCollator(wordpiece_tokenizer, random_replace_prob=0, vocabulary=vocabulary)

    assert torch.equal(_batch(ours)["input_ids"], _batch(theirs)["input_ids"])


def test_collator_leaves_other_draws_alone(wordpiece_tokenizer: PreTrainedTokenizerFast) -> None:
    """Once the batch is made, random numbers are again what they are."""
    _batch(
        PartialMaskingCollator(wordpiece_tokenizer, vocabulary=_vocabulary(5, wordpiece_tokenizer))
    )

    assert torch.randint(1000, (100,)).max() > 5


def test_collator_makes_tensors_of_torch_alone(
    wordpiece_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """NumPy's draw their words in another way, from the whole tokenizer."""
    with pytest.raises(DataError, match=r"^`return_tensors` is `np`, expected `pt`: models with "):
        PartialMaskingCollator(
            wordpiece_tokenizer,
            return_tensors="np",
            vocabulary=_vocabulary(5, wordpiece_tokenizer),
        )


@pytest.mark.parametrize("way", ["partial", "no words", "frozen", "none"])
def test_partial_models_train_in_three_ways(
    wordpiece_tokenizer: PreTrainedTokenizerFast, way: str
) -> None:
    """Words from V′, no words, or frozen rows; with words of the whole tokenizer they do not."""
    model = tiny_model("bert", "masked-lm")
    policy: OutOfVocabulary = "frozen" if way == "frozen" else "error"
    sv.shrink(model, PartialVocabulary(np.arange(KEPT), 300), out_of_vocabulary=policy)
    collator = DataCollatorForLanguageModeling(
        wordpiece_tokenizer, random_replace_prob=0 if way == "no words" else 0.1
    )
    if way == "partial":
        collator = PartialMaskingCollator(wordpiece_tokenizer, vocabulary=sv.vocabulary_of(model))
    batch = _batch(collator)

    if way == "none":
        with pytest.raises(sv.OutOfVocabularyError):
            model.train()(**batch)
    else:
        assert model.train()(**batch).loss.isfinite()
