"""The distinct ids of GLUE's files, as the paper counted them for its Table 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from subvocab.cli.app import app
from subvocab.vocabulary import TokenCounts

TOKENIZERS = ("bert-base-uncased", "roberta-base", "xlm-roberta")
PAD_IDS = {"bert-base-uncased": 0, "roberta-base": 1, "xlm-roberta": 1}
EXPECTED = {
    "CoLA": (6_089, 6_994, 5_534),
    "MRPC": (13_758, 18_081, 12_806),
    "SST-2": (12_839, 15_781, 9_364),
    "WNLI": (1_740, 1_992, 1_865),
}
SPLITS: dict[str, list[tuple[list[str], list[str], list[str]]]] = {
    "CoLA": [(["train.tsv", "dev.tsv"], ["4"], ["--no-header"]), (["test.tsv"], ["sentence"], [])],
    "MRPC": [
        (
            ["msr_paraphrase_train.txt", "msr_paraphrase_test.txt"],
            ["#1 String", "#2 String"],
            ["--format", "tsv"],
        )
    ],
    "SST-2": [(["train.tsv", "dev.tsv", "test.tsv"], ["sentence"], [])],
    "WNLI": [(["train.tsv", "dev.tsv", "test.tsv"], ["sentence1", "sentence2"], [])],
}
CASES = [
    (task, name, expected)
    for task, row in EXPECTED.items()
    for name, expected in zip(TOKENIZERS, row, strict=True)
]


@pytest.mark.data
@pytest.mark.parametrize(("task", "name", "expected"), CASES)
def test_scan_reproduces_the_distinct_ids_of_glue(
    data_folder: Path, tmp_path: Path, task: str, name: str, expected: int
) -> None:
    """All splits together, truncated to 128 tokens, with the pad id that padding adds."""
    counts = None
    for number, (names, columns, options) in enumerate(SPLITS[task]):
        out = tmp_path / f"{number}.safetensors"
        arguments = [str(data_folder / "glue" / task / file) for file in names]
        arguments += [part for column in columns for part in ("--text-column", column)]
        arguments += ["--tokenizer", str(data_folder / "tokenizers" / name), "--out", str(out)]

        result = CliRunner().invoke(app, ["scan", *arguments, *options, "--max-length", "128"])

        assert result.exit_code == 0, result.stderr
        part = TokenCounts.load(out)
        counts = part if counts is None else counts + part
    assert counts is not None
    assert counts.counts[PAD_IDS[name]] == 0
    assert counts.unique_tokens + 1 == expected
