"""How ``subvocab plan`` prints what it found: three tables that fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from subvocab.analysis.memory import GIGABYTE
from subvocab.analysis.savings import Savings, Training
from subvocab.cli.console import print_table

NOT_COUNTED = "Not counted: activations, CUDA context, allocator waste. 1 GB is 10⁹ bytes."
UNITS = ((GIGABYTE, "GB", 2), (10**6, "MB", 1), (10**3, "kB", 1))
PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "logits": "logits and loss",
    "temporary": "for a moment",
}


def show(savings: Sequence[Savings], *, task: str, gpu_bytes: int, counted: bool) -> None:
    """Print a plan.

    Args:
        savings: For the setting that was asked for, then for all combinations.
        task: What the model is for.
        gpu_bytes: Memory of the GPU.
        counted: Whether V′ is known; without it there is one column of bytes.
    """
    console = Console()
    chosen, every = savings[0], savings[1:]
    print_table(f"{chosen.model}, {task}", _facts(chosen, counted=counted))
    # A title of its own line may be wider than its table.
    console.print(Text(f"Memory: {_setting(chosen.training)}", "table.title"))
    console.print(_parts_table(chosen, counted=counted))
    console.print(Text(f"Does it fit {gpu_bytes / GIGABYTE:,g} GB?", "table.title"))
    console.print(_fit_table(every, gpu_bytes, counted=counted))
    console.print(NOT_COUNTED, markup=False, highlight=False)
    if not counted:
        console.print("Name files of text or of counts to see what PEMA would save.", markup=False)


def _facts(savings: Savings, *, counted: bool) -> dict[str, str]:
    """Tell the model's sizes, and what is left of them."""
    parameters = savings.parameters
    share = parameters.embedding_parameters / parameters.model_parameters
    rows = {"Rows of the embedding, |V|": f"{parameters.full_vocab_size:,}"}
    if counted:
        kept = parameters.partial_vocab_size / parameters.full_vocab_size
        rows["Rows to keep, |V′|"] = f"{parameters.partial_vocab_size:,} ({kept:.1%})"
    rows["Embedding parameters, N_emb"] = f"{parameters.embedding_parameters:,}"
    rows["Model parameters, N"] = f"{parameters.model_parameters:,}"
    rows["Share of the embedding, N_emb/N"] = f"{share:.1%}"
    if counted:
        rows["Embedding parameters saved"] = f"{parameters.embedding_reduction:.1%}"
        rows["Model parameters saved"] = f"{parameters.model_reduction:.1%}"
    return rows


def _parts_table(savings: Savings, *, counted: bool) -> Table:
    """Tell what the bytes are for."""
    table = Table("", "whole")
    if counted:
        table.add_column("PEMA")
        table.add_column("saved")
    for column in table.columns[1:]:
        column.justify = "right"

    def add(label: str, *cells: str) -> None:
        table.add_row(label, *cells[: len(table.columns) - 1])

    for part, label in PARTS.items():
        full, partial = getattr(savings.full, part), getattr(savings.partial, part)
        if full or partial:
            add(label, shown_bytes(full), shown_bytes(partial), _saved(full, partial))
    apart = [memory.apart for memory in (savings.full, savings.partial)]
    if any(apart):
        add("never held at once", *(f"−{shown_bytes(number)}" for number in apart), "")
    table.add_section()
    full, partial = savings.full.total, savings.partial.total
    add("total", shown_bytes(full), shown_bytes(partial), _saved(full, partial))
    return table


def _setting(training: Training) -> str:
    """Name a setting in a few words."""
    words = [training.precision, training.optimizer]
    words.append(f"batch {training.batch_size:,} × {training.length:,}")
    if training.accumulation > 1:
        words.append(f"in {training.accumulation:,} parts")
    if training.head != "none":
        words.append(f"{training.head} head")
    return ", ".join(words)


def _fit_table(every: Sequence[Savings], gpu_bytes: int, *, counted: bool) -> Table:
    """Tell which precision and optimizer fit the GPU."""
    table = Table("precision", "optimizer")
    table.add_column("whole", justify="right")
    table.add_column("")
    if counted:
        table.add_column("PEMA", justify="right")
        table.add_column("")
        table.add_column("saved", justify="right")
    before = None
    for one in every:
        precision = one.training.precision
        if before is not None and before != precision:
            table.add_section()
        cells: list[str | Text] = ["" if before == precision else precision, one.training.optimizer]
        for memory in (one.full, one.partial) if counted else (one.full,):
            cells += [shown_bytes(memory.total), _fits(fits=memory.fits(gpu_bytes))]
        if counted:
            cells.append(_saved(one.full.total, one.partial.total))
        table.add_row(*cells)
        before = precision
    return table


def _fits(*, fits: bool) -> Text:
    """Say yes or no, readable without colour too."""
    return Text("yes", "green") if fits else Text("no", "red")


def _saved(full: int, partial: int) -> str:
    """Give the share that is saved; more than before shows as a minus."""
    return f"{1 - partial / full:.1%}" if full else ""


def shown_bytes(number: int) -> str:
    """Write a number of bytes for people.

    Args:
        number: The bytes.

    Returns:
        Three or more digits with a decimal unit.

    Example:
        >>> shown_bytes(1_536_008_000), shown_bytes(21_400_000), shown_bytes(12)
        ('1.54 GB', '21.4 MB', '12 B')
    """
    for size, unit, digits in UNITS:
        if number >= size:
            return f"{number / size:,.{digits}f} {unit}"
    return f"{number} B"
