"""Tests of counts of tokens."""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from subvocab.errors import CheckpointError, SubvocabError, VocabularyMismatchError
from subvocab.vocabulary import TokenCounts

COUNTS = TokenCounts(np.array([0, 3, 0, 1, 0]), np.array([4, 0]))


def refused(error: type[SubvocabError], message: str) -> pytest.RaisesExc[SubvocabError]:
    """Expect an error of exactly this text."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def test_token_counts_tells_its_sums() -> None:
    """Special ids are kept, but not counted as seen."""
    assert (COUNTS.unique_tokens, COUNTS.total_tokens, COUNTS.full_vocab_size) == (2, 4, 5)


def test_token_counts_sorts_special_ids() -> None:
    """Each once, ascending."""
    counts = TokenCounts(np.zeros(9, dtype=np.int64), np.array([5, 2, 5]))

    assert counts.special_token_ids.tolist() == [2, 5]


def test_token_counts_refuses_a_negative_count() -> None:
    """Nothing is seen less than never."""
    counts = np.zeros(2_000, dtype=np.int64)
    counts[1_234] = -5_000

    with refused(
        VocabularyMismatchError,
        "The count of token id 1,234 is -5,000, expected zero or more.",
    ):
        TokenCounts(counts)


@pytest.mark.parametrize(("special", "named"), [([-1], "-1"), ([9, 0, 5], "5, 9")])
def test_token_counts_refuses_special_ids_outside(special: list[int], named: str) -> None:
    """A special id without a row is a sign of a wrong size."""
    with refused(
        VocabularyMismatchError,
        f"Special token ids {named} lie outside the vocabulary of 5. Give the `full_vocab_size` of "
        "the model, which is the number of rows of its embedding matrix.",
    ):
        TokenCounts(np.zeros(5, dtype=np.int64), np.array(special))


def test_token_counts_takes_an_empty_vocabulary() -> None:
    """Nothing to count is a value too."""
    counts = TokenCounts(np.empty(0, dtype=np.int64))

    assert (counts.unique_tokens, counts.total_tokens) == (0, 0)


@pytest.mark.parametrize("name", ["counts", "special_token_ids"])
def test_token_counts_cannot_be_written_to(name: str) -> None:
    """The fingerprint must stay true."""
    with pytest.raises(ValueError, match="read-only"):
        getattr(COUNTS, name)[0] = 1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])  # noqa: S301
def test_token_counts_copied_cannot_be_written_to(again: object) -> None:
    """NumPy forgets that an array is read-only when it is pickled."""
    assert callable(again)
    found = again(COUNTS)

    assert found == COUNTS
    assert not found.counts.flags.writeable


def test_fingerprint_is_the_one_documented() -> None:
    """It is written into files, so it must not change between versions."""
    numbers = (5, 0, 3, 0, 1, 0, 2, 0, 4)
    content = b"".join(number.to_bytes(8, "little") for number in numbers)

    assert COUNTS.fingerprint == hashlib.sha256(content).hexdigest()


def test_equality_is_by_value() -> None:
    """Same counts and special ids; other things are never equal."""
    same = TokenCounts(np.array([0, 3, 0, 1, 0]), np.array([0, 4]))

    assert same == COUNTS
    assert hash(same) == hash(COUNTS)
    assert TokenCounts(COUNTS.counts) != COUNTS
    assert COUNTS != 4


def test_add_sums_counts_and_unites_special_ids() -> None:
    """Two parts of a dataset make one."""
    total = COUNTS + TokenCounts(np.array([1, 1, 0, 0, 0]), np.array([2]))

    assert total.counts.tolist() == [1, 4, 0, 1, 0]
    assert total.special_token_ids.tolist() == [0, 2, 4]


def test_add_refuses_another_vocabulary() -> None:
    """The same id would mean two tokens."""
    with refused(
        VocabularyMismatchError,
        "Counts over 5 and over 6,000 tokens cannot be added. Scan both parts with the same "
        "tokenizer and `full_vocab_size`.",
    ):
        COUNTS + TokenCounts(np.zeros(6_000, dtype=np.int64))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [((), [0, 1, 3, 4]), ([2], [0, 1, 2, 3, 4]), (np.array([2, 3]), [0, 1, 2, 3, 4])],
)
def test_partial_vocabulary_keeps_seen_special_and_extra_ids(
    extra: list[int], expected: list[int]
) -> None:
    """V′ is the union of the three."""
    vocabulary = COUNTS.partial_vocabulary(extra)

    assert (vocabulary.token_ids.tolist(), vocabulary.full_vocab_size) == (expected, 5)


def test_partial_vocabulary_takes_any_iterable() -> None:
    """A generator of ids will do."""
    assert len(COUNTS.partial_vocabulary(token_id for token_id in (2,))) == 5


def test_partial_vocabulary_refuses_to_be_empty() -> None:
    """A dataset without tokens trains nothing."""
    with pytest.raises(VocabularyMismatchError, match="A partial vocabulary of no tokens"):
        TokenCounts(np.zeros(5, dtype=np.int64)).partial_vocabulary()


def test_load_gives_what_was_saved(tmp_path: Path) -> None:
    """A round trip through a file."""
    COUNTS.save(tmp_path / "c.safetensors")

    assert TokenCounts.load(tmp_path / "c.safetensors") == COUNTS


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"counts": np.array([1])}, "'special_token_ids'"),
        (
            {"counts": np.array([-1]), "special_token_ids": np.array([0])},
            "The count of token id 0 is -1, expected zero or more.",
        ),
    ],
)
def test_load_refuses_a_record_of_other_content(
    tmp_path: Path, tensors: dict[str, np.ndarray], reason: str
) -> None:
    """Right kind, wrong arrays."""
    path = tmp_path / "c.safetensors"
    save_file(tensors, path, metadata={"subvocab.kind": "token_counts"})

    with refused(CheckpointError, f"{path} holds no token counts: {reason}"):
        TokenCounts.load(path)


def test_load_refuses_a_record_without_a_fingerprint(tmp_path: Path) -> None:
    """Somebody else's file, or an edited one."""
    path = tmp_path / "c.safetensors"
    tensors = {"counts": np.array([1]), "special_token_ids": np.array([0])}
    save_file(tensors, path, metadata={"subvocab.kind": "token_counts"})
    computed = TokenCounts(np.array([1]), np.array([0])).fingerprint[:12]

    with refused(
        CheckpointError,
        f"{path} is damaged: it says fingerprint (none), but its values give {computed}. Write it "
        "anew from the dataset.",
    ):
        TokenCounts.load(path)
