"""Make a whole file a broken or a lying one, with its format in mind."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

Mutate = Callable[[bytes, Random], bytes]
DEEP = 3_000

NUMBERS = (
    *(-1, 0, 1, 2, 7, 8, 255, 256, 2**31 - 1, 2**31, 2**32, 2**40, 2**53 + 1, 2**62),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -(2**63), -(2**64)),
)
TEXTS = (
    *(
        "",
        "0",
        "-1",
        "a",
        "weight",
        "F32",
        "U8",
        "F4",
        "I64",
        "BF16",
        "é",
        "\0",
        "\ud800",
        "x" * 5_000,
    ),
    *("..", "/etc/passwd", "../../etc/passwd", "a/../../b", "C:\\x", "model.safetensors", "nan"),
)


class Raw(str):
    """JSON text that is written as it is."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """A JSON object, which may name a key twice."""


HOSTILE: tuple[Any, ...] = (
    *NUMBERS,
    *TEXTS,
    *(True, False, None, [], Pairs(), 0.5, -0.0, 1e308),
    *map(Raw, ("NaN", "Infinity", "-Infinity", "1e999", "1" * 5_000, "[" * DEEP + "]" * DEEP)),
    Raw('{"a":' * DEEP + "0" + "}" * DEEP),
)


def mutated_bytes(content: bytes, draw: Random) -> bytes:
    """Change bytes without regard to their meaning.

    Args:
        content: A file.
        draw: Where chance comes from.

    Returns:
        Another file.
    """
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = draw.randrange(len(changed) + 1)
        length = draw.choice((1, 1, 2, 4, 8, 64))
        change = draw.randrange(7)
        if change == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif change == 1:
            changed[at : at + length] = draw.randbytes(length)
        elif change == 2:
            del changed[at : at + length]
        elif change == 3:
            changed[at:at] = changed[at : at + length] * draw.choice((1, 2, 50))
        elif change == 4:
            del changed[at:]
        elif change == 5:
            number = draw.choice(NUMBERS) & (1 << 8 * length) - 1
            changed[at : at + length] = number.to_bytes(length, "little")
        else:
            changed[at:at] = draw.choice(TEXTS).encode(errors="surrogatepass")
    return bytes(changed)


def mutated_json(content: bytes, draw: Random) -> bytes:
    """Change values, names and shape of JSON.

    Args:
        content: JSON text.
        draw: Where chance comes from.

    Returns:
        Text that is mostly JSON still.
    """
    if draw.random() < 0.1:
        return mutated_bytes(content, draw)
    root = [json.loads(content, object_pairs_hook=Pairs)]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        _change(root, draw)
    return _written(root[0] if root else None).encode(errors="surrogatepass")


def _change(root: list[Any], draw: Random) -> None:
    """Change one thing, anywhere in a tree."""
    place, at = draw.choice(_places(root))
    named = isinstance(place, Pairs)
    value = place[at][1] if named else place[at]
    change = draw.randrange(8)
    if change == 0:
        del place[at]
        return
    if change == 1:
        place.insert(draw.randrange(len(place) + 1), place[at])
        return
    if change == 2 and named:
        place[at] = (draw.choice(TEXTS), value)
        return
    if change == 3 and type(value) is int:
        new: Any = value + draw.choice((-1, 1, 8, -8, value, 2**32, 2**63, 2**64))
    elif change == 4:
        other, there = draw.choice(_places(root))
        new = other[there][1] if isinstance(other, Pairs) else other[there]
    elif change == 5 and isinstance(value, str):
        new = mutated_bytes(value.encode(errors="surrogatepass"), draw).decode("latin-1")
    elif change == 6:
        new = [value]
    else:
        new = draw.choice(HOSTILE)
    new = deepcopy(new)  # or a tree might hold itself
    place[at] = (place[at][0], new) if named else new


def _places(root: list[Any]) -> list[tuple[list[Any], int]]:
    """List every place of a tree that holds a value; a value may be in several."""
    found: list[tuple[list[Any], int]] = []
    open_places = [root]
    while open_places and len(found) < 2_000:
        place = open_places.pop()
        for at, held in enumerate(place):
            found.append((place, at))
            value = held[1] if isinstance(place, Pairs) else held
            if isinstance(value, list):
                open_places.append(value)
    return found or [([None], 0)]


def _written(value: Any) -> str:
    """Write JSON that `json` would not write."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(n)}:{_written(held)}" for n, held in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def mutated_safetensors(content: bytes, draw: Random) -> bytes:
    """Change the header, the data, or what they say of each other.

    Args:
        content: A safetensors file.
        draw: Where chance comes from.

    Returns:
        Another file.
    """
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    change = draw.random()
    if change < 0.1:
        return mutated_bytes(content, draw)
    if change < 0.2:
        wrong = draw.choice((*NUMBERS, length - 1, length + 1, len(content))) % 2**64
        return wrong.to_bytes(8, "little") + header + data
    if change < 0.35:
        data = mutated_bytes(data, draw)
    else:
        header = mutated_json(header, draw)
    return len(header).to_bytes(8, "little") + header + data


def mutated_lines(content: bytes, draw: Random) -> bytes:
    """Change lines and what parts them, or the JSON in one.

    Args:
        content: Lines of text.
        draw: Where chance comes from.

    Returns:
        Other lines.
    """
    lines = content.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    change = draw.randrange(6)
    if change == 0:
        lines[at:at] = lines[at : at + 1] * draw.choice((1, 2, 600))
    elif change == 1:
        lines[at] = draw.choice((b"\n", b"\r\n", b"\r", b",\n", b'"\n', b"\t\t\n", b"\xef\xbb\xbf"))
    elif change == 2:
        lines[at] = lines[at].rstrip(b"\n")
    elif change == 3 or not lines[at].startswith(b"{"):
        return mutated_bytes(content, draw)
    else:
        lines[at] = mutated_json(lines[at], draw) + b"\n"
    return b"".join(lines)
