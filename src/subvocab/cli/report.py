"""``subvocab report``: what files of text use of a vocabulary, as a page with figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from subvocab.cli.tokenizer import check_rows, folder_of, load_tokenizer

if TYPE_CHECKING:
    from subvocab.analysis.savings import ModelShape, Savings
    from subvocab.vocabulary import TokenCounts


def report(
    files: FilesArgument,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write, such as a.html.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_NAME",
            help="Folder, tokenizer.json, or name on the Hub; by default the only model's.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR_OR_NAME",
            help="Tell what this model would save: folder, config.json, or name on the Hub. "
            "Give it several times to compare.",
        ),
    ] = None,
    task: Annotated[
        str, typer.Option(help="What the models are for, as for plan.")
    ] = "classification",
    text_column: TextColumnOption = None,
    max_length: MaxLengthOption = None,
    full_vocab_size: FullVocabSizeOption = None,
    file_format: FileFormatOption = None,
    no_header: NoHeaderOption = False,
    json: JsonOption = False,
) -> None:
    """Show on a page what files use of a vocabulary, and what models save by it."""
    from subvocab.analysis.anomalies import unused_tokens  # noqa: PLC0415
    from subvocab.analysis.report import check_libraries, write_report  # noqa: PLC0415
    from subvocab.analysis.usage import usage_figures  # noqa: PLC0415
    from subvocab.data import scan_growth  # noqa: PLC0415
    from subvocab.data.encoding import vocabulary_size  # noqa: PLC0415

    check_writable(out, files)
    check_libraries()
    named = tokenizer or _only_model(model or [])
    loaded = load_tokenizer(named)
    shapes = _shapes(model or [], task)
    rows = {shape.full_vocab_size for shape in shapes}
    size = full_vocab_size or (rows.pop() if len(rows) == 1 else vocabulary_size(loaded))
    for shape in shapes:
        check_rows(max(size, vocabulary_size(loaded)), named, shape)
    growth = scan_growth(
        files,
        tokenizer=loaded,
        full_vocab_size=size,
        text_columns=text_column or None,
        max_length=max_length,
        file_format=file_format,
        header=not no_header,
    )
    findings = write_report(
        out,
        growth,
        unused_tokens(growth.counts, loaded),
        savings=[_savings(shape, growth.counts, task) for shape in shapes],
        data=_title(files),
        tokenizer=_short(named),
        about=_about(
            growth.fingerprint,
            data=", ".join(map(str, files)),
            text_columns=" and ".join(text_column or []),
            max_length=max_length,
            tokenizer=named,
            models=", ".join(model or []),
        ),
    )
    if json:
        print_json({**findings.figures(), "out": str(out)})
        return
    saved = {
        f"Parameters saved, {one.model}": f"{one.parameters.model_reduction:.1%}"
        for one in findings.savings
    }
    print_table("Token usage", usage_rows(usage_figures(growth.counts)) | saved)
    typer.echo(f"The report lies in {out}")


def _only_model(models: Sequence[str]) -> str:
    """Name where the tokenizer lies, if nobody says."""
    from subvocab.errors import DataError  # noqa: PLC0415

    if len(models) != 1:
        raise DataError(
            f"No tokenizer is named, and {len(models) or 'no'} models. Name one with "
            "`--tokenizer`, or a single `--model` that has its own."
        )
    return folder_of(models[0])


def _shapes(models: Sequence[str], task: str) -> list[ModelShape]:
    """Read what the models' configurations say."""
    if not models:
        return []  # and torch is not loaded
    import transformers  # noqa: PLC0415

    from subvocab.model.shape import model_shape  # noqa: PLC0415

    transformers.logging.set_verbosity_error()
    return [replace(model_shape(name, task=task), name=_short(name)) for name in models]


def _savings(shape: ModelShape, counts: TokenCounts, task: str) -> Savings:
    """Foretell what one model saves."""
    from subvocab.analysis.savings import Training, estimate_savings  # noqa: PLC0415
    from subvocab.model.shape import LANGUAGE_MODELS  # noqa: PLC0415

    # The matrix may have more rows than were counted over, and the model may keep one of them.
    seen = counts.partial_vocabulary().resized(shape.full_vocab_size)
    training = Training(head="exact" if task in LANGUAGE_MODELS else "none")
    return estimate_savings(shape, len(seen.union(list(shape.kept_token_ids))), training)


def _short(name: str) -> str:
    """Take the part of a path that people call it by; names on the Hub stay."""
    folder = Path(folder_of(name))
    return folder.absolute().name if folder.exists() else name


def _title(files: Sequence[Path]) -> str:
    """Name the data in a heading."""
    first = files[0]
    named = "/".join(first.parts[-2:]) if first.is_file() else first.absolute().name
    return f"{named} and {len(files) - 1:,} more" if len(files) > 1 else named


def _about(
    fingerprint: str,
    *,
    data: str,
    text_columns: str,
    max_length: int | None,
    tokenizer: str,
    models: str,
) -> dict[str, str]:
    """Tell how the page was made, so that it can be made again."""
    from subvocab import __version__  # noqa: PLC0415

    said = {
        "Data": data,
        "Columns of text": text_columns,
        "Truncated to": f"{max_length:,} tokens" if max_length else "",
        "Tokenizer": tokenizer,
        "Models": models,
        "Fingerprint": fingerprint,
        "Made with": f"subvocab {__version__}",
    }
    return {name: value for name, value in said.items() if value}
