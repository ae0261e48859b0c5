"""``subvocab scan``: which tokens files of text use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subvocab.cli.console import check_writable, print_json, print_table, usage_rows
from subvocab.cli.options import (
    FileFormatOption,
    FilesArgument,
    FullVocabSizeOption,
    JsonOption,
    MaxLengthOption,
    NoHeaderOption,
    TextColumnOption,
)
from subvocab.cli.tokenizer import load_tokenizer


def scan(
    files: FilesArgument,
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
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the counts in a safetensors file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Count the tokens that files use, as training would see them."""
    from subvocab.analysis.usage import usage_figures  # noqa: PLC0415
    from subvocab.data import scan as count_tokens  # noqa: PLC0415

    check_writable(out)
    counts = count_tokens(
        files,
        tokenizer=None if tokenizer is None else load_tokenizer(tokenizer),
        full_vocab_size=full_vocab_size,
        text_columns=text_column or None,
        max_length=max_length,
        file_format=file_format,
        header=not no_header,
    )
    figures = usage_figures(counts)
    if out is not None:
        counts.save(out)
    if json:
        print_json(figures)
    else:
        print_table("Token usage", usage_rows(figures))
