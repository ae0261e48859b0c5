"""Prompts and the responses to them as rows of token ids: only responses are learned.

A row holds a prompt and a response, or the messages of a whole conversation. Each response
becomes one row of ids, preceded by what the model will see before it gives such a response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from subvocab.data.columns import TEXT_COLUMNS
from subvocab.data.loading import choose_texts, refuse_missing
from subvocab.data.texts import beginning_of_text, check_room, encode_bare, end_of_text
from subvocab.errors import DataError

MESSAGES = "messages"
PROMPT = "prompt"
RESPONSES = ("response", "completion")
NO_LABEL = -100


@dataclass(frozen=True)
class Dialogues:
    """Prompts with responses, or conversations.

    Attributes:
        rows: A ``datasets.Dataset``.
        columns: The prompt's and the response's; or the one of messages.
        source: Where they came from, for messages.
    """

    rows: Any
    columns: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Turn:
    """A prompt, and the response to it, as texts.

    Attributes:
        prompt: All that comes before the response.
        response: What is learned.
        row: The number of the row they come from.
    """

    prompt: str
    response: str
    row: int


def find_dialogues(
    dataset: Any, source: str, *, prompt_column: str | None, response_column: str | None
) -> Dialogues | None:
    """Find prompts and responses in a dataset.

    Args:
        dataset: A ``datasets.Dataset``.
        source: Where it came from, for messages.
        prompt_column: The column of prompts; by default ``prompt``.
        response_column: The column of responses; by default ``response`` or ``completion``.

    Returns:
        Prompts and responses if there are such columns, else conversations if there is a
        column ``messages``, else None.

    Raises:
        DataError: If a column that was named does not exist, there are prompts without
            responses, or a value is missing.
    """
    names = dataset.column_names
    responses = [response_column] if response_column else [n for n in RESPONSES if n in names]
    prompt = prompt_column or PROMPT
    named = prompt_column is not None or response_column is not None
    if named or (prompt in names and responses):
        columns = (prompt, responses[0] if responses else RESPONSES[0])
        return Dialogues(dataset, choose_texts(dataset, source, columns), source)
    if prompt in names and not {MESSAGES, *TEXT_COLUMNS} & set(names):
        raise DataError(
            f"{source} has a column `{PROMPT}`, but none of responses: its columns are "
            f"{', '.join(f'`{name}`' for name in names)}. Name that of responses with "
            "`response_column`, or the text to learn with `text_columns`."
        )
    if MESSAGES not in names:
        return None
    refuse_missing(dataset, MESSAGES, source)
    return Dialogues(dataset, (MESSAGES,), source)


def causal_rows(dialogues: Dialogues, tokenizer: Any, max_length: int) -> Any:
    """Encode each response behind its prompt.

    Args:
        dialogues: What to encode.
        tokenizer: Of transformers. Its chat template is used if it has one; else the
            tokens are its BOS (if it adds one), prompt, response, EOS.
        max_length: Tokens to truncate to.

    Returns:
        A ``datasets.Dataset`` with ``input_ids`` and ``labels``, -100 in the prompt.

    Raises:
        DataError: If a row has no response, a prompt leaves no room for it, or the
            tokenizer lacks what is needed.
    """
    templated = _has_template(dialogues, tokenizer)
    encode = partial(
        _encode_behind,
        tokenizer=tokenizer,
        begins=[] if templated else beginning_of_text(tokenizer),
        ends=[] if templated else end_of_text(tokenizer),
        max_length=max_length,
        source=dialogues.source,
    )
    return _mapped(dialogues, tokenizer if templated else None, encode)


def seq2seq_rows(dialogues: Dialogues, tokenizer: Any, max_length: int) -> Any:
    """Encode prompts for an encoder, and responses for the decoder to learn.

    Args:
        dialogues: What to encode.
        tokenizer: Of transformers. Its chat template is used if it has one; else both
            texts get its special tokens, and the response ends with its EOS.
        max_length: Tokens to truncate prompt and response to.

    Returns:
        A ``datasets.Dataset`` with ``input_ids`` and ``labels``.

    Raises:
        DataError: If a row has no response, there is no room for text, or the tokenizer
            lacks what is needed.
    """
    templated = _has_template(dialogues, tokenizer)
    check_room(tokenizer, max_length)
    encode = partial(
        _encode_apart,
        tokenizer=tokenizer,
        ends=[] if templated else end_of_text(tokenizer),
        max_length=max_length,
        adds_special_tokens=not templated,
    )
    return _mapped(dialogues, tokenizer if templated else None, encode)


def _encode_behind(
    turns: list[Turn],
    *,
    tokenizer: Any,
    begins: list[int],
    ends: list[int],
    max_length: int,
    source: str,
) -> dict[str, list[list[int]]]:
    """Encode responses behind their prompts, each apart: no token spans both."""
    prompts = encode_bare(tokenizer, [turn.prompt for turn in turns])
    responses = encode_bare(tokenizer, [turn.response for turn in turns])
    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for turn, prompt, response in zip(turns, prompts, responses, strict=True):
        before, after = [*begins, *prompt], [*response, *ends]
        if len(before) >= max_length:
            raise DataError(
                f"The prompt in row {turn.row:,} of {source} has {len(before):,} tokens, but "
                f"`max_length` is {max_length:,}: no room is left for the response. Allow more, "
                "or take such rows out."
            )
        rows["input_ids"].append([*before, *after][:max_length])
        rows["labels"].append([*[NO_LABEL] * len(before), *after][:max_length])
    return rows


def _encode_apart(
    turns: list[Turn],
    *,
    tokenizer: Any,
    ends: list[int],
    max_length: int,
    adds_special_tokens: bool,
) -> dict[str, list[list[int]]]:
    """Encode prompts and responses; a response that was cut ends as others do."""
    options = {
        "add_special_tokens": adds_special_tokens,
        "truncation": True,
        "max_length": max_length,
    }
    prompts = tokenizer([turn.prompt for turn in turns], **options)["input_ids"]
    responses = tokenizer(text_target=[turn.response for turn in turns], **options)["input_ids"]
    for ids in responses:
        if ends and ids[-1:] != ends:
            ids[max_length - 1 :] = ends
    return {"input_ids": prompts, "labels": responses}


def _has_template(dialogues: Dialogues, tokenizer: Any) -> bool:
    """Tell whether a chat template is used; conversations need one."""
    has = bool(getattr(tokenizer, "chat_template", None))
    if not has and dialogues.columns == (MESSAGES,):
        raise DataError(
            f"{dialogues.source} holds conversations in column `{MESSAGES}`, but the tokenizer has "
            "no chat template to write them out with. Give a model that was made for chat, or "
            "columns of prompts and responses."
        )
    return has


def _mapped(dialogues: Dialogues, template: Any, encode: Any) -> Any:
    """Put rows of ids in the place of dialogues."""
    options = {
        "columns": dialogues.columns,
        "source": dialogues.source,
        "template": template,
        "encode": encode,
    }
    return dialogues.rows.map(
        _encode_rows,
        batched=True,
        with_indices=True,
        remove_columns=dialogues.rows.column_names,
        fn_kwargs=options,
        desc="Tokenizing",
    )


def _encode_rows(
    rows: Mapping[str, Any],
    numbers: list[int],
    *,
    columns: tuple[str, ...],
    source: str,
    template: Any,
    encode: Any,
) -> dict[str, list[list[int]]]:
    """Write out some rows as texts, and encode those."""
    turns: list[Turn] = []
    for number, *values in zip(numbers, *[rows[name] for name in columns], strict=True):
        turns.extend(_turns(_messages(values, number, source), template, number, source))
    encoded: dict[str, list[list[int]]] = encode(turns)
    return encoded


def _messages(values: list[Any], number: int, source: str) -> list[dict[str, Any]]:
    """Give a row as messages, at least one of which answers another."""
    if len(values) > 1:
        messages = [
            {"role": role, "content": value}
            for role, value in zip(("user", "assistant"), values, strict=True)
        ]
    elif isinstance(values[0], list) and all(
        isinstance(m, dict) and "role" in m for m in values[0]
    ):
        # Arrow gives every message the keys of all others.
        messages = [{k: v for k, v in m.items() if v is not None} for m in values[0]]
    else:
        raise DataError(
            f"Row {number:,} of {source} holds no conversation in column `{MESSAGES}`, expected a "
            "list of objects with `role` and `content`."
        )
    if not any(m["role"] == "assistant" and m.get("content") for m in messages[1:]):
        raise DataError(
            f"Row {number:,} of {source} has no response: nothing to learn. Take such rows out."
        )
    return messages


def _turns(
    messages: Sequence[dict[str, Any]], template: Any, number: int, source: str
) -> Iterator[Turn]:
    """Write out each response, and what comes before it."""
    if template is None:
        yield Turn(messages[0]["content"], messages[1]["content"], number)
        return
    for n, message in enumerate(messages):
        if n and message["role"] == "assistant":
            yield _rendered(messages[: n + 1], template, number, source)


def _rendered(messages: Sequence[dict[str, Any]], template: Any, number: int, source: str) -> Turn:
    """Write out a conversation by the chat template, and part it before the last message."""
    *before, _ = messages
    try:
        whole: str = template.apply_chat_template(list(messages), tokenize=False)
        # With what it writes to prompt a response, unless it does not begin a response so.
        for prompts in (True, False):
            prompt: str = template.apply_chat_template(
                before, tokenize=False, add_generation_prompt=prompts
            )
            if whole.startswith(prompt):
                return Turn(prompt, whole[len(prompt) :], number)
    except Exception as error:  # a template may raise whatever it likes
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(
            f"The chat template cannot write out row {number:,} of {source}: {reason}. See which "
            "roles it knows, and in what order."
        ) from error
    raise DataError(
        f"The chat template writes the prompt of row {number:,} of {source} in another way when a "
        "response follows: where the response begins cannot be told. Give columns of prompts and "
        "responses, and a tokenizer without a template."
    )
