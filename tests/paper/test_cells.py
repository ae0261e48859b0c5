"""Cells of a table: what is printed, what is written, and that no cell is lost."""

from __future__ import annotations

import csv
import doctest
import json
from pathlib import Path

import pytest

from paper import _cells, _models
from paper._cells import CannotRunError, Cell, Printed, choose, equals_print, fill
from paper._command import choose_cells, print_with_details
from subvocab.errors import DataError

QUANTITY = "embedding_reduction_percent"
KNOWN = Printed("bert", "CoLA", QUANTITY, 80.1, "print")
UNKNOWN = Printed("bert", "RTE", QUANTITY)
ROUNDED = Printed("bert", "mean", QUANTITY, None, "known only rounded, as 52")
EXPECTED = sorted(path.stem for path in _cells.EXPECTED.glob("*.csv"))


def _measure(cell: Printed) -> float:
    if cell.task == "RTE":
        raise CannotRunError("RTE is\nnot at hand.")
    return 80.06


def test_fill_keeps_every_cell_with_its_reason() -> None:
    """A reason stands wherever one of the two figures is missing, and nowhere else."""
    cells = fill([KNOWN, UNKNOWN, ROUNDED], _measure)

    assert [cell.ours for cell in cells] == [80.06, None, 80.06]
    assert [cell.reason for cell in cells] == [
        "",
        "RTE is not at hand; the printed figure has not been transcribed",
        "the printed figure has not been transcribed (known only rounded, as 52)",
    ]


def test_fill_takes_errors_of_one_cell_for_that_cell_alone() -> None:
    """A damaged file does not cost the rest of the table."""

    def measure(cell: Printed) -> tuple[float, str]:
        if cell is KNOWN:
            raise DataError("The file is damaged.")
        return 1.0, "as was found"

    cells = fill([KNOWN, UNKNOWN], measure)

    assert [(cell.ours, cell.detail) for cell in cells] == [(None, ""), (1.0, "as was found")]
    assert cells[0].reason == "The file is damaged"


def test_fill_lets_faults_through() -> None:
    """An error that nobody raised on purpose is not dressed up as a missing cell."""

    def measure(_cell: Printed) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill([KNOWN], measure)


@pytest.mark.parametrize(
    ("ours", "equal"), [(80.0501, True), (80.149, True), (80.04, False), (80.16, False)]
)
def test_equals_print_compares_at_one_decimal(ours: float, *, equal: bool) -> None:
    """The paper rounds to one."""
    assert equals_print(Cell("bert", "CoLA", QUANTITY, ours, 80.1)) is equal


def test_print_table_shows_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that were run, with the difference; below them those that were not, with why."""
    cells = fill([KNOWN, UNKNOWN, ROUNDED], _measure)

    _cells.print_table("Table 0: of a test", cells)

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "bert CoLA 80.1 80.1 +0.0" in lines
    assert "bert mean 80.1" in lines
    at = lines.index("Not run: RTE is not at hand; the printed figure has not been transcribed.")
    assert lines[at + 1] == "embedding reduction, %: bert × RTE"
    at = lines.index(
        "Run, but not compared: the printed figure has not been transcribed (known only rounded,"
    )
    assert lines[at + 2] == "embedding reduction, %: bert × mean"
    assert lines[-1] == "Table 0: 2 of 3 cells run, 1 of them compared with the print, 1 equal."


def test_print_json_keeps_full_precision(capsys: pytest.CaptureFixture[str]) -> None:
    """One list; what is missing is null."""
    _cells.print_json(fill([KNOWN, UNKNOWN], _measure))

    first, second = json.loads(capsys.readouterr().out)
    assert (first["model"], first["task"], first["ours"], first["paper"]) == (
        "bert",
        "CoLA",
        80.06,
        80.1,
    )
    assert first["reason"] == ""
    assert second["ours"] is None


def test_print_with_details_tells_them_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Too long for a column; named by the quantity only where a task has several."""
    cells = [
        Cell("m", "WNLI", "seconds", 1.0, None, "", "scan 0.1 s"),
        Cell("m", "RTE", "share", 2.0, 2.0),
    ]

    print_with_details("Table 0: time", cells, json=False)
    print_with_details("Table 0: time", cells, json=False, with_quantity=True)

    printed = capsys.readouterr().out
    assert printed.count("scan 0.1 s") == 2
    assert "\n\nm × WNLI: scan 0.1 s.\n" in printed
    assert printed.endswith("\n\nm × WNLI, seconds: scan 0.1 s.\n")
    print_with_details("Table 0: time", cells, json=True)
    assert json.loads(capsys.readouterr().out)[0]["detail"] == "scan 0.1 s"


def test_write_csv_gives_the_difference(tmp_path: Path) -> None:
    """A row a cell, those that were not run too."""
    path = tmp_path / "new" / "results.csv"

    _cells.write_csv(path, {"table0": fill([KNOWN, UNKNOWN], _measure)})

    with path.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["table"], first["ours"], first["difference"]) == ("table0", "80.06", "-0.04")
    assert (second["ours"], second["difference"]) == ("", "")


def test_choose_keeps_cells_that_hold_for_all() -> None:
    """A size of a split belongs to no model."""
    size = Printed("any", "RTE", "train")

    assert choose([KNOWN, UNKNOWN, size], ["bert"], ["RTE"]) == [UNKNOWN, size]


def test_choose_cells_takes_names_in_any_spelling() -> None:
    """As the paper, the Hub or the folder writes them; several at once."""
    cells = choose_cells("table2", ["XLM-R,bert", "FacebookAI/roberta-base"], ["sst2, wnli"])

    assert {cell.model for cell in cells} == {
        "bert-base-uncased",
        "roberta-base",
        "xlm-roberta-base",
    }
    assert {cell.task for cell in cells} == {"SST-2", "WNLI"}


def test_choose_cells_lists_what_there_is() -> None:
    """A name that the table lacks is no empty answer."""
    with pytest.raises(DataError) as caught:
        choose_cells("table6", ["roberta-base"], None)

    assert str(caught.value) == (
        "table6 has no model `roberta-base`, expected one of distilbert-base-uncased, "
        "distilroberta-base, distilbert-base-multilingual-cased."
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_files_hold_each_cell_once(name: str) -> None:
    """And a printed figure never without its source."""
    cells = _cells.read_expected(name)

    keys = [(cell.model, cell.task, cell.quantity) for cell in cells]
    assert len(set(keys)) == len(keys) > 0
    assert [cell for cell in cells if cell.paper is not None and not cell.source] == []


def test_read_expected_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that is no number is a slip of whoever filled it in."""
    path = tmp_path / "table0.csv"
    path.write_text("model,task,quantity,paper,source\nbert,RTE,x,about 5,print\n")
    monkeypatch.setattr(_cells, "EXPECTED", tmp_path)

    with pytest.raises(DataError) as caught:
        _cells.read_expected("table0")

    assert str(caught.value) == (
        f"{path} holds no expected cells (could not convert string to float: 'about 5'). Its "
        "columns are model, task, quantity, paper (a number, or nothing) and source."
    )


def test_examples_in_docstrings_hold() -> None:
    """The scripts lie outside what doctest is pointed at."""
    assert doctest.testmod(_cells).failed == 0


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("bert-base-uncased", 109.5),
        ("distilbert-base-uncased", 67.0),
        ("roberta-base", 124.6),
        ("deberta-v3-base", 184.4),
        ("xlm-roberta-base", 278.0),
    ],
)
def test_shape_counts_the_published_parameters(name: str, millions: float) -> None:
    """Configurations built here are those of the models: N tells a layer too many."""
    assert round(_models.shape(name).model_parameters / 1e6, 1) == millions


def test_find_model_lists_the_models() -> None:
    """A name of no model of the paper."""
    assert _models.find_model("xlm-roberta") is _models.MODELS["xlm-roberta-base"]

    with pytest.raises(DataError, match=r"The paper has no model `gpt2`, expected one of bert-"):
        _models.find_model("gpt2")
