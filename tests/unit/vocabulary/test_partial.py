"""Tests of V′ and its mapping."""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from subvocab.errors import (
    CheckpointError,
    OutOfVocabularyError,
    SubvocabError,
    VocabularyMismatchError,
)
from subvocab.vocabulary import PartialVocabulary, TokenCounts

VOCABULARY = PartialVocabulary(np.array([0, 7, 42]), 50)


def refused(error: type[SubvocabError], message: str) -> pytest.RaisesExc[SubvocabError]:
    """Expect an error of exactly this text."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


# Construction


def test_partial_vocabulary_refuses_no_ids() -> None:
    """An empty matrix cannot be trained, and is most likely a mistake upstream."""
    with refused(
        VocabularyMismatchError,
        "A partial vocabulary of no tokens was asked for, expected at least one. Was the dataset "
        "empty, or the wrong column scanned?",
    ):
        PartialVocabulary(np.empty(0, dtype=np.int64), 50)


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ([0, 7, 7], "7 is followed by 7 at position 2"),
        ([1_000, 3], "1,000 is followed by 3 at position 1"),
    ],
)
def test_partial_vocabulary_refuses_ids_that_do_not_rise(ids: list[int], named: str) -> None:
    """Order is what keeps sums, and so bits, the same."""
    with refused(
        VocabularyMismatchError,
        f"Token ids must rise strictly, but {named}. Pass `np.unique(token_ids)`.",
    ):
        PartialVocabulary(np.array(ids), 50_000)


@pytest.mark.parametrize(("ids", "named"), [([-1, 3], "-1"), ([3, 1_050], "1,050"), ([50], "50")])
def test_partial_vocabulary_refuses_ids_outside(ids: list[int], named: str) -> None:
    """Such ids have no row."""
    with refused(
        VocabularyMismatchError,
        f"Token id {named} lies outside the vocabulary of 50. Give the `full_vocab_size` of the "
        "model, which is the number of rows of its embedding matrix.",
    ):
        PartialVocabulary(np.array(ids), 50)


def test_partial_vocabulary_takes_all_of_v() -> None:
    """V′ = V is allowed, and the mapping is the identity."""
    vocabulary = PartialVocabulary(np.arange(5), 5)

    assert np.array_equal(vocabulary.to_partial(np.arange(5)), np.arange(5))


def test_partial_vocabulary_copies_its_ids() -> None:
    """A later change of the caller's array changes nothing."""
    token_ids = np.array([1, 2])
    vocabulary = PartialVocabulary(token_ids, 5)

    token_ids[0] = 0

    assert vocabulary.token_ids.tolist() == [1, 2]


@pytest.mark.parametrize("name", ["token_ids", "lookup"])
def test_partial_vocabulary_cannot_be_written_to(name: str) -> None:
    """The fingerprint must stay true."""
    with pytest.raises(ValueError, match="read-only"):
        getattr(VOCABULARY, name)[0] = 1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])  # noqa: S301
def test_partial_vocabulary_copied_cannot_be_written_to(again: object) -> None:
    """NumPy forgets that an array is read-only when it is pickled."""
    assert callable(again)
    found = again(VOCABULARY)

    assert found == VOCABULARY
    assert not found.token_ids.flags.writeable


def test_repr_tells_sizes_and_fingerprint() -> None:
    """What a person needs to recognise it; not the ids, which are many."""
    assert repr(PartialVocabulary(np.arange(1_500), 250_002)) == (
        "PartialVocabulary(1,500 of 250,002 tokens, fingerprint "
        f"{PartialVocabulary(np.arange(1_500), 250_002).fingerprint[:12]})"
    )


# Identity


def test_fingerprint_is_the_one_documented() -> None:
    """It is written into files, so it must not change between versions."""
    content = b"".join(number.to_bytes(8, "little") for number in (3, 0, 7, 42, 1, 50))

    assert VOCABULARY.fingerprint == hashlib.sha256(content).hexdigest()


def test_equality_is_by_value() -> None:
    """Same ids and same V; other things are never equal."""
    assert PartialVocabulary(np.array([0, 7, 42]), 50) == VOCABULARY
    assert hash(PartialVocabulary(np.array([0, 7, 42]), 50)) == hash(VOCABULARY)
    assert PartialVocabulary(np.array([0, 7, 42]), 51) != VOCABULARY
    assert VOCABULARY != [0, 7, 42]


# The mapping


def test_contains_tells_which_ids_are_kept() -> None:
    """Any shape; what lies outside V is not in V′ either."""
    found = VOCABULARY.contains(np.array([[0, 1, 7], [-1, 50, -100]]))

    assert found.tolist() == [[True, False, True], [False, False, False]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_to_partial_takes_any_integers(dtype: type[np.integer]) -> None:
    """Datasets come in all widths."""
    assert VOCABULARY.to_partial(np.array([42, 0], dtype=dtype)).tolist() == [2, 0]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 2, 3)])
def test_to_partial_keeps_the_shape(shape: tuple[int, ...]) -> None:
    """Batches of any rank."""
    assert VOCABULARY.to_partial(np.full(shape, 7)).shape == shape


@pytest.mark.parametrize(
    ("ids", "words", "missing"),
    [
        ([7, 8], ("1 token id is", "8"), (8,)),
        (
            [9, 9, -100, 60, 1, 2, 3],
            ("6 token ids are", "-100, 1, 2, 3, 9 and 1 more"),
            (-100, 1, 2, 3, 9, 60),
        ),
    ],
)
def test_to_partial_names_what_is_missing(
    ids: list[int], words: tuple[str, str], missing: tuple[int, ...]
) -> None:
    """The first few in words, all of them as an attribute."""
    with refused(
        OutOfVocabularyError,
        f"{words[0]} not in the partial vocabulary of 3: {words[1]}. Scan every split the model "
        "will train on.",
    ) as caught:
        VOCABULARY.to_partial(np.array(ids))

    assert isinstance(caught.value, OutOfVocabularyError)
    assert caught.value.token_ids == missing


def test_to_full_undoes_the_mapping() -> None:
    """By the definition of f⁻¹."""
    assert VOCABULARY.to_full(np.array([[2, 0], [1, 1]])).tolist() == [[42, 0], [7, 7]]


@pytest.mark.parametrize("partial_id", [-1, 3])
def test_to_full_refuses_ids_outside(partial_id: int) -> None:
    """A negative id must not count from the end."""
    with refused(
        OutOfVocabularyError,
        f"Partial ids {partial_id} lie outside the partial vocabulary of 3. Were they renumbered "
        "already?",
    ):
        VOCABULARY.to_full(np.array([0, partial_id]))


# Derived vocabularies


def test_union_keeps_the_tokens_of_both() -> None:
    """Another vocabulary or plain ids, in any order."""
    other = PartialVocabulary(np.array([7, 9]), 50)

    assert VOCABULARY.union(other).token_ids.tolist() == [0, 7, 9, 42]
    assert VOCABULARY.union([9, 7, 9]) == VOCABULARY.union(other)
    assert VOCABULARY.union(np.array([9])) == VOCABULARY.union(other)


@pytest.mark.parametrize("other", [[], [42, 0]])
def test_union_returns_itself_if_nothing_is_added(other: list[int]) -> None:
    """No new value, no new look-up table."""
    assert VOCABULARY.union(other) is VOCABULARY


def test_union_refuses_another_vocabulary() -> None:
    """The same id would mean two tokens."""
    with refused(
        VocabularyMismatchError,
        "Partial vocabularies of 50 and of 50,000 tokens cannot be united. Take both with the same "
        "tokenizer and `full_vocab_size`.",
    ):
        VOCABULARY.union(PartialVocabulary(np.array([1]), 50_000))


def test_union_refuses_ids_outside() -> None:
    """Added ids are checked like all others."""
    with pytest.raises(VocabularyMismatchError, match="Token id 50 lies outside"):
        VOCABULARY.union([50])


def test_resized_changes_the_size_only() -> None:
    """Matrices are often taller than their tokenizer."""
    resized = VOCABULARY.resized(64)

    assert (resized.full_vocab_size, resized.token_ids.tolist()) == (64, [0, 7, 42])


def test_resized_refuses_to_cut_tokens_off() -> None:
    """A shorter matrix has no row for them."""
    with pytest.raises(VocabularyMismatchError, match="Token id 42 lies outside"):
        VOCABULARY.resized(42)


# Files


def test_load_gives_what_was_saved(tmp_path: Path) -> None:
    """A round trip through a file."""
    VOCABULARY.save(tmp_path / "v.safetensors")

    assert PartialVocabulary.load(tmp_path / "v.safetensors") == VOCABULARY


def test_load_refuses_another_kind(tmp_path: Path) -> None:
    """Counts are no vocabulary."""
    path = tmp_path / "c.safetensors"
    TokenCounts(np.array([1])).save(path)

    with refused(
        CheckpointError,
        f"{path} holds `token_counts`, expected `partial_vocabulary`. Look into it with `subvocab "
        "inspect`.",
    ):
        PartialVocabulary.load(path)


def test_load_refuses_values_that_were_changed(tmp_path: Path) -> None:
    """The fingerprint tells."""
    path = tmp_path / "v.safetensors"
    VOCABULARY.save(path)
    other = PartialVocabulary(np.array([1, 7, 42]), 50)
    content = path.read_bytes()
    path.write_bytes(content.replace(VOCABULARY.token_ids.tobytes(), other.token_ids.tobytes()))

    with refused(
        CheckpointError,
        f"{path} is damaged: it says fingerprint {VOCABULARY.fingerprint[:12]}, but its values "
        f"give {other.fingerprint[:12]}. Write it anew from the dataset.",
    ):
        PartialVocabulary.load(path)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"full_vocab_size": np.array([50])}, "'token_ids'"),
        ({"token_ids": np.array([1])}, "'full_vocab_size'"),
        ({"token_ids": np.array([1]), "full_vocab_size": np.array([], dtype=np.int64)}, "index 0"),
        ({"token_ids": np.array([2, 1]), "full_vocab_size": np.array([50])}, "Token ids must rise"),
    ],
)
def test_load_refuses_a_record_of_other_content(
    tmp_path: Path, tensors: dict[str, np.ndarray], reason: str
) -> None:
    """Right kind, wrong arrays."""
    path = tmp_path / "v.safetensors"
    save_file(tensors, path, metadata={"subvocab.kind": "partial_vocabulary"})

    with pytest.raises(
        CheckpointError, match=rf"^{path} holds no partial vocabulary: {re.escape(reason)}"
    ):
        PartialVocabulary.load(path)


def test_save_writes_plain_arrays(tmp_path: Path) -> None:
    """Anyone can read the file without this library."""
    VOCABULARY.save(tmp_path / "v.safetensors")

    tensors = load_file(tmp_path / "v.safetensors")

    assert tensors["token_ids"].tolist() == [0, 7, 42]
    assert tensors["full_vocab_size"].tolist() == [50]
