"""`subvocab finetune` on language models: what is learned, how it is judged, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast
from typer.testing import CliRunner

from subvocab.cli.app import app
from tests import tiny_tokenizers
from tests.models import HEADS, tiny_model

TRAIN = [("the cat sat on", "the mat"), ("the dog", "didn't"), ("12 cups,", "345 grams")] * 4
EVAL = [("the cat", "sat on the dog"), ("a café in", "São Paulo: 7 cups")]
"""With letters and words that the training data lacks."""
TEMPLATE = "{% for m in messages %}{{ m.role }}:{{ m.content }}<|endoftext|>{% endfor %}"

pytestmark = pytest.mark.usefixtures("libraries_as_before")

LossesOf = Callable[[Any, PreTrainedTokenizerFast], torch.Tensor]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands name files by what they are called."""
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True)
class Case:
    """A model and data for a task, and the loss of each token of the evaluation data.

    The loss is computed from the logits of the whole model, one row at a time.
    """

    task: str
    family: str
    tokenizer: Callable[[], Any]
    losses: LossesOf
    changes: dict[str, Any]
    data: str = "pairs"

    @property
    def head(self) -> str:
        """Name the kind of model."""
        return "seq2seq-lm" if self.task == "seq2seq" else self.task


def _foretold(logits: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """Give the loss of every label, by its logits."""
    log_likelihood = logits.double().log_softmax(-1)
    return -log_likelihood.gather(1, torch.tensor(labels)[:, None])[:, 0]


def _losses_of_responses(model: Any, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Compute the loss of a causal model on responses and their EOS, behind prompts."""
    losses = []
    for prompt, response in EVAL:
        before, after = tokenizer(prompt)["input_ids"], tokenizer(response)["input_ids"]
        ids = [*before, *after, tokenizer.eos_token_id]
        logits = model(torch.tensor([ids])).logits[0, :-1]
        losses.append(_foretold(logits, ids[1:])[len(before) - 1 :])
    return torch.cat(losses)


def _losses_of_running_text(model: Any, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Compute the loss of a causal model on blocks of ten tokens."""
    text = "".join(f"{prompt}\n{response}\n" for prompt, response in EVAL)
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    blocks = [ids[n : n + 10] for n in range(0, len(ids), 10)]
    return torch.cat(
        [_foretold(model(torch.tensor([row])).logits[0, :-1], row[1:]) for row in blocks]
    )


def _losses_of_masked(model: Any, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Compute the loss of a masked model where transformers' collator masks."""
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4, seed=42)
    losses = []
    for row in [text for pair in EVAL for text in pair]:
        batch = collator([{"input_ids": tokenizer(row)["input_ids"]}])
        masked = batch["labels"][0] != -100
        logits = model(batch["input_ids"]).logits[0, masked]
        losses.append(_foretold(logits, batch["labels"][0, masked].tolist()))
    return torch.cat(losses)


def _losses_of_decoder(model: Any, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Compute the loss of a decoder on responses."""
    losses = []
    for prompt, response in EVAL:
        labels = tokenizer(response)["input_ids"]
        seen = [model.config.decoder_start_token_id, *labels[:-1]]
        encoded = torch.tensor([tokenizer(prompt)["input_ids"]])
        output = model(encoded, decoder_input_ids=torch.tensor([seen]))
        losses.append(_foretold(output.logits[0], labels))
    return torch.cat(losses)


CAUSAL: dict[str, Any] = {"vocab_size": 350, "eos_token_id": 0, "pad_token_id": None}
CASES = [
    Case("causal-lm", "llama", tiny_tokenizers.byte_level, _losses_of_responses, CAUSAL),
    Case("causal-lm", "gpt2", tiny_tokenizers.byte_level, _losses_of_running_text, CAUSAL, "text"),
    Case("masked-lm", "bert", tiny_tokenizers.wordpiece, _losses_of_masked, {}, "rows"),
    Case("masked-lm", "modernbert", tiny_tokenizers.wordpiece, _losses_of_masked, {}, "rows"),
    Case("seq2seq", "t5", tiny_tokenizers.unigram, _losses_of_decoder, {"pad_token_id": 1}),
    Case("seq2seq", "bart", tiny_tokenizers.unigram, _losses_of_decoder, {}),
]
EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.task}-{case.family}")


def _write(case: Case) -> dict[str, str]:
    """Write a model and data, and give the options to train on them."""
    tiny_model(case.family, case.head, **case.changes).save_pretrained("base")
    tiny_tokenizers.as_transformers(case.tokenizer()).save_pretrained("base")
    end = "txt" if case.data == "text" else "jsonl"
    for name, pairs in (("train", TRAIN), ("eval", EVAL)):
        if case.data == "text":
            lines = [text for pair in pairs for text in pair]
        elif case.data == "rows":
            lines = [json.dumps({"text": text}) for pair in pairs for text in pair]
        else:
            keys = ("prompt", "response")
            lines = [json.dumps(dict(zip(keys, pair, strict=True))) for pair in pairs]
        Path(f"{name}.{end}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    length = {"max-length": "10"} if case.data == "text" else {}
    masked = {"mask-probability": "0.4"} if case.task == "masked-lm" else {}
    options = {"task": case.task, "train": f"train.{end}", "eval": f"eval.{end}"}
    usual = {"model": "base", "epochs": "2", "batch-size": "3", "learning-rate": "0.01"}
    return {**options, **usual, "out": "out", **length, **masked}


def _run(options: dict[str, str], *flags: str) -> tuple[int, str, str]:
    named = [part for name, value in options.items() for part in (f"--{name}", value)]
    result = CliRunner().invoke(app, ["finetune", *named, *flags])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def _figures(options: dict[str, str], *flags: str) -> dict[str, Any]:
    status, printed, said = _run(options, "--json", *flags)
    assert (status, said) == (0, "")
    figures: dict[str, Any] = json.loads(printed)
    return figures


def _losses(case: Case, folder: str) -> torch.Tensor:
    """Load a whole model and its tokenizer as anybody would, and compute its losses."""
    model = HEADS[case.head].from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        return case.losses(model, tokenizer)


@EACH
@pytest.mark.parametrize("flags", [(), ("--full",)], ids=["partial", "full"])
def test_perplexity_is_that_of_the_whole_model(case: Case, flags: tuple[str, ...]) -> None:
    """Before and after, over all tokens alike, of the whole vocabulary."""
    metrics = _figures(_write(case), *flags)["metrics"]

    for when, folder in (("before", "base"), ("after", "out")):
        losses = _losses(case, folder)
        assert metrics[f"loss_{when}"] == pytest.approx(float(losses.mean()), rel=1e-5)
        assert metrics[f"perplexity_{when}"] == pytest.approx(float(losses.mean().exp()), rel=1e-4)
    assert metrics["loss_after"] < metrics["loss_before"]


def test_figures_tell_what_was_saved() -> None:
    """Under the names that a classifier's have, but for the scores."""
    figures = _figures(_write(CASES[0]))

    assert figures["metrics"].keys() == {
        "loss_before",
        "loss_after",
        "perplexity_before",
        "perplexity_after",
    }
    assert figures["seconds"].keys() == {"tokenize", "scan", "load", "train", "evaluate", "save"}
    assert figures["unique_tokens"] <= figures["partial_vocab_size"]
    assert figures["partial_vocab_size"] < figures["full_vocab_size"]
    assert 0 < figures["model_reduction"] < figures["embedding_reduction"] < 1
    assert len(figures["losses"]) >= 2


def test_heads_are_trained_as_told() -> None:
    """Each kind ends elsewhere; a head of its own needs rows of its own."""
    options = _write(CASES[0])
    ways: list[tuple[dict[str, str], tuple[str, ...]]] = [
        ({}, ()),
        ({"head": "exact"}, ()),
        ({}, ("--no-rest-shift",)),
        ({"head": "restricted"}, ()),
        ({"head": "whole"}, ()),
    ]
    ends = [
        _figures({**options, **way, "out": f"out{n}"}, *flags)
        for n, (way, flags) in enumerate(ways)
    ]

    losses = [figures["metrics"]["loss_after"] for figures in ends]
    assert losses[0] == losses[1]
    assert len(set(losses)) == len(ways) - 1
    parameters = [figures["model_parameters"] for figures in ends]
    assert parameters[0] == parameters[2] + 32  # the shift
    assert parameters[4] > parameters[2] == parameters[3]


def test_conversations_are_written_out_by_the_template() -> None:
    """Each response is a row; its loss is that of the text that the template makes."""
    case = CASES[0]
    options = _write(case)
    tokenizer = PreTrainedTokenizerFast.from_pretrained("base")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained("base")
    talk = [
        {"role": role, "content": text}
        for pair in EVAL
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    for name in ("train", "eval"):
        Path(f"{name}.jsonl").write_text(json.dumps({"messages": talk}) + "\n", encoding="utf-8")

    figures = _figures(options)

    def losses(model: Any, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
        """Compute the loss behind both prompts, in the end of the conversation."""
        text, found = "", []
        for message in talk:
            before = len(tokenizer(text)["input_ids"])
            text += f"{message['role']}:{message['content']}<|endoftext|>"
            ids = tokenizer(text)["input_ids"]
            if message["role"] == "assistant":
                logits = model(torch.tensor([ids])).logits[0, :-1]
                found.append(_foretold(logits, ids[1:])[before - 1 :])
        return torch.cat(found)

    again = Case(case.task, case.family, case.tokenizer, losses, case.changes)
    expected = float(_losses(again, "out").mean())
    assert figures["metrics"]["loss_after"] == pytest.approx(expected, rel=1e-5)


def test_tokenizer_is_saved_as_it_was() -> None:
    """One that names no padding token needs none, and gets none."""
    _figures(_write(CASES[0]))

    assert PreTrainedTokenizerFast.from_pretrained("base").pad_token is None
    assert PreTrainedTokenizerFast.from_pretrained("out").pad_token is None


def test_lone_tokenizer_takes_the_end_of_text_from_the_model() -> None:
    """A `tokenizer.json` names no roles."""
    options = _write(CASES[1])
    CASES[1].tokenizer().save("lone.json")

    named = _figures({**options, "tokenizer": "lone.json"})

    assert named["losses"] == _figures({**options, "out": "other"})["losses"]


def test_table_names_the_perplexities() -> None:
    """Without --json a person reads it."""
    status, printed, said = _run(_write(CASES[0]))

    assert (status, said) == (0, "")
    assert "perplexity before" in printed
    assert "perplexity after" in printed


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"task": "clm"}, (), "There is no task `clm`, expected one of classification, causal-lm,"),
        ({"task": "classification"}, (), "No column of classes is named, which the task `classif"),
        ({"label-column": "x"}, (), "`--label-column` is given, but the task is `causal-lm`, "),
        ({"mask-probability": "1"}, (), "`--mask-probability` is given, but the task is `causal-"),
        (
            {"task": "classification", "label-column": "response", "head": "exact"},
            (),
            "`--head` is given, but the task is `classification`, expected causal-lm or masked-lm ",
        ),
        (
            {"task": "seq2seq", "text-column": "prompt"},
            (),
            "`--text-column` is given, but the task is `seq2seq`, expected classification or caus",
        ),
        (
            {"text-column": "prompt", "response-column": "response"},
            (),
            "Columns of running text and of prompts or responses are both named, expected one of ",
        ),
        ({"head": "best"}, (), "There is no head `best`, expected exact, restricted, whole."),
        ({"head": "whole"}, ("--full",), "`--head` and `--full` are both given, but with the whol"),
        (
            {"head": "restricted"},
            ("--no-rest-shift",),
            "`--no-rest-shift` is given, but the head is `restricted`, expected `exact`: ",
        ),
        ({"task": "masked-lm"}, (), "Neither the tokenizer base nor the model in base names a pad"),
        ({"train": "no.txt"}, (), "There is no file or folder no.txt."),
        ({"train": "empty.txt"}, (), "empty.txt has no rows, expected texts."),
        ({"train": "number.jsonl"}, (), "`number.jsonl` has no column of text"),
        (
            {"text-column": "prompt"},
            ("--text-column", "response"),
            "The text columns `prompt` and `response` were named, expected one: running text ",
        ),
        ({"text-column": "none"}, (), "`train.jsonl` has no column `none`. Its columns: `prompt` "),
        ({"prompt-column": "none"}, (), "`train.jsonl` has no column `none`. Its columns: `promp"),
        ({"task": "seq2seq", "train": "empty.txt"}, (), "empty.txt has no rows, expected prompts "),
        (
            {"task": "seq2seq", "train": "number.jsonl"},
            (),
            "number.jsonl has no columns of prompts and responses: its columns are `number`. Name ",
        ),
        (
            {"eval": "running.txt"},
            (),
            "train.jsonl holds prompts and responses, but running.txt run",
        ),
        (
            {"train": "blank.txt", "eval": "blank.txt"},
            (),
            "Every text is empty, expected words in ",
        ),
        ({"max-length": "3"}, (), "The prompt in row 0 of train.jsonl has 5 tokens, but `max_leng"),
    ],
)
def test_what_cannot_be_trained_ends_with_2_and_one_message(
    changes: dict[str, str], flags: tuple[str, ...], message: str
) -> None:
    """It says what is wrong before anything is trained, and nothing is written."""
    options = _write(CASES[0])
    Path("empty.txt").touch()
    Path("blank.txt").write_text(" \n\n")
    Path("running.txt").write_text("the cat sat on the mat")
    Path("number.jsonl").write_text('{"number": 1}\n')
    if changes.get("task") == "seq2seq":
        tiny_model("t5", "seq2seq-lm", vocab_size=350).save_pretrained("base")

    status, printed, said = _run({**options, **changes}, *flags)

    assert (status, printed) == (2, "")
    assert said.startswith(f"subvocab: {message}")
    assert said.count("\n") == 1
    assert not Path("out").exists()


def test_masks_need_a_token_that_masks() -> None:
    """The message says what else can be trained."""
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.unigram())
    options = _write(CASES[2])
    tokenizer.save_pretrained("base")

    status, _, said = _run(options)

    assert status == 2
    assert said.startswith("subvocab: The tokenizer names no token that masks another, which a ")


@pytest.mark.parametrize(
    ("family", "head", "task", "known"),
    [
        ("bert", "masked-lm", "causal-lm", "masked-lm"),
        ("gpt2", "causal-lm", "masked-lm", "causal-lm"),
        ("t5", "seq2seq-lm", "causal-lm", "seq2seq"),
        ("mpnet", "encoder", "seq2seq", "masked-lm"),
    ],
)
def test_models_of_another_kind_are_refused(family: str, head: str, task: str, known: str) -> None:
    """An encoder sees the token that a causal model should foretell: it would learn to copy."""
    tiny_model(family, head, eos_token_id=0, pad_token_id=1).save_pretrained("base")
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.unigram())
    tokenizer.save_pretrained("base")
    Path("a.txt").write_text("the cat\n")
    options = {"task": task, "model": "base", "train": "a.txt", "eval": "a.txt", "out": "out"}

    status, printed, said = _run(options)

    assert (status, printed) == (2, "")
    assert said == (
        f"subvocab: The model in base is of type `{family}`, which cannot learn the task `{task}`, "
        f"but {known}. Choose another task, or another model.\n"
    )
