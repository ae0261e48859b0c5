"""Responses are learned, prompts are not; and the model sees what it will see in use."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from tokenizers import decoders
from transformers import PreTrainedTokenizerFast

from subvocab.data.dialogues import causal_rows, find_dialogues, seq2seq_rows
from subvocab.errors import DataError

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PAIRS = {"prompt": ["the cat", "a dog"], "response": ["sat", "didn't"]}
TALK = [
    {"role": "system", "content": "on the mat"},
    {"role": "user", "content": "the cat"},
    {"role": "assistant", "content": "sat"},
    {"role": "user", "content": "a dog"},
    {"role": "assistant", "content": "didn't"},
]


def _rows(
    encode: Any, columns: dict[str, list[Any]], tokenizer: Any, max_length: int = 99, **named: str
) -> list[tuple[list[int], list[int]]]:
    """Give ids and labels of every row."""
    options: dict[str, Any] = {"prompt_column": None, "response_column": None, **named}
    found = find_dialogues(datasets.Dataset.from_dict(columns), "data", **options)
    assert found is not None
    rows = encode(found, tokenizer, max_length)
    return list(zip(rows["input_ids"], rows["labels"], strict=True))


def _message(*arguments: Any, **named: Any) -> str:
    with pytest.raises(DataError) as caught:
        _rows(*arguments, **named)
    return str(caught.value)


@pytest.fixture
def plain(byte_level_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Give a tokenizer that has no chat template, and undoes what it does."""
    byte_level_tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    return byte_level_tokenizer


@pytest.fixture
def templated(plain: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Give the same with a chat template."""
    plain.chat_template = TEMPLATE
    return plain


def test_causal_rows_learn_the_response_alone(plain: PreTrainedTokenizerFast) -> None:
    """Its labels are its tokens and EOS; the prompt has none."""
    for (ids, labels), prompt, response in zip(
        _rows(causal_rows, PAIRS, plain), PAIRS["prompt"], PAIRS["response"], strict=True
    ):
        before = len(plain(prompt)["input_ids"])
        assert plain.decode(ids) == f"{prompt}{response}<|endoftext|>"
        assert plain.decode(labels[before:]) == f"{response}<|endoftext|>"
        assert labels[:before] == [-100] * before


def test_causal_rows_add_the_bos_that_the_tokenizer_adds(
    unigram_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Once, with no label; and no EOS between prompt and response."""
    ids, labels = _rows(causal_rows, PAIRS, unigram_tokenizer)[0]

    assert [n for n in ids if n in (0, 2)] == [ids[0], ids[-1]] == [0, 2]
    assert labels[0] == -100
    assert labels[-1] == 2


def test_causal_rows_follow_the_chat_template(templated: PreTrainedTokenizerFast) -> None:
    """What prompts a response belongs to the prompt, and nothing is added to the template."""
    ids, labels = _rows(causal_rows, PAIRS, templated)[0]

    prompt = "<user>the cat<|endoftext|><assistant>"
    before = len(templated(prompt)["input_ids"])
    assert templated.decode(ids) == f"{prompt}sat<|endoftext|>"
    assert labels == [-100] * before + ids[before:]


def test_causal_rows_learn_each_response_of_a_conversation(
    templated: PreTrainedTokenizerFast,
) -> None:
    """After all that came before it."""
    rows = _rows(causal_rows, {"messages": [TALK]}, templated)

    begin = "<system>on the mat<|endoftext|><user>the cat<|endoftext|><assistant>sat<|endoftext|>"
    assert [templated.decode(ids) for ids, _ in rows] == [
        begin,
        f"{begin}<user>a dog<|endoftext|><assistant>didn't<|endoftext|>",
    ]
    learned = [templated.decode([n for n in labels if n >= 0]) for _, labels in rows]
    assert learned == ["sat<|endoftext|>", "didn't<|endoftext|>"]


def test_causal_rows_take_a_template_that_prompts_in_another_way(
    templated: PreTrainedTokenizerFast,
) -> None:
    """Where the prompt's end is no part of a response given, the response begins before it."""
    templated.chat_template = TEMPLATE.replace(
        "{% if add_generation_prompt %}<assistant>", "{% if add_generation_prompt %}<think>"
    )

    _, labels = _rows(causal_rows, PAIRS, templated)[0]

    assert templated.decode([n for n in labels if n >= 0]) == "<assistant>sat<|endoftext|>"


def test_causal_rows_cut_a_long_response(plain: PreTrainedTokenizerFast) -> None:
    """From its end."""
    whole, _ = _rows(causal_rows, PAIRS, plain)[1]

    ids, labels = _rows(causal_rows, PAIRS, plain, max_length=4)[1]

    assert ids == whole[:4]
    assert len(labels) == 4


@pytest.mark.parametrize("name", ["response", "completion", "answer"])
def test_find_dialogues_knows_usual_names(plain: PreTrainedTokenizerFast, name: str) -> None:
    """Others can be named; columns beside them do not matter."""
    columns = {"prompt": ["the"], name: ["cat"], "text": ["a"], "messages": ["b"]}
    named: dict[str, Any] = {"response_column": "answer"} if name == "answer" else {}

    ((ids, _),) = _rows(causal_rows, columns, plain, **named)

    assert plain.decode(ids) == "thecat<|endoftext|>"


def test_find_dialogues_finds_none_in_running_text() -> None:
    """A prompt without responses is a text like any other."""
    dataset = datasets.Dataset.from_dict({"prompt": ["a"], "text": ["b"]})

    assert find_dialogues(dataset, "data", prompt_column=None, response_column=None) is None


def test_seq2seq_rows_end_with_eos(unigram_tokenizer: PreTrainedTokenizerFast) -> None:
    """Prompt and response are texts of their own, with the tokenizer's special tokens."""
    rows = _rows(seq2seq_rows, PAIRS, unigram_tokenizer)

    for (ids, labels), prompt, response in zip(
        rows, PAIRS["prompt"], PAIRS["response"], strict=True
    ):
        assert ids == unigram_tokenizer(prompt)["input_ids"]
        assert labels == unigram_tokenizer(response)["input_ids"]


@pytest.mark.parametrize("max_length", [2, 99])
def test_seq2seq_rows_add_the_eos_that_the_tokenizer_does_not(
    plain: PreTrainedTokenizerFast, max_length: int
) -> None:
    """Or the model would never learn to stop; also of a response that was cut."""
    _, labels = _rows(seq2seq_rows, PAIRS, plain, max_length)[1]

    bare = plain("didn't")["input_ids"]
    assert labels == [*bare[: max_length - 1], plain.eos_token_id]


def test_seq2seq_rows_follow_the_chat_template(templated: PreTrainedTokenizerFast) -> None:
    """Where the tokenizer has one."""
    ids, labels = _rows(seq2seq_rows, {"messages": [TALK[1:3]]}, templated)[0]

    assert templated.decode(ids) == "<user>the cat<|endoftext|><assistant>"
    assert templated.decode(labels) == "sat<|endoftext|>"


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        (
            {"prompt": ["a", "b"], "response": ["c", None]},
            {},
            (
                "Row 1 of data has nothing in column `response`, expected a value in every row. "
                "Take such rows out."
            ),
        ),
        (
            {"prompt": ["a", "b"], "response": ["c", ""]},
            {},
            "Row 1 of data has no response: nothing to learn. Take such rows out.",
        ),
        (
            {"prompt": ["a"], "text": ["c"]},
            {"prompt_column": "prompt"},
            "`data` has no column `response`. Its columns: `prompt` (string), `text` (string).",
        ),
        (
            {"prompt": ["a"], "response": ["c"]},
            {"response_column": "answer"},
            "`data` has no column `answer`. Its columns: `prompt` (string), `response` (string).",
        ),
        (
            {"prompt": ["a"], "response": [1]},
            {},
            (
                "Column `response` of `data` holds `int64`, expected text. Its columns: `prompt` "
                "(string), `response` (int64)."
            ),
        ),
        (
            {"prompt": ["a", "the cat sat on the mat"], "response": ["c", "d"]},
            {},
            (
                "The prompt in row 1 of data has 7 tokens, but `max_length` is 7: no room is left "
                "for the response. Allow more, or take such rows out."
            ),
        ),
        (
            {"messages": [TALK]},
            {},
            (
                "data holds conversations in column `messages`, but the tokenizer has no chat "
                "template to write them out with. Give a model that was made for chat, or columns "
                "of prompts and responses."
            ),
        ),
    ],
)
def test_causal_rows_refuses_what_cannot_be_learned_from(
    plain: PreTrainedTokenizerFast,
    columns: dict[str, list[Any]],
    named: dict[str, str],
    message: str,
) -> None:
    """The message names the row and the column."""
    assert _message(causal_rows, columns, plain, max_length=7, **named) == message


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (["a text"], "Row 0 of data holds no conversation in column `messages`, expected a list "),
        ([[{"content": "a"}]], "Row 0 of data holds no conversation in column `messages`, "),
        ([TALK[:2]], "Row 0 of data has no response: nothing to learn. Take such rows out."),
        ([TALK[2:4]], "Row 0 of data has no response: nothing to learn. Take such rows out."),
    ],
)
def test_causal_rows_refuses_what_is_no_conversation(
    templated: PreTrainedTokenizerFast, messages: list[Any], message: str
) -> None:
    """It must have somebody ask, and the model answer."""
    assert _message(causal_rows, {"messages": messages}, templated).startswith(message)


def test_causal_rows_tells_what_the_template_refuses(templated: PreTrainedTokenizerFast) -> None:
    """Templates raise what their authors wrote."""
    templated.chat_template = "{{ raise_exception('No system here.') }}"

    assert _message(causal_rows, PAIRS, templated) == (
        "The chat template cannot write out row 0 of data: No system here. See which roles it "
        "knows, and in what order."
    )


def test_causal_rows_refuses_a_template_that_hides_where_a_response_begins(
    templated: PreTrainedTokenizerFast,
) -> None:
    """Its tokens could not be told from those of the prompt."""
    templated.chat_template = "{{ messages | length }}" + TEMPLATE

    message = _message(causal_rows, PAIRS, templated)

    assert message.startswith("The chat template writes the prompt of row 0 of data in another way")


def test_prompts_without_responses_are_refused() -> None:
    """They would be learned as running text; whoever wants that can say so."""
    dataset = datasets.Dataset.from_dict({"prompt": ["the cat"], "id": [1]})
    message = (
        "data has a column `prompt`, but none of responses: its columns are `prompt`, `id`. Name "
        "that of responses with `response_column`, or the text to learn with `text_columns`."
    )

    with pytest.raises(DataError) as caught:
        find_dialogues(dataset, "data", prompt_column=None, response_column=None)

    assert str(caught.value) == message
