"""What the tests of row adapters share: three trainings, and what was learned in each."""

from __future__ import annotations

from typing import Any

import pytest

from subvocab.model.row_adapter import RowAdapter
from tests.unit.model.row_adapters import classifier


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Give three trainings: of low, high and middling tokens."""
    ranges = {"low": (5, 60), "high": (100, 160), "middle": (40, 120)}
    return {name: classifier(*ids, seed=10 * ids[0]) for name, ids in ranges.items()}


@pytest.fixture(scope="module")
def learned(models: dict[str, Any]) -> dict[str, RowAdapter]:
    """Give their learned rows."""
    return {name: RowAdapter.of(model) for name, model in models.items()}


@pytest.fixture(scope="module")
def added(models: dict[str, Any]) -> dict[str, RowAdapter]:
    """Give their differences to the base."""
    return {name: RowAdapter.of(model, differences=True) for name, model in models.items()}
