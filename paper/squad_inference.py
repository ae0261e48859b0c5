"""Answer SQuAD v1.1 with E and with E′, and compare memory, answers and scores.

Inference needs no row that its questions and paragraphs do not use. The first version of the paper
reports it; V′ comes from a scan of the questions and paragraphs as the model consumes them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: python paper/squad_inference.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paper import _jobs, _squad
from paper._answers import QUANTITIES, Compared, compare
from paper._cells import Found, Printed, fill, print_json, print_table, write_csv
from paper._command import JsonOption, OutOption
from paper._inference import Options
from subvocab.cli.console import check_writable, exits_cleanly, quiet_libraries

NAME = "squad_inference"
TITLE = "SQuAD v1.1: inference with E′ instead of E"
TASK = "SQuAD v1.1"


@dataclass
class Runner:
    """Runs a model when a cell asks for it, and keeps what it found.

    Attributes:
        places: Folder or name on the Hub, by model.
        file: SQuAD's file, or None for the Hub.
        rows: How many of the first questions to ask; None for all.
        options: How to run models.
        found: By model.
    """

    places: Mapping[str, str]
    file: Path | None
    rows: int | None
    options: Options
    found: dict[str, Compared] = field(default_factory=dict)

    def measure(self, cell: Printed) -> Found:
        """Find our figure for a cell.

        Args:
            cell: The cell.

        Returns:
            Per cent, and with F1 what belongs to all in words.

        Raises:
            CannotRunError: If the model or the questions cannot be had.
        """
        model = _jobs.find(cell.model, self.places[cell.model])
        if cell.model not in self.found:
            questions = self.questions[: self.rows]
            self.found[cell.model] = compare(model, questions, self.options)
        compared = self.found[cell.model]
        figure = compared.figure(cell.quantity)
        return (figure, compared.words) if cell.quantity == QUANTITIES[0] else figure

    @cached_property
    def questions(self) -> list[_squad.Question]:
        """All questions, read when they are first wanted."""
        return _squad.read_questions(self.file)


def show(name: str, compared: Compared) -> None:
    """Print what a model held and gave with E and with E′, side by side.

    Args:
        name: The model's.
        compared: Both runs.
    """
    table = Table("", "E", "E′", "saved", title=name, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    whole, pema = compared.whole, compared.pema
    sizes = {
        "embedding parameters": (whole.embedding_parameters, pema.embedding_parameters, 1),
        "model parameters": (whole.model_parameters, pema.model_parameters, 1),
        "weights and buffers, MB": (whole.weight_bytes, pema.weight_bytes, 1e6),
        "peak memory, MB": (whole.peak_bytes, pema.peak_bytes, 1e6),
    }
    for label, (before, after, unit) in sizes.items():
        digits = 0 if unit == 1 else 1
        values = (f"{value / unit:,.{digits}f}" for value in (before, after))
        table.add_row(label, *values, f"{1 - after / before:.1%}")
    table.add_row("seconds", f"{whole.seconds:.2f}", f"{pema.seconds:.2f}", "")
    for quantity, value in compared.scores.items():
        scores = (f"{compared.whole_scores[quantity]:.4f}", f"{value:.4f}")
        table.add_row(quantity.replace("_", " "), *scores, "")
    Console().print(table, markup=False)
    for what, equal in compared.equal.items():
        print(f"{what}: {'equal, bit for bit' if equal else 'NOT EQUAL'}")


def main(
    *,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Such as dev-v1.1.json. By default, from the Hub."),
    ] = None,
    models: _jobs.ModelsOption = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Ask so many of the first questions.")
    ] = None,
    max_length: Annotated[
        int, typer.Option(min=1, help="Tokens of a window.")
    ] = Options.max_length,
    doc_stride: Annotated[
        int, typer.Option(min=0, help="Tokens that a window shares with the one before.")
    ] = Options.doc_stride,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows a pass.")] = Options.batch_size,
    device: _jobs.DeviceOption = "auto",
    json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Answer SQuAD v1.1 with and without PEMA; exit with 1 unless all logits are equal."""
    check_writable(out)
    quiet_libraries()
    places = _jobs.model_names(models, _jobs.expected_models(NAME))
    options = Options(max_length, doc_stride, batch_size, _jobs.device_name(device))
    runner = Runner(places, file, rows, options)
    if file is not None:
        _ = runner.questions  # a file that cannot be read is a mistake to be told of, not a reason
    cells = fill(_jobs.chosen(NAME, list(places), {TASK: QUANTITIES}), runner.measure)
    if json:
        print_json(cells)
    else:
        for name, compared in runner.found.items():
            show(name, compared)
        print_table(TITLE, [replace(cell, detail="") for cell in cells])  # shown above
    if out is not None:
        write_csv(out, {NAME: cells})
    if not all(all(compared.equal.values()) for compared in runner.found.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(exits_cleanly(main))
