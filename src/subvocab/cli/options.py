"""Arguments and options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="JSON lines, CSV, TSV, plain text or Parquet; or a folder."
    ),
]
ModelTokenizerOption = Annotated[
    str | None,
    typer.Option(metavar="DIR_OR_NAME", help="If it does not lie beside the model."),
]
TextColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="The column of text; give two to encode pairs. From 1 without a header.",
    ),
]
MaxLengthOption = Annotated[
    int | None, typer.Option(min=1, help="Truncate to this many tokens, as training will.")
]
FullVocabSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Rows of the model's embedding matrix, if more than the tokenizer's tokens."
    ),
]
FileFormatOption = Annotated[
    str | None,
    typer.Option("--format", help="jsonl, csv, tsv, text or parquet; by default as the name ends."),
]
NoHeaderOption = Annotated[
    bool, typer.Option("--no-header", help="CSV or TSV files begin with a row of data.")
]
OutFolderOption = Annotated[
    Path, typer.Option(metavar="DIR", help="A new folder for the whole model.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
