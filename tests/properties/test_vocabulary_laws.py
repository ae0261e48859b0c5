"""What holds for every partial vocabulary and every matrix."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subvocab.errors import OutOfVocabularyError
from subvocab.vocabulary import PartialVocabulary
from tests.properties.strategies import matrices, partial_vocabularies


@given(partial_vocabularies())
def test_to_full_undoes_to_partial(vocabulary: PartialVocabulary) -> None:
    """Applying f⁻¹ ∘ f is the identity of V′."""
    partial_ids = vocabulary.to_partial(vocabulary.token_ids)

    assert np.array_equal(vocabulary.to_full(partial_ids), vocabulary.token_ids)


@given(partial_vocabularies())
def test_to_partial_undoes_to_full(vocabulary: PartialVocabulary) -> None:
    """Also f ∘ f⁻¹ is the identity of {0 … |V′|−1}."""
    partial_ids = np.arange(len(vocabulary))

    assert np.array_equal(vocabulary.to_partial(vocabulary.to_full(partial_ids)), partial_ids)


@given(partial_vocabularies())
def test_to_partial_keeps_the_order_of_ids(vocabulary: PartialVocabulary) -> None:
    """The mapping is increasing, on which the bits of gradient norms depend."""
    assert (np.diff(vocabulary.to_partial(vocabulary.token_ids)) > 0).all()


@given(st.data())
def test_partial_matrix_holds_the_same_rows(data: st.DataObject) -> None:
    """E′[f(i)] = E[i], bit for bit, for ids in any order."""
    matrix = data.draw(matrices()).bytes
    vocabulary = data.draw(partial_vocabularies(len(matrix)))
    token_ids = np.array(data.draw(st.lists(st.sampled_from(vocabulary.token_ids.tolist()))))
    token_ids = token_ids.astype(np.int64)

    partial_matrix = matrix[vocabulary.token_ids]

    assert np.array_equal(partial_matrix[vocabulary.to_partial(token_ids)], matrix[token_ids])


@given(partial_vocabularies(), st.lists(st.integers(-5, 60), min_size=1))
def test_to_partial_raises_exactly_for_what_is_absent(
    vocabulary: PartialVocabulary, token_ids: list[int]
) -> None:
    """No id outside V′ gets a number, and none inside it is refused."""
    absent = sorted(set(token_ids) - set(vocabulary.token_ids.tolist()))

    if absent:
        with pytest.raises(OutOfVocabularyError) as caught:
            vocabulary.to_partial(np.array(token_ids))
        assert list(caught.value.token_ids) == absent
    else:
        assert vocabulary.to_partial(np.array(token_ids)).shape == (len(token_ids),)


@given(partial_vocabularies(40), partial_vocabularies(40))
def test_union_is_the_union_of_sets(first: PartialVocabulary, second: PartialVocabulary) -> None:
    """A union holds the ids of both, whichever comes first."""
    union = first.union(second)

    assert set(union.token_ids.tolist()) == {*first.token_ids.tolist(), *second.token_ids.tolist()}
    assert union == second.union(first)


@given(partial_vocabularies())
def test_load_gives_what_was_saved(vocabulary: PartialVocabulary) -> None:
    """Loading undoes saving."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary.save(Path(folder) / "v.safetensors")

        loaded = PartialVocabulary.load(Path(folder) / "v.safetensors")

    assert loaded == vocabulary
    assert np.array_equal(loaded.token_ids, vocabulary.token_ids)


@given(partial_vocabularies(), partial_vocabularies())
def test_fingerprint_is_equal_for_equal_values_only(
    first: PartialVocabulary, second: PartialVocabulary
) -> None:
    """Two vocabularies share a fingerprint if and only if they agree."""
    same = first.full_vocab_size == second.full_vocab_size and np.array_equal(
        first.token_ids, second.token_ids
    )

    assert (first.fingerprint == second.fingerprint) == same
