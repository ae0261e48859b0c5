"""Texts to train on: utterances of SNIPS, and the conversations that come with the extra demo."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import yaml

LATIN = "PlayMusic"
"""The one file of SNIPS that is not in UTF-8."""


def package_folder(name: str) -> Path:
    """Find a package without running its code.

    Args:
        name: Of one that the extra `demo` brings.

    Returns:
        Its folder.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"The package `{name}` is not installed. It comes with the extra demo.")
    return Path(spec.origin).parent


def snips(data: Path) -> list[tuple[str, int]]:
    """Read what was said.

    Args:
        data: The folder of ``snips``.

    Returns:
        Utterances, each with the number of the intent behind it.
    """
    rows = []
    for label, file in enumerate(sorted((data / "snips").glob("train_*_full.json"))):
        encoding = "latin-1" if LATIN in file.name else "utf-8"
        (utterances,) = json.loads(file.read_text(encoding=encoding)).values()
        rows += [("".join(piece["text"] for piece in said["data"]), label) for said in utterances]
    return rows


def conversations(language: str) -> list[tuple[list[str], int]]:
    """Read the ChatterBot corpus in one language.

    Args:
        language: Such as ``english``.

    Returns:
        The lines of each conversation, with the number of its topic.
    """
    topics = sorted((package_folder("chatterbot_corpus") / "data" / language).glob("*.yml"))
    return [
        ([str(line) for line in conversation], label)
        for label, topic in enumerate(topics)
        for conversation in yaml.safe_load(topic.read_text(encoding="utf-8"))["conversations"]
    ]
