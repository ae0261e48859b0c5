"""The first rows tell what is counted; what only later rows have is never passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from subvocab.data import scan
from subvocab.errors import DataError
from tests import tiny_tokenizers

HOW = ["generator", "file"]
TEXTS = [{"text": "the cat"}] * 10
IDS = [{"input_ids": [1, 2]}] * 10


def _given(rows: list[Any], tmp_path: Path, how: str) -> Any:
    if how == "generator":
        return iter(rows)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(("" if row is None else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("rows", [TEXTS, IDS], ids=["texts", "ids"])
@pytest.mark.parametrize("empty", [None, {}, {"text": None}, {"input_ids": None}], ids=str)
def test_rows_of_nulls_are_looked_past(
    tmp_path: Path, rows: list[Any], empty: dict[str, None] | None, how: str
) -> None:
    """However many come first: they tell nothing of the columns."""
    tokenizer = tiny_tokenizers.wordpiece()

    counts = scan(_given([empty] * 2500 + rows, tmp_path, how), tokenizer=tokenizer)

    assert counts == scan(rows, tokenizer=tokenizer)
    assert counts.total_tokens > 0


@pytest.mark.parametrize("how", HOW)
def test_rows_after_nulls_keep_their_number(tmp_path: Path, how: str) -> None:
    """An error names the row that a person would look for."""
    rows: list[Any] = [{}] * 1500 + [{"input_ids": [99]}]

    with pytest.raises(DataError, match=r"Token id 99 at column `input_ids`, row 1,500"):
        scan(_given(rows, tmp_path, how), full_vocab_size=9)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("rows", [[], [{"body": None}] * 10], ids=["none", "nulls"])
def test_rows_without_a_value_hold_no_token(tmp_path: Path, rows: list[Any], how: str) -> None:
    """A file of a folder may be empty."""
    counts = scan(_given(rows, tmp_path, how), tokenizer=tiny_tokenizers.wordpiece())

    assert counts.total_tokens == 0


@pytest.mark.parametrize("how", HOW)
def test_a_text_that_is_null_at_first_is_the_text(tmp_path: Path, how: str) -> None:
    """By its name, beside another column of text."""
    rows = [{"title": "dog", "text": None}] * 1000 + [{"title": "dog", "text": "the cat"}] * 10
    tokenizer = tiny_tokenizers.wordpiece()

    counts = scan(_given(rows, tmp_path, how), tokenizer=tokenizer)

    assert counts == scan(TEXTS, tokenizer=tokenizer)


@pytest.mark.parametrize("how", HOW)
def test_ids_that_are_null_throughout_leave_the_text(tmp_path: Path, how: str) -> None:
    """Rows may have a place for ids that nobody filled."""
    rows = [{**row, "input_ids": None} for row in TEXTS]
    tokenizer = tiny_tokenizers.wordpiece()

    counts = scan(_given(rows, tmp_path, how), tokenizer=tokenizer)

    assert counts == scan(TEXTS, tokenizer=tokenizer)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("first", "late"),
    [
        ({"id": "a"}, {"id": "a", "text": "the cat"}),
        ({"sentence": "a"}, {"sentence": "a", "text": "the cat"}),
        ({"text": "a"}, {"text": "a", "input_ids": [7]}),
        ({"text": "a", "input_ids": None}, {"text": "a", "input_ids": [7]}),
        ({"input_ids": [1]}, {"input_ids": [1], "decoder_input_ids": [7]}),
    ],
    ids=str,
)
def test_what_would_have_been_chosen_is_not_passed_over(
    tmp_path: Path, first: dict[str, Any], late: dict[str, Any], how: str
) -> None:
    """Nulls in it are nothing; a value is refused, unless a person named what to count."""
    tokenizer = tiny_tokenizers.wordpiece()
    (name,) = late.keys() - {key for key, value in first.items() if value is not None}
    (counted,) = late.keys() - {name}
    named = {"columns" if counted == "input_ids" else "text_columns": counted}

    def scanned(*rows: dict[str, Any], **options: Any) -> int:
        given = _given([first] * 1000 + [*rows], tmp_path, how)
        return scan(given, tokenizer=tokenizer, **options).total_tokens

    assert scanned({**late, name: None}) == scanned(late, **named) > 0
    with pytest.raises(
        DataError, match=rf"^Later rows.* have `{name}`, but the first 1,000 have not, so it would"
    ):
        scanned(late)


@pytest.mark.parametrize("how", HOW)
def test_what_is_no_text_is_refused_however_late(tmp_path: Path, how: str) -> None:
    """The message names the rows."""
    rows = [{"text": "the cat"}] * 1000 + [{"text": 5}]

    with pytest.raises(DataError, match=r"holds `int64` in rows 1,000 to 1,000, expected text in"):
        scan(_given(rows, tmp_path, how), tokenizer=tiny_tokenizers.wordpiece())
