"""``subvocab scan``: which tokens files of text use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subvocab.cli.console import check_writable, print_json, print_table


def scan(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="JSON lines, CSV, TSV, plain text or Parquet; or a folder."
        ),
    ],
    *,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="DIR_OR_NAME", help="Folder, tokenizer.json, or name on the Hub."),
    ] = None,
    text_column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The column of text; give two to encode pairs. From 1 without a header.",
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Truncate to this many tokens, as training will.")
    ] = None,
    full_vocab_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows of the model's embedding matrix, if more than the tokenizer's tokens."
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="jsonl, csv, tsv, text or parquet; by default as the name ends."
        ),
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="CSV or TSV files begin with a row of data.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the counts in a safetensors file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count the tokens that files use, as training would see them."""
    from subvocab.cli.tokenizer import load_tokenizer  # noqa: PLC0415
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
    figures = {
        "full_vocab_size": counts.full_vocab_size,
        "unique_tokens": counts.unique_tokens,
        "total_tokens": counts.total_tokens,
        "partial_vocab_size": len(counts.partial_vocabulary()),
    }
    if out is not None:
        counts.save(out)
    if json:
        print_json(figures)
        return
    share = figures["partial_vocab_size"] / counts.full_vocab_size
    rows = {
        "Tokens of the vocabulary, |V|": f"{counts.full_vocab_size:,}",
        "Tokens seen": f"{counts.total_tokens:,}",
        "Distinct tokens seen": f"{counts.unique_tokens:,}",
        "Rows to keep, |V′|": f"{figures['partial_vocab_size']:,} ({share:.1%})",
    }
    print_table("Token usage", rows)
