"""The scripts as people run them: processes on real data, and on tiny files of every layout."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from paper import figure2
from paper.__main__ import main
from paper._cells import Cell, fill
from paper._command import choose_cells
from paper._glue import TASKS, read_split
from paper._usage import Request
from paper._xnli import LANGUAGES
from subvocab.errors import DataError
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


def cells_of(name: str, data: Path, models: str, tasks: str = "", **options: bool) -> list[Cell]:
    """Run cells of a table in this process, as its script would: that saves an import of torch."""
    request = Request(data, **options)
    printed = choose_cells(name, [models], [tasks] if tasks else None)
    return fill(printed, import_module(f"paper.{name}").measure_of(request))


def printed_cells(script: str, *options: object) -> list[dict[str, Any]]:
    """Run a script as a process, and read the cells it prints."""
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
    cells = printed_cells("table2", "--data", data_folder)

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
    cells = printed_cells("table7", "--data", data_folder)

    for task, sizes in SIZES.items():
        found = [cell for cell in cells if cell["task"] == task]
        assert [cell["ours"] for cell in found] == [cell["paper"] for cell in found] == sizes
    assert all(cell["reason"] for cell in cells if cell["task"] not in SIZES)


@pytest.mark.data
def test_model_reductions_follow_from_those_of_the_embedding(data_folder: Path) -> None:
    """The share of N that E has, less what is kept of it: of two models with one tokenizer."""
    [whole] = cells_of("table3", data_folder, "BERT", "WNLI")
    embedding, distilled = cells_of("table6", data_folder, "DistilBERT", "WNLI")

    saved = (30_522 - 1_740) * 768
    assert embedding.ours == pytest.approx(100 * (1 - 1_740 / 30_522))
    assert whole.ours == pytest.approx(100 * saved / 109_483_778)
    assert distilled.ours == pytest.approx(100 * saved / 66_955_010)


def test_table_2_counts_what_a_tokenizer_gives(tiny: Path) -> None:
    """All nine tasks and their mean, against ids taken one text at a time."""
    cells = cells_of("table2", tiny, "bert")
    alone = cells_of("table2", tiny, "bert", train_only=True)

    path = tiny / "tokenizers" / "bert-base-uncased" / "tokenizer.json"
    encode: Any = Tokenizer.from_file(str(path)).encode  # typed for single texts only
    for task in TASKS.values():
        seen = {
            split: {
                token_id
                for texts in read_split(tiny, task.name, split).texts
                for token_id in encode(*texts).ids
            }
            for split in task.splits
        }
        for found, ids in ((cells, set().union(*seen.values())), (alone, seen["train"])):
            [ours] = [cell.ours for cell in found if cell.task == task.name]
            assert ours == pytest.approx(100 * (1 - len(ids | {0}) / 30_522))
    for found in (cells, alone):
        *each, mean = [cell.ours or 0 for cell in found]
        assert mean == pytest.approx(sum(each) / 9)


def test_table_4_counts_each_language_and_all_together(tiny: Path) -> None:
    """Here all languages have the same texts, so the union is as large as each."""
    cells = cells_of("table4", tiny, "xlm-r")

    ours = {(cell.quantity, cell.task): cell.ours or 0 for cell in cells}
    assert len(ours) == 2 * 16
    for quantity in ("embedding_reduction_percent", "model_reduction_percent"):
        each = {ours[quantity, name] for name in (*LANGUAGES, "all languages")}
        assert len(each) == 1
        assert 50 < each.pop() < 100


def test_table_5_needs_nothing() -> None:
    """Neither data nor weights nor a network, and both BERTs are shown."""
    cells = cells_of("table5", PAPER, "bert-base-cased,BERT")

    sizes = {(cell.model, cell.quantity): cell for cell in cells}
    cased = sizes["bert-base-cased", "full_vocab_size"]
    assert cased.ours == cased.paper == 28_996
    uncased = sizes["bert-base-uncased", "model_parameters_millions"]
    assert uncased.ours == 109.483778
    assert uncased.reason.endswith("(the print gives the cased model, the runs used this one)")


def test_table_1_shows_examples_of_each_kind(tiny: Path) -> None:
    """Kinds make up all that was not seen."""
    cells = {cell.quantity: cell for cell in cells_of("table1", tiny, "roberta-base", "WNLI")}
    [reduction] = cells_of("table2", tiny, "roberta-base", "WNLI")

    assert set(cells) == {"special", "byte", "unreachable", "plain"}
    unused = 50_265 * (reduction.ours or 0) / 100
    assert sum(cell.ours or 0 for cell in cells.values()) == pytest.approx(unused)
    assert cells["byte"].detail.startswith("`0x")


def test_figure_2_draws_a_panel_for_each_that_was_run(tiny: Path, tmp_path: Path) -> None:
    """Constants of both laws as cells, and the figure as a file."""
    path = tmp_path / "growth.svg"

    cells = cells_of("figure2", tiny, "BERT", "RTE,MRPC")
    figure2.draw(path, cells, Request(tiny))

    ours = {(cell.task, cell.quantity): cell.ours or 0 for cell in cells}
    assert 0 < ours["RTE", "unique_tokens"] < ours["RTE", "total_tokens"]
    assert ours["RTE", "saturating_exponent"] > 0
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


def test_figure_2_is_not_drawn_without_a_curve(tiny: Path, tmp_path: Path) -> None:
    """Nor under a name that tells no format of a figure."""
    cells = cells_of("figure2", tiny, "XLM-V", "RTE")

    with pytest.raises(DataError) as nothing:
        figure2.draw(tmp_path / "growth.svg", cells, Request(tiny))
    with pytest.raises(DataError) as unknown:
        figure2.draw(tmp_path / "growth.csv", cells, Request(tiny))

    path = tmp_path / "growth.svg"
    assert str(nothing.value) == f"No curve could be measured, so {path} was not written."
    assert str(unknown.value).endswith(
        "growth.csv ends in none of .svg, .png, .pdf. Name a figure that does."
    )


def test_all_of_them_write_their_cells(tiny: Path, tmp_path: Path) -> None:
    """A CSV file of each, which does not tell where the data lie."""
    main(["table7", "table4"], data=tiny, out=tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["table4.csv", "table7.csv"]
    with (tmp_path / "table4.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 96
    assert "DIR/tokenizers" in next(row["reason"] for row in rows if not row["ours"])
    assert not any(str(tiny) in row["reason"] for row in rows)


def test_main_lists_what_there_is(tiny: Path, tmp_path: Path) -> None:
    """What trains has commands of its own."""
    with pytest.raises(DataError) as caught:
        main(["table9"], data=tiny, out=tmp_path)

    assert str(caught.value) == (
        "There is no `table9` without training, expected one of table1, table2, table3, table4, "
        "table5, table6, table7, figure2."
    )


def test_a_script_refuses_in_one_line() -> None:
    """What is, what was expected; no traceback."""
    done = run("paper/table2.py", "--data", "nowhere")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "subvocab: There is no folder nowhere. Name the one with `glue` and `tokenizers`, or leave "
        "out `--data` to use the Hub.\n"
    )
