"""Texts to train on: utterances of SNIPS, and the conversations that come with the extra demo."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import yaml


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


def utterances(data: Path, pattern: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Read SNIPS.

    Args:
        data: The folder of ``snips``.
        pattern: Names its files, such as ``validate_*.json``.

    Yields:
        Of each utterance the intent, and its pieces of text, some of which are slots.
    """
    for file in sorted((data / "snips").glob(pattern)):
        content = file.read_bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:  # as published, one file is not UTF-8
            text = content.decode("latin-1")
        for intent, said in json.loads(text).items():
            for utterance in said:
                yield intent, utterance["data"]


def snips(data: Path) -> list[tuple[str, int]]:
    """Read what was said, to tell the intents.

    Args:
        data: The folder of ``snips``.

    Returns:
        Utterances, each with the number of the intent behind it.
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    return [
        ("".join(piece["text"] for piece in pieces), numbers[intent])
        for intent, pieces in utterances(data, "train_*_full.json")
    ]


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
