"""Real processes that train together, on the CPU: data parallelism, FSDP2, Accelerate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.models import tiny_model
from tests.pages import python_blocks, run_block
from tests.reference import assert_equal_states, copied
from tests.workers import accelerated, ddp, fsdp
from tests.workers.launching import launch, results_of
from tests.workers.mismatch import STEP_TAKEN

pytestmark = pytest.mark.slow
Results = dict[str, list[str | None]]


@pytest.fixture(scope="module")
def ddp_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run all cases of data parallelism once."""
    return results_in("ddp", tmp_path_factory.mktemp("ddp"))


@pytest.fixture(scope="module")
def fsdp_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run all cases of FSDP2 once."""
    return results_in("fsdp", tmp_path_factory.mktemp("fsdp"))


@pytest.fixture(scope="module", params=[1, 2])
def accelerated_results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    """Run all cases of Accelerate, in one process and in two."""
    return results_in("accelerated", tmp_path_factory.mktemp("accelerated"), ranks=request.param)


def results_in(worker: str, folder: Path, *, ranks: int = 2) -> Results:
    """Run a worker, and give what became of its cases."""
    done = launch(worker, folder, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return results_of(folder, ranks)


def assert_passed(results: list[str | None]) -> None:
    """Show the errors of all ranks, if there are any."""
    assert not any(results), "\n".join(result or "(none)" for result in results)


@pytest.mark.parametrize("case", ddp.CASES)
def test_data_parallelism(case: str, ddp_results: Results) -> None:
    """Each rank has its own batches; what they learn is what the whole model learns."""
    assert_passed(ddp_results[case])


@pytest.mark.parametrize("case", fsdp.CASES)
def test_fully_sharded(case: str, fsdp_results: Results) -> None:
    """Rows, moments and state dicts are spread over the ranks, and put together right."""
    assert_passed(fsdp_results[case])


@pytest.mark.parametrize("case", accelerated.CASES)
def test_accelerate(case: str, accelerated_results: Results) -> None:
    """A loop of Accelerate, its saved states, and what it saves for others."""
    assert_passed(accelerated_results[case])


@pytest.mark.parametrize(
    ("when", "sizes"),
    [("started", "different"), ("late", "same"), ("compiled", "same")],
)
def test_ranks_with_other_data_stop(when: str, sizes: str, tmp_path: Path) -> None:
    """With the reason and the way out, before a step is taken, and without waiting."""
    began = time.monotonic()

    done = launch("mismatch", tmp_path, when, sizes)

    assert done.returncode != 0
    assert time.monotonic() - began < 120
    assert STEP_TAKEN not in done.stdout
    assert "VocabularyMismatchError: Rank" in done.stderr
    assert "each was made from other data, and rows of different tokens" in done.stderr
    assert "let every rank load it with `PartialVocabulary.load(path)`." in done.stderr


def test_the_page_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snippets run in one process as well."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"dataset": [[5, 7, 9]], "model": tiny_model("bert")}

    for block in python_blocks("docs/distributed.md"):
        run_block(block, names)

    assert_equal_states(copied(names["whole"]), tiny_model("bert").state_dict())
