"""Try everything that reads files with broken and lying ones: ``python -m tests.fuzz``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, below
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Where files may be opened: names that might be on the Hub make it look for the user's token.
os.environ["HF_HOME"] = f"{tempfile.gettempdir()}/subvocab-no-hub"

import torch
import transformers

from benchmarks.harness import save_rows
from tests.fuzz.runner import run
from tests.fuzz.targets import TARGETS

WIDTHS = {"files": 10, "refused": 10, "read": 10, "per second": 12}


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Print a table, and the faults.

    Returns:
        The exit status: 1 if there were faults.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--files",
        type=int,
        default=int(os.environ.get("FUZZ_FILES", "1000000")),
        help="how many, over all targets",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the number of the first of each target"
    )
    parser.add_argument("--only", default="", help="part of the names of the targets")
    parser.add_argument("--save", action="store_true", help="keep benchmarks/results/fuzz.csv")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    faults, total, begin = 0, 0, time.perf_counter()
    rows: list[dict[str, Any]] = []
    head = "".join(f"{key:>{w}}" for key, w in WIDTHS.items())
    say(f"{'target':<16}{head}{'faults':>8}")
    for name, target in TARGETS.items():
        if chosen.only in name:
            count = max(1, chosen.files * target.share // 100)
            result = run(name, target, range(chosen.seed, chosen.seed + count))
            total += count
            faults += len(result.faults)
            figures = {
                "files": count,
                "refused": result.refused,
                "read": result.read,
                "per second": round(count / result.seconds),
            }
            rows.append({"target": name, **figures, "faults": len(result.faults)})
            line = "".join(f"{figures[key]:>{w},}" for key, w in WIDTHS.items())
            say(f"{name:<16}{line}{len(result.faults):>8}")
            for fault in result.faults:
                say(f"    --only {name} --seed {fault.seed} --files 1: {fault.what}")
    took = time.perf_counter() - begin
    say(f"{total:,} mutated files in {took:.0f} s: {faults} faults")
    if chosen.save:
        save_rows("fuzz", rows)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
