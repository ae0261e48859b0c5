"""Files that lie elsewhere: ``hf://``, ``s3://``, ``https://`` and whatever else fsspec reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any

from subvocab._typing import StrPath
from subvocab.errors import DataError

MARK = "://"


class Url:
    """A file or folder elsewhere, with what readers ask of a `pathlib.Path`.

    Args:
        url: Its address.

    Raises:
        DataError: If fsspec does not know the protocol, or lacks the library for it.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # noqa: PLC0415

        self._url = url
        try:
            self._files, self._path = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise DataError(
                f"{url} cannot be opened: {str(error).rstrip('.')}. Name a local file, or install "
                "the library that fsspec needs for such files (`s3fs` for s3://)."
            ) from error

    def __str__(self) -> str:
        return self._url

    @property
    def suffix(self) -> str:
        """The end of the name, such as ``.parquet``."""
        return PurePosixPath(self._path).suffix

    @cached_property
    def size(self) -> int:
        """Bytes of the file."""
        return int(self._files.size(self._path))

    def exists(self) -> bool:
        """Tell whether there is a file or folder.

        Returns:
            Whether there is.
        """
        return bool(self._files.exists(self._path))

    def is_dir(self) -> bool:
        """Tell whether it is a folder.

        Returns:
            Whether it is.
        """
        return bool(self._files.isdir(self._path))

    def iterdir(self) -> Iterator[Url]:
        """List a folder.

        Yields:
            Files and folders, in order of name.
        """
        yield from self._below(self._files.ls(self._path, detail=False))

    def glob(self) -> Iterator[Url]:
        """Find the files whose names fit this one, which has wildcards.

        Yields:
            The files, in order of name.
        """
        yield from self._below(self._files.glob(self._path))

    def _below(self, paths: list[str]) -> Iterator[Url]:
        for path in sorted(paths):
            yield Url(self._files.unstrip_protocol(path))

    def open(self) -> Any:
        """Open the file for reading.

        Returns:
            A binary file, read as it is asked for.
        """
        return self._files.open(self._path, "rb")


def file_at(path: StrPath | Url) -> Path | Url:
    """Tell a URL from a path.

    Args:
        path: Either.

    Returns:
        What can be read.
    """
    if isinstance(path, Url):
        return path
    text = os.fspath(path)
    return Url(text) if MARK in text else Path(text)


def files_at(name: str) -> list[Path | Url]:
    """Find what a name stands for that may be a URL with wildcards.

    Args:
        name: A path or URL. Wildcards of paths are for the shell to expand.

    Returns:
        Files and folders, those of a URL in order of name.

    Raises:
        DataError: If no file fits.

    Example:
        >>> [str(file) for file in files_at("a.parquet")]
        ['a.parquet']
    """
    file = file_at(name)
    if not isinstance(file, Url) or not has_magic(name):
        return [file]
    found: list[Path | Url] = [*file.glob()]
    if not found:
        raise DataError(f"No file has a name like {name}.")
    return found
