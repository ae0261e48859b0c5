"""A collator's own tokens are found, whatever it makes batches of, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers as hf
from transformers import PreTrainedTokenizerFast

import subvocab as sv
from subvocab.data.probe import BATCH_ROWS, SAMPLE_ROWS, run_collator
from tests.models import FULL_VOCAB_SIZE, tiny_config, tiny_model
from tests.tiny_tokenizers import as_transformers, unigram, wordpiece

ROWS = [[5, 6, 7, 8, 9, 10], [5, 6], [5, 6, 7]]
SIZE = 1000
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer as BERT's."""
    return as_transformers(wordpiece())


def _wide(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Add many tokens, so that one drawn at random is rarely drawn again."""
    tokenizer.add_tokens([f"word{number}" for number in range(5000)])
    return tokenizer


def _padded(rows: list[Any]) -> Any:
    """Pad with token 3, and start the decoder with token 4."""
    ids = [list(map(int, row["input_ids"] if isinstance(row, dict) else row)) for row in rows]
    width = max(map(len, ids))
    padded = [[*row, *[3] * (width - len(row))] for row in ids]
    return {"input_ids": padded, "decoder_input_ids": [[4, *row] for row in ids]}


def _added(source: Any, collator: Any, **options: Any) -> list[int]:
    """Give what a collator adds beyond token 0."""
    counts = sv.scan(source, full_vocab_size=SIZE, collator=collator, **options)
    assert counts.unique_tokens == 6, "what a collator adds is not counted as seen"
    added: list[int] = counts.special_token_ids.tolist()[1:]
    return added


def test_scan_keeps_what_a_collator_always_adds() -> None:
    """Padding and the decoder's first token are in no column, and in every batch."""
    assert _added(ROWS, _padded) == [3, 4]


SOURCES: dict[str, Callable[[], Any]] = {
    "lists": lambda: ROWS,
    "tuple": lambda: tuple(ROWS),
    "iterator": lambda: iter(ROWS),
    "rows": lambda: [{"input_ids": row, "label": 1} for row in ROWS],
    "columns": lambda: {"input_ids": ROWS, "label": [1, 1, 1]},
    "table": lambda: pa.table({"input_ids": ROWS}),
    "arrow": lambda: pa.array(ROWS),
    "dataset": lambda: datasets.Dataset.from_dict({"input_ids": ROWS}),
    "torch_format": lambda: datasets.Dataset.from_dict({"input_ids": ROWS}).with_format("torch"),
    "splits": lambda: {
        "train": datasets.Dataset.from_dict({"input_ids": ROWS}),
        "test": datasets.Dataset.from_dict({"input_ids": ROWS[1:]}),
    },
    "stream": lambda: datasets.Dataset.from_dict({"input_ids": ROWS}).to_iterable_dataset(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_any_source_with_rows_can_be_probed(kind: str) -> None:
    """An iterator gives its rows to the collator and to the scan."""
    assert _added(SOURCES[kind](), _padded) == [3, 4]


BATCHES: dict[str, Callable[[Any], Any]] = {
    "dict": lambda batch: batch,
    "encoding": hf.BatchEncoding,
    "arrays": lambda batch: {"input_ids": np.array(batch["input_ids"]), "labels": [99]},
    "tensors": lambda batch: {"input_ids": torch.tensor(batch["input_ids"]), "labels": [99]},
    "tuple": lambda batch: (batch, torch.tensor([99])),
    "nested": lambda batch: {"query": batch, "n": 99},
    "named": lambda batch: {"chosen_input_ids": batch["input_ids"], "input_ids_lengths": [99]},
    "tensor": lambda batch: torch.tensor(batch["input_ids"]),
    "list": lambda batch: batch["input_ids"],
}


@pytest.mark.parametrize("kind", BATCHES)
def test_any_batch_with_named_ids_is_read(kind: str) -> None:
    """Lengths and class labels beside them are no tokens."""
    added = _added(ROWS, lambda rows: BATCHES[kind](_padded(rows)))

    assert added in ([3, 4], [3])


def test_labels_are_tokens_to_a_model_with_an_output_head_alone() -> None:
    """-100 is passed over; a classifier's labels are classes."""
    rows = [{"input_ids": row, "labels": [-100, 20]} for row in ROWS]
    collator = _with_labels
    classifier, predictor = tiny_model("bert", "token"), tiny_model("bert", "masked-lm")

    def seen(**options: Any) -> set[int]:
        return set(sv.scan(rows, collator=collator, **options).partial_vocabulary().token_ids)

    assert seen(model=classifier) == {0, 5, 6, 7, 8, 9, 10}
    assert seen(model=predictor) == {0, 5, 6, 7, 8, 9, 10, 20, 21}
    assert seen(model=classifier, label_columns="labels") == seen(model=predictor)
    assert seen(model=predictor, label_columns=()) == seen(model=classifier)


def _with_labels(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "input_ids": [row["input_ids"] for row in rows],
        "labels": [[*row["labels"], 21] for row in rows],
    }


@pytest.mark.parametrize("made", ["model", "config"])
def test_the_model_tells_the_size_of_its_vocabulary(made: str) -> None:
    """Neither the tokenizer nor the data know how many rows its matrix has."""
    model = tiny_model("bert") if made == "model" else tiny_config("bert")

    assert sv.scan(ROWS, model=model).full_vocab_size == FULL_VOCAB_SIZE
    assert sv.scan(ROWS, model=model, full_vocab_size=500).full_vocab_size == 500


def test_a_tokenizer_with_more_ids_than_rows_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """An id beyond the last row would stop the training, whole or shrunk."""
    model = tiny_model("bert", vocab_size=100)

    with pytest.raises(sv.VocabularyMismatchError) as caught:
        sv.scan(["the cat"], tokenizer=tokenizer, model=model)

    assert str(caught.value) == (
        f"The tokenizer has {len(tokenizer)} ids, but the embedding matrix of the model 100 rows. "
        "Call `model.resize_token_embeddings(len(tokenizer))` before the model is shrunk; or, if "
        "the data use none of the ids beyond, pass `full_vocab_size=100`."
    )
    counts = sv.scan([[5]], tokenizer=tokenizer, model=model, full_vocab_size=100)
    assert counts.full_vocab_size == 100


def test_masks_are_kept_and_random_words_told() -> None:
    """The mask is drawn at random places, but comes in every round; random words come and go."""
    wide = _wide(as_transformers(wordpiece()))
    rows = [{"input_ids": wide("the cat sat on the mat")["input_ids"]} for _ in range(60)]
    collator = hf.trainer_utils.RemoveColumnsCollator(  # as the Trainer has it
        hf.DataCollatorForLanguageModeling(wide), ["input_ids"]
    )

    with pytest.warns(UserWarning, match="draws tokens at random") as caught:
        counts = sv.scan(rows, full_vocab_size=6000, tokenizer=wordpiece(), collator=collator)

    assert wide.mask_token_id in counts.special_token_ids
    assert counts.special_token_ids.size < 20
    message = str(caught[0].message)
    assert message.startswith(
        "The collator `DataCollatorForLanguageModeling` draws tokens at random: over 60 rows "
    )
    assert message.endswith(
        "Training stops at such a token. Let `subvocab.PartialMaskingCollator` draw from the "
        "partial vocabulary, draw none (`random_replace_prob=0.0`), or shrink with "
        "`out_of_vocabulary='frozen'`."
    )


def test_a_collator_that_draws_no_words_passes_without_a_warning() -> None:
    """Neither `random_replace_prob=0.0` nor words drawn from V′ bring anything new."""
    wide = _wide(as_transformers(wordpiece()))
    rows = [{"input_ids": wide("the cat sat on the mat")["input_ids"]} for _ in range(60)]
    plain = sv.scan(rows, tokenizer=wide)
    none = hf.DataCollatorForLanguageModeling(wide, random_replace_prob=0.0)
    own = sv.PartialMaskingCollator(wide, vocabulary=plain.partial_vocabulary())

    assert sv.scan(rows, tokenizer=wide, collator=none) == plain
    assert sv.scan(rows, tokenizer=wide, collator=own) == plain


@pytest.mark.parametrize("whole_word", [False, True])
@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("tensors", ["pt", "np"])
def test_nothing_is_drawn_from_the_users_generators(
    tokenizer: PreTrainedTokenizerFast, *, whole_word: bool, seed: int | None, tensors: str
) -> None:
    """Training after a scan draws what it would have drawn without: dropout, order, masks."""
    columns = ["input_ids", "attention_mask", "offset_mapping"]
    row = dict(tokenizer("the cat sat on the mat", return_offsets_mapping=whole_word))

    def drawn(*, scans: bool) -> list[Any]:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        collator = hf.DataCollatorForLanguageModeling(
            tokenizer,
            whole_word_mask=whole_word,
            mask_replace_prob=1.0,
            random_replace_prob=0.0,
            return_tensors=tensors,
            seed=seed,
        )
        collator([dict(row)] * 4)  # a generator of its own is there, and has been used
        if scans:
            wrapped = hf.trainer_utils.RemoveColumnsCollator(collator, columns)
            sv.scan([row] * 40, tokenizer=tokenizer, collator=wrapped)
        batch = np.asarray(collator([dict(row)] * 40)["input_ids"]).tolist()
        return [torch.rand(3).tolist(), np.random.rand(3).tolist(), batch]  # noqa: NPY002

    assert drawn(scans=True) == drawn(scans=False)


def test_a_probe_is_the_same_in_every_process() -> None:
    """Ranks seeded differently must come to the same V′."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        findings, _ = run_collator(_drawing, [[1]] * 40)
        found.append((findings.always.tolist(), findings.sometimes.tolist()))

    assert found[0] == found[1]
    assert found[0][1], "nothing was drawn"


def _drawing(rows: list[Any]) -> Any:
    return torch.cat([torch.tensor(rows), torch.randint(500, (len(rows), 1))], 1)


def test_a_sample_is_spread_and_ends_with_the_last_row() -> None:
    """Packed data end in the one row that is padded; batches are as small as a loader's."""
    rows = [[5, 6]] * 9999 + [[5]]
    given: list[int] = []

    def collate(batch: list[Any]) -> Any:
        given.append(len(batch))
        return _padded(batch)

    findings, source = run_collator(collate, rows)

    assert findings.rows == SAMPLE_ROWS
    assert max(given) == BATCH_ROWS
    assert findings.always.tolist() == [3, 4, 5, 6]
    assert source is rows


def test_seq2seq_shifts_labels_for_the_decoder() -> None:
    """The decoder's first token and its padding come from the model that the collator holds."""
    tokenizer = as_transformers(unigram())
    model = tiny_model("bart", "seq2seq-lm", decoder_start_token_id=250, pad_token_id=1)
    rows = [{"input_ids": [7, 8, 9], "labels": [10, 11]}, {"input_ids": [7], "labels": [10]}]
    collator = hf.DataCollatorForSeq2Seq(tokenizer, model=model)

    counts = sv.scan(rows, tokenizer=tokenizer, model=model, collator=collator)

    assert 250 in counts.special_token_ids
    assert set(np.flatnonzero(counts.counts)) == {7, 8, 9, 10, 11}


def test_collators_of_transformers_add_what_they_pad_with(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Each kind of batch is read; ids alone need no tokenizer, the collator has one."""
    special = set(tokenizer.all_special_ids) | {0}
    one: dict[str, Any] = {"input_ids": [7, 8, 9], "label": 1}
    rows = [one, one | {"input_ids": [7]}]
    tagged: list[Any] = [
        {"input_ids": row["input_ids"], "labels": [1] * len(row["input_ids"])} for row in rows
    ]
    choices = [{"input_ids": [[7, 8], [9]], "attention_mask": [[1, 1], [1]], "label": 1}] * 2
    for collator, source in (
        (hf.DataCollatorWithPadding(tokenizer), rows),
        (hf.default_data_collator, [one, one]),
        (hf.DataCollatorForTokenClassification(tokenizer), tagged),
        (hf.DataCollatorForMultipleChoice(tokenizer), choices),
        (hf.DataCollatorWithFlattening(), tagged),
    ):
        given = None if hasattr(collator, "tokenizer") else tokenizer
        counts = sv.scan(source, collator=collator, tokenizer=given)
        assert set(counts.special_token_ids) == special, collator
        assert set(np.flatnonzero(counts.counts)) == {7, 8, 9}, collator


def test_text_that_a_collator_encodes_is_probed(tokenizer: PreTrainedTokenizerFast) -> None:
    """What it puts before a text is in no row."""
    rows = [{"text": "the cat"}, {"text": "the dog"}]
    (prompt,) = tokenizer("mat", add_special_tokens=False)["input_ids"]

    counts = sv.scan(
        rows,
        tokenizer=tokenizer,
        collator=lambda some: tokenizer(["mat " + row["text"] for row in some], padding=True),
    )

    assert prompt in counts.special_token_ids
    assert not counts.counts[prompt]


def _failing(rows: list[Any]) -> Any:
    raise KeyError(f"pixel_values of {len(rows)}")


HINT = "`collator=lambda rows: {'input_ids': collate(rows)[0]}`."
FAULTS: dict[str, tuple[Any, Any, str]] = {
    "fails": (
        _failing,
        ROWS,
        (
            "The collator `_failing` failed on 3 rows of the source: KeyError: 'pixel_values of "
            "3'. Give it the rows that the data loader will: remove columns that are no use to it, "
            "encode texts first. Or scan without `collator`, and name what it adds in "
            "`partial_vocabulary(extra_token_ids)`."
        ),
    ),
    "no ids": (
        lambda _: {"pixels": 1, "labels": 2},
        ROWS,
        (
            "The collator `<lambda>` makes batches without `input_ids`: pixels, labels. Let it "
            f"name the token ids, as in {HINT}"
        ),
    ),
    "unnamed": (
        lambda rows: (torch.ones(len(rows)), torch.ones(1)),
        ROWS,
        (
            "The collator `<lambda>` makes batches without `input_ids`: tuple. Let it name the "
            f"token ids, as in {HINT}"
        ),
    ),
    "no integers": (
        lambda rows: {"input_ids": torch.ones(len(rows))},
        ROWS,
        (
            "`input_ids` of a batch of the collator `<lambda>` holds `float`, expected integers or "
            f"lists of integers. Let it name the token ids, as in {HINT}"
        ),
    ),
    "outside": (
        lambda _: [5000, -1],
        ROWS,
        (
            "Token ids -1, 5000 from the collator `<lambda>` lie outside the vocabulary of 1,000. "
            "Give the `full_vocab_size` of the model, which is the number of rows of its embedding "
            "matrix."
        ),
    ),
    "a path": (
        _padded,
        "/data/text.txt",
        (
            "/data/text.txt is a path, whose rows no collator can be given. Load it, as with "
            "`datasets.load_dataset`, and scan what was loaded."
        ),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_probe_that_cannot_be_made_is_told(fault: str) -> None:
    """A collator that was passed is never passed over in silence."""
    collator, source, message = FAULTS[fault]

    with pytest.raises(sv.DataError) as caught:
        sv.scan(source, full_vocab_size=SIZE, collator=collator)

    assert str(caught.value) == message


def test_a_source_without_rows_adds_nothing() -> None:
    """The collator is not called without rows."""
    assert sv.scan([], full_vocab_size=SIZE, collator=_failing).special_token_ids.tolist() == [0]


def test_a_scan_imports_no_torch_and_draws_nothing(tmp_path: Path) -> None:
    """Its warning points at the caller's line. The run-time checks of these tests do all that."""
    script = tmp_path / "script.py"
    script.write_text(
        "import random, sys, warnings\n"
        "from subvocab.data import scan\n"
        "before = random.getstate()\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    scan([[5]], full_vocab_size=9999, collator=lambda _: [random.randrange(9999)])\n"
        "print(caught[0].filename, random.getstate() == before, 'torch' in sys.modules)\n"
    )

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(script), "True", "False"]
