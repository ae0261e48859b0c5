"""Open files here and elsewhere, read them line by line, and tell why one cannot be read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from subvocab._atomic import naming
from subvocab.data.parts import BATCH_ROWS
from subvocab.data.urls import Url
from subvocab.errors import DataError, shortened

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def for_arrow(path: Path | Url) -> Any:
    """Let Arrow open what it can open by itself, which is quicker.

    Args:
        path: The file.

    Returns:
        What Arrow's readers take.
    """
    return path if isinstance(path, Path) else path.open()


def size_of(path: Path | Url) -> float | None:
    """Tell how much there is to read.

    Args:
        path: The file.

    Returns:
        Its bytes; None if a server does not tell.
    """
    return float(path.stat().st_size) if isinstance(path, Path) else path.size


def lines_of(path: Path | Url) -> Iterator[tuple[int, list[bytes], int]]:
    """Read some lines at a time, without the byte order mark.

    Args:
        path: The file. It is read from its start to its end, since not all can be sought in.

    Yields:
        The number of the first line, the lines, and their bytes.
    """
    with naming(Path(str(path))), _opened(path) as file:
        beginning = file.readline().removeprefix(BYTE_ORDER_MARK)
        remaining = chain(filter(None, [beginning]), file)
        first = 0
        while lines := list(islice(remaining, BATCH_ROWS)):
            yield first, lines, sum(map(len, lines))
            first += len(lines)


@contextmanager
def arrow_reads(path: Path | Url) -> Iterator[None]:
    """Turn what Arrow says of a file that it cannot read into one message.

    Args:
        path: The file.

    Yields:
        Nothing.
    """
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path | Url, error: Exception) -> DataError:
    """Tell what is wrong with a file, and which line is no text if one is not.

    Args:
        path: The file.
        error: What a reader said.

    Returns:
        The error to raise.
    """
    with _opened(path) as file:
        beginning = file.readline()
        if beginning.startswith((GZIP, *UTF_16)):
            kind, cure = ("UTF-16", "iconv -f UTF-16 -t UTF-8")
            if beginning.startswith(GZIP):
                kind, cure = ("compressed by gzip", "gunzip")
            return DataError(f"{path} is {kind}, expected text in UTF-8. Convert it by `{cure}`.")
        for number, line in enumerate(chain([beginning], file), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as wrong:
                if path.suffix == ".parquet":
                    break
                return DataError(
                    f"Line {number:,} of {path} is not UTF-8: byte 0x{line[wrong.start]:02X} at "
                    f"its position {wrong.start + 1:,}. Convert the file first, as with `iconv -f "
                    "LATIN1 -t UTF-8`."
                )
    return DataError(
        f"{path} cannot be read: {shortened(str(error).rstrip('.'))}. Is it UTF-8, and in the "
        "format that its name or `file_format` tells?"
    )


def _opened(path: Path | Url) -> io.BufferedReader:
    """Open for reading line by line; a file elsewhere would seek back after each line."""
    return path.open("rb") if isinstance(path, Path) else io.BufferedReader(path.open())
