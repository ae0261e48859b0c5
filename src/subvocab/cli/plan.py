"""``subvocab plan``: what a partial vocabulary would save, before any weight is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subvocab.cli.console import print_json
from subvocab.cli.options import (
    FileFormatOption,
    JsonOption,
    MaxLengthOption,
    ModelTokenizerOption,
    NoHeaderOption,
    TextColumnOption,
)
from subvocab.cli.tokenizer import check_rows, folder_of, load_tokenizer
from subvocab.errors import DataError

if TYPE_CHECKING:
    from subvocab.analysis.savings import ModelShape, Savings, Training
    from subvocab.vocabulary import TokenCounts


def plan(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Folder, config.json, or name on the Hub."),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DATA]...", help="Files of text as for scan, or of counts (scan --out)."
        ),
    ] = None,
    *,
    tokenizer: ModelTokenizerOption = None,
    text_column: TextColumnOption = None,
    max_length: MaxLengthOption = None,
    file_format: FileFormatOption = None,
    no_header: NoHeaderOption = False,
    task: Annotated[
        str,
        typer.Option(
            help="classification, token-classification, question-answering, embedding, "
            "causal-lm, masked-lm or seq2seq-lm."
        ),
    ] = "classification",
    labels: Annotated[int, typer.Option(min=1, help="Classes to tell apart.")] = 2,
    head: Annotated[
        str | None,
        typer.Option(
            help="Of a language model: exact, restricted or whole; by default exact.",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or mixed.")] = "fp32",
    optimizer: Annotated[
        str, typer.Option(help="sgd, momentum, adamw, adamw-8bit or adafactor.")
    ] = "adamw",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Sequences a step, over all of its parts.")
    ] = 32,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens a sequence; by default --max-length or 128.")
    ] = None,
    accumulation: Annotated[
        int, typer.Option(min=1, help="Parts that a batch is divided into.")
    ] = 1,
    gpu: Annotated[
        float, typer.Option(metavar="GB", min=0, help="Memory of the GPU to fit.")
    ] = 24.0,
    json: JsonOption = False,
) -> None:
    """Foretell what fine-tuning on files would take and save, before any weight is loaded."""
    import transformers  # noqa: PLC0415

    from subvocab.analysis.memory import GIGABYTE  # noqa: PLC0415
    from subvocab.analysis.savings import Training, estimate_savings  # noqa: PLC0415
    from subvocab.model.shape import LANGUAGE_MODELS, model_shape  # noqa: PLC0415

    if not math.isfinite(gpu):
        raise DataError(f"`--gpu` is {gpu}, expected gigabytes of memory.")
    transformers.logging.set_verbosity_error()
    training = Training(
        precision=precision,
        optimizer=optimizer,
        batch_size=batch_size,
        length=length or max_length or 128,
        accumulation=accumulation,
        head=head or ("exact" if task in LANGUAGE_MODELS else "none"),
    )
    shape = model_shape(model, task=task, num_labels=labels)
    rows = shape.full_vocab_size
    estimate_savings(shape, rows, training)  # what cannot be trained is not counted for
    counts = None
    if data:
        counts = _count(
            data,
            shape,
            tokenizer or folder_of(model),
            text_columns=text_column or None,
            max_length=max_length,
            file_format=file_format,
            header=not no_header,
        )
        rows = len(counts.partial_vocabulary(shape.kept_token_ids))
    savings = [estimate_savings(shape, rows, setting) for setting in _settings(training)]
    gpu_bytes = int(gpu * GIGABYTE)
    if json:
        print_json(figures(savings, counts, task=task, gpu_bytes=gpu_bytes))
        return
    from subvocab.cli.plan_tables import show  # noqa: PLC0415

    show(savings, task=task, gpu_bytes=gpu_bytes, counted=counts is not None)


def _settings(training: Training) -> list[Training]:
    """Give the setting that was asked for, then every precision with every optimizer."""
    from subvocab.analysis.savings import OPTIMIZERS, WEIGHT_BYTES  # noqa: PLC0415

    every = [
        replace(training, precision=precision, optimizer=optimizer)
        for precision in WEIGHT_BYTES
        for optimizer in OPTIMIZERS
    ]
    return [training, *every]


def _count(data: Sequence[Path], shape: ModelShape, tokenizer: str, **options: Any) -> TokenCounts:
    """Count the tokens of files, and add those that were counted before."""
    from subvocab.errors import DataError, VocabularyMismatchError  # noqa: PLC0415
    from subvocab.vocabulary import TokenCounts  # noqa: PLC0415

    counted = [path for path in data if path.suffix == ".safetensors"]
    parts = [(str(path), TokenCounts.load(path)) for path in counted]
    texts = [path for path in data if path not in counted]
    if texts:
        parts.append(("the data", _scan(texts, shape, tokenizer, **options)))
    for name, counts in parts:
        if counts.full_vocab_size != shape.full_vocab_size:
            raise VocabularyMismatchError(
                f"{name} counts a vocabulary of {counts.full_vocab_size:,} tokens, but the "
                f"embedding matrix of `{shape.name}` has {shape.full_vocab_size:,} rows. Count "
                f"with its tokenizer and `--full-vocab-size {shape.full_vocab_size}`."
            )
    total = parts[0][1]
    for _, counts in parts[1:]:
        total += counts
    if not total.total_tokens:
        raise DataError(
            "There is not one token in the data, so nothing can be planned for them. Name files "
            "that hold text."
        )
    return total


def _scan(texts: list[Path], shape: ModelShape, tokenizer: str, **options: Any) -> TokenCounts:
    """Count the tokens of files of text."""
    from subvocab.data import scan  # noqa: PLC0415
    from subvocab.data.encoding import vocabulary_size  # noqa: PLC0415

    loaded = load_tokenizer(tokenizer)
    check_rows(vocabulary_size(loaded), tokenizer, shape)
    return scan(texts, tokenizer=loaded, full_vocab_size=shape.full_vocab_size, **options)


def figures(
    savings: Sequence[Savings], counts: TokenCounts | None, *, task: str, gpu_bytes: int
) -> dict[str, Any]:
    """Gather a plan.

    Args:
        savings: For the setting that was asked for, then for all combinations.
        counts: Of the data, or None where there are none.
        task: What the model is for.
        gpu_bytes: Memory of the GPU.

    Returns:
        Values by name, for JSON. Without data, what PEMA would save is None.
    """
    chosen, every = savings[0], savings[1:]
    known = counts is not None
    saved = chosen.figures()
    if not known:
        of_pema = (n for n in saved if n.startswith("partial_") or n.endswith("_reduction"))
        saved |= dict.fromkeys(of_pema)
    return {
        "model": chosen.model,
        "task": task,
        **saved,
        "embedding_share": saved["embedding_parameters"] / saved["model_parameters"],
        "unique_tokens": counts.unique_tokens if counts else None,
        "total_tokens": counts.total_tokens if counts else None,
        "gpu_bytes": gpu_bytes,
        "combinations": [
            {
                "precision": one.training.precision,
                "optimizer": one.training.optimizer,
                "full_bytes": one.full.total,
                "full_fits": one.full.fits(gpu_bytes),
                "partial_bytes": one.partial.total if known else None,
                "partial_fits": one.partial.fits(gpu_bytes) if known else None,
            }
            for one in every
        ],
        "not_counted": ["activations", "CUDA context", "fragmentation"],
    }
