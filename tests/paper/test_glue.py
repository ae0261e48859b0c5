"""Reading GLUE and XNLI in their own layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from paper import _glue, _xnli
from paper._cells import CannotRunError
from paper._glue import TASKS, find_task, read_split
from subvocab.errors import DataError
from tests.paper import layouts
from tests.paper.layouts import PAIRS, ROWS, write_lines

COPY = "Copy the file as its publisher ships it."
FIRSTS = [(first,) for first, _ in PAIRS]
LABELS = {
    "MNLI": [0, 1, 2],
    "QNLI": [0, 1, 0],
    "RTE": [0, 1, 0],
    "STS-B": [0.5, 1.5, 2.5],
}


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """Write all nine tasks under ``glue``."""
    layouts.write_glue(tmp_path / "glue")
    return tmp_path


@pytest.mark.parametrize("task", [name for name in layouts.TASKS if name != "MRPC"])
def test_read_split_reads_texts_and_labels_of_every_split(glue: Path, task: str) -> None:
    """Columns differ by task and split; a quotation mark is text; test labels are secret."""
    texts = FIRSTS if task in {"CoLA", "SST-2"} else PAIRS

    for split in TASKS[task].splits:
        rows = read_split(glue, task, split)

        assert rows.texts == texts
        assert rows.labels == (LABELS.get(task, [0, 1, 0]) if "test" not in split else None)


def test_read_split_finds_tasks_in_the_folder_itself(tmp_path: Path) -> None:
    """``DIR/<TASK>`` does as well as ``DIR/glue/<TASK>``."""
    layouts.write_glue(tmp_path)

    assert len(read_split(tmp_path, "RTE", "train")) == ROWS


def test_read_split_takes_the_validation_rows_out_of_mrpc(glue: Path) -> None:
    """Rows whose two ids are listed validate, the others train; the byte order mark is no text."""
    assert read_split(glue, "MRPC", "train").texts == [PAIRS[0], PAIRS[2]]
    assert read_split(glue, "MRPC", "validation").texts == [PAIRS[1]]
    assert read_split(glue, "MRPC", "validation").labels == [1]
    assert read_split(glue, "MRPC", "test").texts == PAIRS


def test_read_split_reads_mrpc_that_was_split_before(tmp_path: Path) -> None:
    """Some downloads write the three splits as the other tasks have them."""
    row = "1\t2\t3\tthe cat\tthe dog"
    write_lines(tmp_path / "MRPC" / "dev.tsv", layouts.MRPC_HEADER, row)

    assert read_split(tmp_path, "MRPC", "validation") == _glue.Split([("the cat", "the dog")], [1])


def test_read_split_leaves_out_rows_that_lack_a_text(glue: Path) -> None:
    """The Hub's copy leaves them out too."""
    path = glue / "glue" / "QQP" / "train.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    write_lines(path, *lines, "x\tx\tx\tonly one question")

    assert len(read_split(glue, "QQP", "train")) == ROWS


def test_a_line_ends_where_the_file_says_so(glue: Path) -> None:
    """Separators of other scripts are characters of a text."""
    path = glue / "glue" / "SST-2" / "dev.tsv"
    write_lines(path, "sentence\tlabel", "one\u2028two\x85three\t1")

    assert read_split(glue, "SST-2", "validation").texts == [("one\u2028two\x85three",)]


@pytest.mark.parametrize("task", layouts.TASKS)
def test_read_split_names_the_column_that_a_header_lacks(glue: Path, task: str) -> None:
    """Another file under the right name is found out, whatever the task."""
    name = "msr_paraphrase_test.txt" if task == "MRPC" else TASKS[task].files[_last(task)]
    path = write_lines(glue / "glue" / task / name, "id\ttext", "1\tthe cat")
    column = "#1 ID" if task == "MRPC" else TASKS[task].columns[0]

    with pytest.raises(DataError) as caught:
        read_split(glue, task, _last(task))

    assert str(caught.value).startswith(f"{path} has no column `{column}`")
    assert str(caught.value).endswith(f"Its columns: `id`, `text`. {COPY}")


def _last(task: str) -> str:
    return TASKS[task].splits[-1]


def test_read_split_tells_of_cola_with_a_header(glue: Path) -> None:
    """Its labelled files have none; one with two columns is no row of it."""
    path = write_lines(glue / "glue" / "CoLA" / "train.tsv", "sentence\tlabel", "the cat\t1")

    with pytest.raises(DataError) as caught:
        read_split(glue, "CoLA", "train")

    assert str(caught.value) == (
        f"The first line of {path} has 2 values, expected a row of data without a header, with "
        f"`sentence` behind them. {COPY}"
    )


def test_read_split_names_the_line_that_is_not_utf_8(glue: Path) -> None:
    """File and line, so that it can be mended."""
    path = glue / "glue" / "RTE" / "train.tsv"
    path.write_bytes(path.read_bytes() + "9\tcafé\tthe cat\tentailment\n".encode("latin-1"))

    with pytest.raises(DataError) as caught:
        read_split(glue, "RTE", "train")

    assert str(caught.value) == f"Line {ROWS + 2} of {path} is not UTF-8. {COPY}"


@pytest.mark.parametrize(
    ("task", "line", "expected"),
    [
        ("WNLI", "9\tthe cat\tthe dog\tyes", "`yes`, expected one of 0, 1"),
        ("RTE", "9\tthe cat\tthe dog\t1", "`1`, expected one of entailment, not_entailment"),
        ("STS-B", "\t".join(["x"] * 9 + ["high"]), "`high`, expected a number"),
    ],
)
def test_read_split_names_the_line_with_another_label(
    glue: Path, task: str, line: str, expected: str
) -> None:
    """A class that GLUE does not have would train on nonsense."""
    path = glue / "glue" / task / "train.tsv"
    write_lines(path, *path.read_text(encoding="utf-8").splitlines(), line)

    with pytest.raises(DataError) as caught:
        read_split(glue, task, "train")

    assert str(caught.value) == f"Line {ROWS + 2} of {path} has the label {expected}. {COPY}"


def test_read_split_tells_of_empty_files(glue: Path) -> None:
    """A download that broke off leaves one."""
    path = glue / "glue" / "RTE" / "train.tsv"
    path.write_text("", encoding="utf-8")
    headless = write_lines(glue / "glue" / "RTE" / "dev.tsv", "index\tsentence1\tsentence2\tlabel")

    with pytest.raises(DataError) as nothing:
        read_split(glue, "RTE", "train")
    with pytest.raises(DataError) as no_row:
        read_split(glue, "RTE", "validation")

    assert str(nothing.value) == f"{path} is empty. {COPY}"
    assert str(no_row.value) == (
        f"{headless} has no row with `sentence1` and `sentence2` and `label`. {COPY}"
    )


def test_read_split_tells_what_is_not_at_hand(glue: Path) -> None:
    """A folder that is missing, and a file."""
    (glue / "glue" / "RTE" / "dev.tsv").unlink()

    with pytest.raises(CannotRunError) as folder:
        read_split(glue / "empty", "QQP", "train")
    with pytest.raises(CannotRunError) as file:
        read_split(glue, "RTE", "validation")

    missing = glue / "empty" / "glue" / "QQP"
    assert str(folder.value) == f"QQP is not at hand: there is no folder {missing}"
    assert str(file.value) == f"there is no file {glue / 'glue' / 'RTE' / 'dev.tsv'}"


@pytest.mark.parametrize("task", ["CoLA", "MNLI", "MRPC"])
def test_read_split_reads_the_columns_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """The Hub names columns otherwise, and marks secret labels by -1."""
    columns = TASKS[task].hub_columns or TASKS[task].columns
    texts = [pair[: len(columns)] for pair in PAIRS]
    sides = dict(zip(columns, zip(*texts, strict=True), strict=True))

    def load(repository: str, name: str) -> Any:
        assert (repository, name) == ("nyu-mll/glue", TASKS[task].hub)
        given = {split: [0, 1, 1] for split in TASKS[task].splits}
        given[TASKS[task].splits[-1]] = [-1, -1, -1]
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_dict({**sides, "label": y}) for split, y in given.items()}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    _glue._hub_or_reason.cache_clear()

    assert read_split(None, task, "train") == _glue.Split(texts, [0, 1, 1])
    assert read_split(None, task, TASKS[task].splits[-1]).labels is None
    _glue._hub_or_reason.cache_clear()


def test_read_split_says_in_one_line_that_the_hub_has_it_not() -> None:
    """Offline, and with nothing downloaded before."""
    with pytest.raises(CannotRunError) as caught:
        read_split(None, "RTE", "train")

    assert str(caught.value).startswith("the data set nyu-mll/glue could not be had from the Hub (")
    assert "\n" not in str(caught.value)


def test_find_task_takes_any_spelling() -> None:
    """As the paper writes it, or the Hub."""
    assert find_task("sst2").name == find_task("SST-2").name == "SST-2"

    with pytest.raises(DataError) as caught:
        find_task("SNLI")

    names = ", ".join(layouts.TASKS)
    assert str(caught.value) == f"GLUE has no task `SNLI`, expected one of {names}."


def test_xnli_reads_each_language(tmp_path: Path) -> None:
    """Of the files that hold all languages, the rows of one."""
    layouts.write_xnli(tmp_path / "xnli", ("de", "zh"))

    for split in _xnli.SPLITS:
        assert _xnli.read_split(tmp_path, "zh", split) == _glue.Split(PAIRS, None)


def test_xnli_tells_what_is_missing(tmp_path: Path) -> None:
    """A part of it, a file, a language."""
    layouts.write_xnli(tmp_path, ("de",))
    path = tmp_path / "XNLI-1.0" / "xnli.dev.tsv"

    with pytest.raises(CannotRunError) as part:
        _xnli.read_split(tmp_path / "XNLI-1.0", "de", "train")
    with pytest.raises(CannotRunError) as file:
        _xnli.read_split(tmp_path, "zh", "train")
    with pytest.raises(DataError) as language:
        _xnli.read_split(tmp_path, "zh", "validation")

    whole = tmp_path / "XNLI-1.0" / "XNLI-MT-1.0"
    assert str(part.value) == f"XNLI is not at hand: there is no folder {whole}"
    assert str(file.value).endswith("multinli.train.zh.tsv")
    assert str(language.value) == f"{path} has no row in the language `zh`. {COPY}"
