"""``subvocab scan``: which tokens files use."""

from __future__ import annotations

from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from subvocab.cli.console import check_writable, print_json, print_table, usage_rows
from subvocab.cli.options import (
    FileFormatOption,
    FullVocabSizeOption,
    JsonOption,
    MaxLengthOption,
    NoHeaderOption,
    TextColumnOption,
)
from subvocab.cli.tokenizer import load_tokenizer


class Engine(StrEnum):
    """What counts files."""

    local = "local"
    ray = "ray"


def scan(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="JSON lines, CSV, TSV, plain text or Parquet; folders; URLs such as "
            "hf://datasets/NAME/*.parquet, with wildcards.",
        ),
    ],
    *,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="DIR_OR_NAME", help="Folder, tokenizer.json, or name on the Hub."),
    ] = None,
    text_column: TextColumnOption = None,
    max_length: MaxLengthOption = None,
    full_vocab_size: FullVocabSizeOption = None,
    file_format: FileFormatOption = None,
    no_header: NoHeaderOption = False,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME", help="A column of token ids."),
    ] = None,
    label_columns: Annotated[
        list[str] | None,
        typer.Option("--label-column", metavar="NAME", help="One in which -100 is no token."),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="This process, or a Ray cluster: a file a task.")
    ] = Engine.local,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the counts in a safetensors file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Count the tokens that files use, as training would see them."""
    from subvocab.analysis.usage import usage_figures  # noqa: PLC0415
    from subvocab.data import scan as count_tokens  # noqa: PLC0415
    from subvocab.data.urls import files_at  # noqa: PLC0415

    sources = list(chain.from_iterable(map(files_at, files)))
    check_writable(out, sources)
    counts = count_tokens(
        sources,
        tokenizer=None if tokenizer is None else load_tokenizer(tokenizer),
        full_vocab_size=full_vocab_size,
        columns=columns or None,
        label_columns=label_columns or None,
        text_columns=text_column or None,
        max_length=max_length,
        file_format=file_format,
        header=not no_header,
        engine=engine.value,
    )
    figures = usage_figures(counts)
    if out is not None:
        counts.save(out)
    if json:
        print_json(figures)
    else:
        print_table("Token usage", usage_rows(figures))
