"""The public names are complete, in order, and where they are said to be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import subvocab


def _imported_for_types() -> dict[str, str]:
    """Give the module of every name that `subvocab/__init__.py` imports for type checkers."""
    tree = ast.parse(Path(str(subvocab.__file__)).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in blocks[0].body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_all_is_sorted() -> None:
    """Names are found where they are looked for."""
    assert subvocab.__all__ == sorted(set(subvocab.__all__))


@pytest.mark.parametrize("name", subvocab.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    """A name that is promised is there, and documented."""
    assert getattr(subvocab, name).__doc__


def test_lazy_names_agree_with_what_type_checkers_see() -> None:
    """A name loads from the module that tools believe it to be in."""
    assert _imported_for_types() == subvocab._HOMES


def test_all_names_every_lazy_name() -> None:
    """Nothing is public by accident, and nothing is forgotten."""
    eager = {name for name, value in vars(subvocab).items() if isinstance(value, type)}

    assert set(subvocab.__all__) == subvocab._HOMES.keys() | eager


def test_dir_lists_what_is_public() -> None:
    """Completion offers lazy names, too."""
    assert dir(subvocab) == subvocab.__all__


def test_unknown_names_are_refused_as_python_does() -> None:
    """`hasattr` and misspelled imports rely on it."""
    with pytest.raises(AttributeError, match=r"^module 'subvocab' has no attribute 'prune'$"):
        _ = subvocab.prune
