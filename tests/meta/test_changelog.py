"""The change log speaks of the version there is."""

from __future__ import annotations

import re
from pathlib import Path

import subvocab

ROOT = Path(__file__).parents[2]
HEADING = re.compile(r"^## (\d+\.\d+\.\d+) - (unreleased|\d{4}-\d{2}-\d{2})$", re.MULTILINE)


def test_top_version_is_that_of_the_package() -> None:
    """A release cannot be made without a word on what it changes."""
    versions = HEADING.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))

    assert versions[0][0] == subvocab.__version__


def test_every_second_level_heading_is_a_version() -> None:
    """Tools that read the file find every release."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert text.count("\n## ") == len(HEADING.findall(text))
