"""Broken and lying files are refused, and nothing else happens; ``make fuzz`` tries a million."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subvocab.errors import SubvocabError
from tests.fuzz.mutation import mutated_json, mutated_safetensors
from tests.fuzz.runner import LONGEST_MESSAGE, mutated, run
from tests.fuzz.targets import TARGETS, Target

QUICK = ("header", "index", "shard", "counts", "vocabulary")


def test_shares_add_up_to_a_hundred() -> None:
    """So that the number of files asked for is the number tried."""
    assert sum(target.share for target in TARGETS.values()) == 100


@pytest.mark.parametrize("name", QUICK)
def test_nothing_but_our_own_errors_comes_out(name: str, tmp_path: Path) -> None:
    """Hypothesis draws the changes, and finds the smallest that does harm."""
    target = TARGETS[name]
    (tmp_path / "in").mkdir()
    target.prepare(tmp_path / "in")
    path = tmp_path / "in" / target.file
    whole = path.read_bytes()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(draw=st.randoms(use_true_random=False))
    def try_one(draw: random.Random) -> None:
        path.write_bytes(target.mutate(whole, draw))
        try:
            target.read(tmp_path / "in")
        except SubvocabError as error:
            assert len(str(error)) <= LONGEST_MESSAGE  # noqa: PT017

    try_one()


@pytest.mark.parametrize("mutate", [mutated_safetensors, mutated_json])
def test_mutations_differ_and_can_be_made_again(mutate: object, tmp_path: Path) -> None:
    """A number makes the same file always, or a fault could not be looked into."""
    name = {mutated_safetensors: "header", mutated_json: "index"}[mutate]  # type: ignore[index]
    target = TARGETS[name]
    target.prepare(tmp_path)
    whole = (tmp_path / target.file).read_bytes()

    made = [mutated(name, target, whole, seed) for seed in range(200)]

    assert made == [mutated(name, target, whole, seed) for seed in range(200)]
    assert len({*made, whole}) > 150


def _misbehave(folder: Path) -> None:
    """Do what no reader may, as the file says."""
    content = (folder / "file").read_bytes()
    if content == b"whole":
        return
    kind = content[0] % 6
    if kind == 0:
        os.kill(os.getpid(), 11)
    elif kind == 1:
        bytearray(2 << 30)
    elif kind == 2:
        Path("/etc/hostname").read_bytes()
    elif kind == 3:
        raise KeyError(kind)
    elif kind == 4:
        raise SubvocabError("refused " * 500)
    else:
        raise SubvocabError("refused")


def test_the_runner_notices_what_it_is_there_for() -> None:
    """A crash, an allocation, a file outside, a stray error and a flood of words are told."""
    target = Target(
        "file",
        lambda folder: (folder / "file").write_bytes(b"whole"),
        lambda _, draw: bytes([draw.randrange(6)]),
        _misbehave,
        1,
    )

    result = run("misbehaving", target, range(40))

    told = " ".join(sorted({fault.what.split(":")[0] for fault in result.faults}))
    assert (
        told
        == "KeyError MemoryError Outside a message of 4,000 characters the process ended with -11"
    )
    assert result.read == 0
    assert len(result.faults) < 40


@pytest.mark.slow
def test_every_target_for_a_while(tmp_path: Path) -> None:
    """A bounded run over all that reads; faults tell the number that makes their file again."""
    files = os.environ.get("FUZZ_FILES", "1500")
    command = [sys.executable, "-m", "tests.fuzz", "--files", files]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}

    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=280
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads(ended.stdout.split(" mutated files")[0].split("\n")[-1].replace(",", ""))
