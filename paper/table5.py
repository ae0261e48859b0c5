"""Table 5: sizes of the models' vocabularies, embeddings and whole models."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a script: python paper/table5.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paper import _models
from paper._cells import Measure, Printed
from paper._command import run_script
from paper._usage import Request

NAME = "table5"
TITLE = "Table 5: vocabulary, embedding and model sizes"
MILLION = 1e6


def measure_of(_request: Request) -> Measure:
    """Count parameters, for which neither data nor weights are needed.

    Args:
        _request: Of no matter.

    Returns:
        Gives the figure of a cell: of a classifier of two classes.
    """

    def measure(cell: Printed) -> float:
        shape = _models.shape(cell.model)
        embedding, model = shape.embedding_parameters, shape.model_parameters
        figures = {
            "full_vocab_size": float(shape.full_vocab_size),
            "embedding_parameters_millions": embedding / MILLION,
            "model_parameters_millions": model / MILLION,
            "embedding_share_percent": 100 * embedding / model,
        }
        return figures[cell.quantity]

    return measure


if __name__ == "__main__":
    run_script(NAME, TITLE, measure_of)
