"""Rules of the house that no other tool checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import subvocab

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    """A file is read as a whole."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_no_public_name_is_a_module_too() -> None:
    """`subvocab.scan` must not become a module when somebody imports one of its name."""
    modules = {path.stem for path in (ROOT / "src" / "subvocab").iterdir()}

    assert set(subvocab.__all__) & modules == set()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_documents_name_targets_that_exist(name: str) -> None:
    """`make` knows every target that people are told to make."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = re.findall(r"(?:`|^ *)make ((?:[a-z-]+ ?)+)", text, re.MULTILINE)
    named = {target for line in lines for target in line.split()}

    assert named <= TARGETS


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_documents_link_to_files_that_exist(name: str) -> None:
    """No link leads nowhere."""
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))

    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_target_is_explained() -> None:
    """A bare `make` lists all that people may want to make."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))

    assert explained == TARGETS
