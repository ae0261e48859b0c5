"""Table 1: tokens of the vocabulary that GLUE never uses, by kind, with examples."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

if not __package__:  # run as a script: python paper/table1.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paper import _models
from paper._cells import Measure, Printed
from paper._command import run_script
from paper._usage import Request, token_counts
from subvocab.analysis.anomalies import TokenKind, UnusedToken, unused_tokens

NAME = "table1"
TITLE = "Table 1: tokens that are never used, by kind, with examples"
EXAMPLES = 6


@cache
def _unused(request: Request, model: str, task: str) -> list[UnusedToken]:
    """Sort the tokens never seen into kinds, once for all kinds."""
    counts = token_counts(request, model, task)
    tokenizer = _models.tokenizer(_models.MODELS[model].tokenizer, request.data)
    return unused_tokens(counts, tokenizer)


def measure_of(request: Request) -> Measure:
    """Count unused tokens of a kind.

    Args:
        request: Where the data are, and which rows of them.

    Returns:
        Gives the figure of a cell, and examples spread over the vocabulary.
    """

    def measure(cell: Printed) -> tuple[float, str]:
        kind = TokenKind(cell.quantity)
        unused = _unused(request, cell.model, cell.task)
        texts = [token.text for token in unused if token.kind is kind]
        examples = texts[:: max(1, len(texts) // EXAMPLES)][:EXAMPLES]
        return float(len(texts)), " ".join(f"`{text}`" for text in examples)

    return measure


if __name__ == "__main__":
    run_script(NAME, TITLE, measure_of)
