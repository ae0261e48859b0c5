"""What is quick stays quick: heavy libraries are imported where they are needed, not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "datasets", "numba", "sklearn", "pyarrow", "rich"}
TORCH = {"torch", "transformers", "accelerate"}
HELP = "from subvocab.cli.app import app; app({arguments}, standalone_mode=False)"


def _imported(program: str) -> set[str]:
    """Run a program in a process of its own, and give the top-level modules that it imported."""
    report = "\nimport sys; print('MODULES', *{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", program + report]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_importing_the_package_is_light() -> None:
    """`import subvocab` imports no library at all that takes time."""
    assert not _imported("import subvocab") & HEAVY


@pytest.mark.parametrize("module", ["vocabulary", "data", "storage", "analysis.report"])
def test_the_lower_half_imports_no_torch(module: str) -> None:
    """Scanning runs on workers that have no model."""
    assert not _imported(f"import subvocab.{module}") & TORCH


@pytest.mark.parametrize("arguments", [["--help"], ["finetune", "--help"], ["--version"]])
def test_help_is_instant(arguments: list[str]) -> None:
    """Help imports what reads command lines, and nothing else."""
    assert not _imported(HELP.format(arguments=arguments)) & HEAVY


@pytest.mark.parametrize("program", ["import torch", "import subvocab; subvocab.shrink"])
def test_the_check_can_fail(program: str) -> None:
    """The checks above would see an import if there were one."""
    assert "torch" in _imported(program)
