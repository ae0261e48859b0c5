"""ARCHITECTURE.md is short, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
LEAD = re.compile(r" *(\w+(?: · \w+)*)(?:  | \(|$)")
LAYER = re.compile(r"^    (\w+)/ +", re.MULTILINE)


def _code_map() -> dict[str, str]:
    """Give what the code map says of every folder."""
    block = TEXT[TEXT.index("\n    cli/") : TEXT.index("\n    errors ")]
    parts = LAYER.split(block)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")}


def test_it_is_short() -> None:
    """It is read in one sitting."""
    assert len(TEXT.splitlines()) <= 150


def test_every_test_it_names_exists() -> None:
    """An invariant without its test is a wish."""
    named = set(re.findall(r"`(tests/[\w/.]+)`", TEXT))

    assert len(named) >= 10
    assert {path for path in named if not (ROOT / path).is_file()} == set()


def test_its_code_map_has_every_folder() -> None:
    """A new folder gets a line."""
    folders = {path.parent.name for path in (ROOT / "src" / "subvocab").glob("*/__init__.py")}

    assert set(_code_map()) == folders


def test_its_code_map_has_every_module() -> None:
    """A new module gets a word; those with an underscore need none."""
    missing = {
        f"{folder}/{name}"
        for folder, said in _code_map().items()
        for name in _modules(ROOT / "src" / "subvocab" / folder)
        if not name.startswith("_") and not re.search(rf"\b{name}\b", said)
    }

    assert missing - {"cli/app", "cli/tokenizer"} == set()


def test_its_code_map_names_no_module_that_is_gone() -> None:
    """What leads a line, before the gap, is modules."""
    gone = {
        f"{folder}/{name}"
        for folder, said in _code_map().items()
        for line in said.splitlines()
        if (lead := LEAD.match(line))
        for name in lead[1].split(" · ")
        if name not in _modules(ROOT / "src" / "subvocab" / folder)
    }

    assert gone == set()
