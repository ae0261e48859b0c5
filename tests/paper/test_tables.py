"""The scripts as people run them: processes on real data, and on tiny files of every layout."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from paper._glue import TASKS, read_split
from paper._xnli import LANGUAGES
from tests.paper import layouts

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "paper"
COUNTED = ("CoLA", "MRPC", "SST-2", "WNLI")
SIZES = {
    "CoLA": [8_551, 1_043, 1_063],
    "MRPC": [3_668, 408, 1_725],
    "SST-2": [67_349, 872, 1_821],
    "WNLI": [635, 71, 146],
}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a script, from another folder than its own."""
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)


def cells_of(script: str, *options: object) -> list[dict[str, Any]]:
    """Run a script, and read the cells it prints."""
    done = run(PAPER / f"{script}.py", *options, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    cells: list[dict[str, Any]] = json.loads(done.stdout)
    return cells


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every data set in its layout, and tokenizers."""
    folder = tmp_path_factory.mktemp("data")
    layouts.write_glue(folder / "glue")
    layouts.write_xnli(folder, LANGUAGES)
    return layouts.write_tokenizers(folder)


@pytest.mark.data
def test_table_2_equals_the_print_wherever_the_data_allow(data_folder: Path) -> None:
    """Twelve cells at one decimal; every other one says why it could not be run."""
    cells = cells_of("table2", "--data", data_folder)

    run_here = [cell for cell in cells if cell["ours"] is not None]
    assert len(cells) == 50
    assert {(cell["model"], cell["task"]) for cell in run_here} == {
        (model, task)
        for model in ("bert-base-uncased", "roberta-base", "xlm-roberta-base")
        for task in COUNTED
    }
    assert [f"{c['ours']:.1f}" for c in run_here] == [f"{c['paper']:.1f}" for c in run_here]
    assert all(cell["reason"] for cell in cells if None in (cell["ours"], cell["paper"]))
    assert not any(cell["reason"] for cell in run_here)


@pytest.mark.data
def test_table_7_equals_the_print_wherever_the_data_allow(data_folder: Path) -> None:
    """The rows of three splits of four tasks."""
    cells = cells_of("table7", "--data", data_folder)

    for task, sizes in SIZES.items():
        found = [cell for cell in cells if cell["task"] == task]
        assert [cell["ours"] for cell in found] == [cell["paper"] for cell in found] == sizes
    assert all(cell["reason"] for cell in cells if cell["task"] not in SIZES)


@pytest.mark.data
def test_model_reductions_follow_from_those_of_the_embedding(data_folder: Path) -> None:
    """The share of N that E has, less what is kept of it: of two models with one tokenizer."""
    options = ("--data", data_folder, "--tasks", "WNLI")
    [whole] = cells_of("table3", *options, "--models", "BERT")
    embedding, distilled = cells_of("table6", *options, "--models", "DistilBERT")

    saved = (30_522 - 1_740) * 768
    assert embedding["ours"] == pytest.approx(100 * (1 - 1_740 / 30_522))
    assert whole["ours"] == pytest.approx(100 * saved / 109_483_778)
    assert distilled["ours"] == pytest.approx(100 * saved / 66_955_010)


def test_table_2_counts_what_a_tokenizer_gives(tiny: Path) -> None:
    """All nine tasks and their mean, against ids taken one text at a time."""
    cells = cells_of("table2", "--data", tiny, "--models", "bert")
    alone = cells_of("table2", "--data", tiny, "--models", "bert", "--splits", "train")

    path = tiny / "tokenizers" / "bert-base-uncased" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    for task in TASKS.values():
        seen = {
            split: {
                token_id
                for texts in read_split(tiny, task.name, split).texts
                for token_id in tokenizer.encode(*texts).ids
            }
            for split in task.splits
        }
        for found, ids in ((cells, set().union(*seen.values())), (alone, seen["train"])):
            [ours] = [cell["ours"] for cell in found if cell["task"] == task.name]
            assert ours == pytest.approx(100 * (1 - len(ids | {0}) / 30_522))
    for found in (cells, alone):
        *ours, mean = [cell["ours"] for cell in found]
        assert mean == pytest.approx(sum(ours) / 9)


def test_table_4_counts_each_language_and_all_together(tiny: Path) -> None:
    """Here all languages have the same texts, so the union is as large as each."""
    cells = cells_of("table4", "--data", tiny, "--models", "xlm-r")

    ours = {(cell["quantity"], cell["task"]): cell["ours"] for cell in cells}
    assert len(ours) == 2 * 16
    for quantity in ("embedding_reduction_percent", "model_reduction_percent"):
        each = {ours[quantity, name] for name in (*LANGUAGES, "all languages")}
        assert len(each) == 1
        assert 50 < each.pop() < 100


def test_table_5_needs_nothing() -> None:
    """Neither data nor weights nor a network, and both BERTs are shown."""
    cells = cells_of("table5", "--data", PAPER, "--models", "bert-base-cased,BERT")

    sizes = {(cell["model"], cell["quantity"]): cell for cell in cells}
    cased = sizes["bert-base-cased", "full_vocab_size"]
    assert cased["ours"] == cased["paper"] == 28_996
    uncased = sizes["bert-base-uncased", "model_parameters_millions"]
    assert uncased["ours"] == 109.483778
    assert uncased["reason"].endswith("(the print gives the cased model, the runs used this one)")


def test_table_1_shows_examples_of_each_kind(tiny: Path) -> None:
    """Kinds make up all that was not seen."""
    options = ("--data", tiny, "--models", "roberta-base", "--tasks", "WNLI")
    cells = {cell["quantity"]: cell for cell in cells_of("table1", *options)}
    [used] = cells_of("table2", *options)

    assert set(cells) == {"special", "byte", "unreachable", "plain"}
    unused = 50_265 * used["ours"] / 100
    assert sum(cell["ours"] for cell in cells.values()) == pytest.approx(unused)
    assert cells["byte"]["detail"].startswith("`0x")


def test_figure_2_draws_a_panel_for_each_that_was_run(tiny: Path, tmp_path: Path) -> None:
    """Constants of both laws as cells, and the figure as a file."""
    path = tmp_path / "growth.svg"

    cells = cells_of(
        "figure2", "--data", tiny, "--models", "BERT", "--tasks", "RTE,MRPC", "--out", path
    )

    ours = {(cell["task"], cell["quantity"]): cell["ours"] for cell in cells}
    assert ours["RTE", "unique_tokens"] < ours["RTE", "total_tokens"]
    assert None not in ours.values()
    drawn = path.read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert drawn.count("<!-- bert-base-uncased,") == 2


def test_a_script_prints_its_table(tiny: Path) -> None:
    """Without ``--json``, and as a module."""
    done = run("-m", "paper.table2", "--data", tiny, "--models", "BERT,XLM-V", "--tasks", "WNLI")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "Table 2: reduction of the embedding parameters over GLUE, in per cent"
    assert any(line.split()[:2] == ["bert-base-uncased", "WNLI"] for line in lines)
    assert "  embedding reduction, %: xlm-v-base × WNLI" in lines
    assert lines[-1].startswith("Table 2: 1 of 2 cells run, 1 of them compared with the print, ")


def test_all_of_them_write_their_cells(tiny: Path, tmp_path: Path) -> None:
    """A CSV file of each, which does not tell where the data lie."""
    done = run("-m", "paper", "table7", "table4", "--data", tiny, "--out", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table4.csv", "table7.csv"]
    with (tmp_path / "table4.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 96
    assert "DIR/tokenizers" in next(row["reason"] for row in rows if not row["ours"])
    assert not any(str(tiny) in row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["paper/table2.py", "--tasks", "SNLI"], "table2 has no task `SNLI`, expected one of CoLA"),
        (["paper/table2.py", "--data", "nowhere"], "There is no folder nowhere. Name the one with"),
        (["paper/table2.py", "--out", "nowhere/x.csv"], "There is no folder nowhere to write"),
        (["-m", "paper", "table9"], "There is no `table9` without training, expected one of table"),
    ],
)
def test_scripts_refuse_in_one_line(command: list[str], message: str) -> None:
    """What is, what was expected; no traceback."""
    done = run(*command)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"subvocab: {message}")
    assert len(done.stderr.splitlines()) == 1
