"""Answers to SQuAD with E and with E′: equal, and the tests see it where they are not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import subvocab as sv
from paper import _answers, _jobs, _squad, _windows
from paper._answers import compare, longest_window
from paper._cells import Printed
from paper._inference import Options, load_partial
from paper._squad import Question, exact_match, f1, normalized, read_questions, score
from paper.squad_inference import Runner, main
from subvocab.cli.console import exits_cleanly
from subvocab.errors import CheckpointError, DataError
from tests import tiny_tokenizers
from tests.models import FULL_VOCAB_SIZE, tiny_model

ROOT = Path(__file__).parents[2]
MILL = (
    "The mill at the ford was built in 1804 by Anne Ward, who ground wheat for the whole valley. "
    "A flood carried off its wheel in the spring of 1871, and nobody has mended it since."
)
HARBOUR = "The harbour freezes in January. Boats are drawn up on the sand until the ice has gone."
ASKED = [
    (MILL, "Who built the mill?", ["Anne Ward", "Ward"]),
    (MILL, "What carried off the wheel?", ["A flood", "flood"]),
    (HARBOUR, " When does it freeze?", ["January", "in January"]),
]
OPTIONS = Options(max_length=60, doc_stride=8, batch_size=4)


def squad(asked: list[tuple[str, str, list[str]]]) -> dict[str, Any]:
    """Lay questions out as SQuAD does."""
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": str(number),
                    "question": question,
                    "answers": [{"text": t, "answer_start": context.find(t)} for t in answers],
                }
            ],
        }
        for number, (context, question, answers) in enumerate(asked)
    ]
    return {"version": "1.1", "data": [{"title": "Places", "paragraphs": paragraphs}]}


def nudged(model: _jobs.Model, vocabulary: sv.PartialVocabulary) -> Any:
    """Load a model with E′, of which one row is not what it should be."""
    loaded: Any = load_partial(model, vocabulary)
    with torch.no_grad():
        loaded.get_input_embeddings().weight[-1, 0] += 0.1
    return loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Save a tiny model that answers questions, and some questions."""
    tiny_model("bert", "question").save_pretrained(tmp_path / "tiny")
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece())
    tokenizer.save_pretrained(tmp_path / "tiny")
    (tmp_path / "dev.json").write_text(json.dumps(squad(ASKED)), encoding="utf-8")
    return tmp_path


@pytest.fixture
def model(folder: Path) -> _jobs.Model:
    """Find the tiny model."""
    return _jobs.find("tiny", str(folder / "tiny"))


@pytest.fixture
def questions(folder: Path) -> list[Question]:
    """Read the questions."""
    return read_questions(folder / "dev.json")


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script on the tiny model, in the folder."""
    command = [sys.executable, str(ROOT / "paper" / "squad_inference.py"), "--file", "dev.json"]
    command += ["--models", "tiny", "--max-length", "60", "--doc-stride", "8", "--device", "cpu"]
    return subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, check=False
    )


def test_script_prints_cells(folder: Path) -> None:
    """Each with its figure, and with the reason why there is no other to compare it with."""
    done = run(folder, "--json", "--out", "cells.csv")

    assert (done.returncode, done.stderr) == (0, "")
    cells = json.loads(done.stdout)
    ours = {cell["quantity"]: cell["ours"] for cell in cells}
    kept = int(re.search(r"(\d+) of 300 rows kept", cells[0]["detail"]).group(1))  # type: ignore[union-attr]
    assert list(ours) == list(_answers.QUANTITIES)
    assert 5 < kept < 150
    assert ours["embedding_reduction_percent"] == pytest.approx(100 * (1 - kept / FULL_VOCAB_SIZE))
    assert 0 < ours["model_reduction_percent"] < ours["embedding_reduction_percent"]
    assert 0 < ours["weights_saved_percent"] < ours["embedding_reduction_percent"]
    assert all("has not been transcribed" in cell["reason"] for cell in cells)
    assert "all logits, all answers, F1 and exact match equal, bit for bit" in cells[0]["detail"]
    assert len((folder / "cells.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(cells)


def test_main_shows_both_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory, scores, and whether they are equal."""
    main(
        file=folder / "dev.json", models=[str(folder / "tiny")], rows=1, max_length=60, doc_stride=8
    )

    shown = capsys.readouterr().out
    for line in ("all logits: equal, bit for bit", "all answers: equal, bit for bit"):
        assert line in shown
    assert re.search(r"embedding parameters +│ +9,600 │ +\d,\d+ │", shown)


def test_main_tells_of_a_file_that_is_not_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message, before any model is loaded."""
    path = folder / "absent.json"

    with pytest.raises(typer.Exit) as end:
        exits_cleanly(main)(file=path, models=["nowhere"])

    assert end.value.exit_code == 2
    assert capsys.readouterr() == ("", f"subvocab: {path}: No such file or directory.\n")


def test_main_exits_with_one_where_anything_differs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a script that calls it notices."""
    monkeypatch.setattr(_answers, "load_partial", nudged)

    with pytest.raises(typer.Exit) as end:
        main(file=folder / "dev.json", models=[str(folder / "tiny")], max_length=60, doc_stride=8)

    assert end.value.exit_code == 1


def test_compare_sees_a_row_that_is_wrong(
    model: _jobs.Model, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of equality that could not fail would be none."""
    assert all(compare(model, questions, OPTIONS).equal.values())
    monkeypatch.setattr(_answers, "load_partial", nudged)

    compared = compare(model, questions, OPTIONS)

    assert not compared.equal["all logits"]
    assert "NOT EQUAL: all logits" in compared.words


def test_compare_refuses_a_model_without_a_trained_head(
    tmp_path: Path, questions: list[Question]
) -> None:
    """Its answers would be random; a cell tells the reason."""
    tiny_model("bert", "encoder").save_pretrained(tmp_path / "base")
    tokenizer = tiny_tokenizers.as_transformers(tiny_tokenizers.wordpiece())
    tokenizer.save_pretrained(tmp_path / "base")
    model = _jobs.find("base", str(tmp_path / "base"))
    message = (
        f"The checkpoint in {tmp_path / 'base'} has no qa_outputs.bias, qa_outputs.weight: its "
        "answers would be random. Give a model that was fine-tuned to answer questions."
    )

    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        compare(model, questions, OPTIONS)


def test_longest_window_is_no_longer_than_the_model(model: _jobs.Model) -> None:
    """It has 64 positions."""
    assert longest_window(model, Options()) == 64
    assert longest_window(model, OPTIONS) == 60


def test_runner_runs_a_model_once(folder: Path) -> None:
    """All cells of a model come from the same two runs."""
    runner = Runner({"tiny": str(folder / "tiny")}, folder / "dev.json", 1, OPTIONS)
    for quantity in _answers.QUANTITIES:
        runner.measure(Printed("tiny", "SQuAD v1.1", quantity))
    (first,) = runner.found.values()

    runner.measure(Printed("tiny", "SQuAD v1.1", "f1"))

    assert list(runner.found.values()) == [first]


def test_cut_covers_every_paragraph(model: _jobs.Model, questions: list[Question]) -> None:
    """Each token of it lies in a window, and windows overlap by the stride."""
    windows = _windows.cut(questions, model.tokenizer, max_length=40, stride=8)

    for number, question in enumerate(questions):
        own = [window for window in windows if window.question == number]
        spans = [
            [span for span, inside in zip(w.spans, w.context, strict=True) if inside] for w in own
        ]
        whole = model.tokenizer(
            question.context, add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
        assert all(len(window.input_ids) <= 40 for window in own)
        assert sorted({span for window in spans for span in window}) == whole
        assert all(a[-8:] == b[:8] for a, b in pairwise(spans))
    assert len(windows) > len(questions)


def test_cut_refuses_a_question_that_leaves_no_room(
    model: _jobs.Model, questions: list[Question]
) -> None:
    """The question is never cut."""
    text = questions[1].text
    length = len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    message = (
        f"`{text}` has {length} tokens: with 3 special tokens and a stride of 8, a window of "
        f"{length + 11} has no room for the paragraph. Give a larger --max-length or a smaller "
        "--doc-stride."
    )

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        _windows.cut(questions[1:2], model.tokenizer, max_length=length + 11, stride=8)


@pytest.mark.parametrize("seed", range(5))
def test_best_answers_takes_the_span_that_scores_most(seed: int) -> None:
    """As trying every span of every window does."""
    random = np.random.default_rng(seed)
    context = "".join(chr(97 + i % 26) for i in range(120))
    windows = []
    for start in (0, 30):
        spans = [(0, 0), *((start + i, start + i + 1) for i in range(60)), (0, 0)]
        inside = np.array([False, *[True] * 60, False])
        windows.append(_windows.Window(0, list(range(62)), None, spans, inside))
    logits = [(random.normal(size=64), random.normal(size=64)) for _ in windows]
    tried = {
        (first[i] + last[j], window.spans[i][0], window.spans[j][1])
        for window, (first, last) in zip(windows, logits, strict=True)
        for i in range(1, 61)
        for j in range(i, min(i + _windows.LONGEST_ANSWER, 61))
    }
    _, begin, end = max(tried)

    answers = _windows.best_answers([Question("?", context, ("a",))], windows, logits)

    assert answers == [context[begin:end]]


@pytest.mark.parametrize(
    ("answer", "truth", "exact", "overlap"),
    [
        ("Anne Ward", "anne ward!", 1.0, 1.0),
        ("the  flood.", "A flood", 1.0, 1.0),  # articles, punctuation, blanks
        ("in the spring of 1871", "1871", 0.0, 2 * 1 / (4 + 1)),
        ("ward ward", "Anne Ward", 0.0, 2 * 1 / (2 + 2)),  # each word counts once
        ("theatre", "atre", 0.0, 0.0),  # an article is a word, not a part of one
        ("the", "an", 1.0, 0.0),  # nothing is left of either
        ("January", "June", 0.0, 0.0),
    ],
)
def test_measures_are_those_of_squad(answer: str, truth: str, exact: float, overlap: float) -> None:
    """By hand, from the definition."""
    assert exact_match(answer, truth) == exact
    assert f1(answer, truth) == pytest.approx(overlap)


def test_normalized_keeps_what_counts() -> None:
    """Punctuation goes without a blank in its place."""
    assert normalized("The Norman's well-known keep, (1066)") == [
        "normans",
        "wellknown",
        "keep",
        "1066",
    ]


def test_score_takes_the_best_true_answer(questions: list[Question]) -> None:
    """Per cent over all questions."""
    answers = ["Ward", "a dry summer", "January"]

    assert score(exact_match, answers, questions) == pytest.approx(200 / 3)


def test_read_questions_strips_blanks(questions: list[Question]) -> None:
    """Everything else is as the file has it."""
    assert [question.text for question in questions][2] == "When does it freeze?"
    assert questions[0] == Question("Who built the mill?", MILL, ("Anne Ward", "Ward"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: "{", " is not laid out as SQuAD v1.1 (JSONDecodeError: "),
        (lambda _: "{}", " is not laid out as SQuAD v1.1 (KeyError: 'data'): expected JSON"),
        (lambda _: '{"data": []}', " has no questions, expected those of SQuAD v1.1."),
    ],
)
def test_read_questions_refuses_other_layouts(
    folder: Path, spoil: Callable[[str], str], message: str
) -> None:
    """The message names the file."""
    path = folder / "dev.json"
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")

    with pytest.raises(DataError, match=f"^{re.escape(str(path) + message)}"):
        read_questions(path)


def test_read_questions_refuses_questions_without_answers(folder: Path) -> None:
    """They are of the second version."""
    path = folder / "dev.json"
    path.write_text(json.dumps(squad([(MILL, "Who mended it?", [])])), encoding="utf-8")
    message = (
        "`Who mended it?` has no answer, as in SQuAD v2; expected SQuAD v1.1, where every question "
        "has one. Give dev-v1.1.json."
    )

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        _squad.read_questions(path)
