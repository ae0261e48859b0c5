"""Stop everything that writes at each of its file operations: ``python -m tests.faults``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, below

import torch
import transformers

from benchmarks.harness import save_rows
from tests.faults.tracer import why_not
from tests.faults.trial import all_trials


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
        "--places",
        type=int,
        default=int(os.environ.get("FAULT_PLACES", "0")),
        help="operations of each job to stop it at, in each way; 0 for all",
    )
    parser.add_argument("--only", default="", help="part of the names of the jobs to stop")
    parser.add_argument("--save", action="store_true", help="keep benchmarks/results/faults.csv")
    chosen = parser.parse_args()
    if reason := why_not():
        say(f"Nothing can be stopped on this machine: {reason}.")
        return 1
    # A forked child has one thread, and would wait for the others for ever.
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    begin, kills, stops, faults = time.perf_counter(), 0, 0, []
    rows: list[dict[str, Any]] = []
    say(f"{'stopped':<30}{'how':<11}{'operations':>10}{'stops':>8}{'old':>7}{'new':>7}{'torn':>6}")
    for name, fate, tally in all_trials(chosen.places or None, only=chosen.only):
        count = tally.found.total()
        stops += count
        kills += count if fate in ("killed", "half done") else 0
        found = "".join(f"{tally.found[s]:>{w}}" for s, w in (("old", 7), ("new", 7), ("torn", 6)))
        say(f"{name:<30}{fate:<11}{tally.operations:>10}{count:>8}{found}")
        faults += [f"{name}: {fault}" for fault in tally.faults]
        row = {"stopped": name, "how": fate, "operations": tally.operations, "stops": count}
        states = {state: tally.found[state] for state in ("old", "new", "torn")}
        rows.append({**row, **states, "faults": len(tally.faults)})
    took = time.perf_counter() - begin
    say(f"{kills:,} kills and {stops - kills:,} failures in {took:.0f} s: {len(faults)} faults")
    say("\n".join(faults))
    if chosen.save:
        save_rows("faults", rows)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
