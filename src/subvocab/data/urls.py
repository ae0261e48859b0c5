"""Files that lie elsewhere: ``hf://``, ``s3://``, ``https://`` and whatever else fsspec reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from glob import has_magic
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from subvocab._typing import StrPath
from subvocab.errors import DataError, shortened

MARK = "://"


class Url:
    """A file or folder elsewhere, with what readers ask of a `pathlib.Path`.

    Args:
        url: Its address.
        is_folder: Whether it is a folder, if that is known.

    Raises:
        DataError: If fsspec does not know the protocol, or lacks the library for it.
    """

    def __init__(self, url: str, *, is_folder: bool | None = None) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # noqa: PLC0415

        self._url, self._is_folder = url, is_folder
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
    def name(self) -> str:
        """The last part of the address; of one with a query, what stands before that."""
        path = urlsplit(self._path).path if MARK in self._path else self._path
        return PurePosixPath(path).name

    @property
    def suffix(self) -> str:
        """The end of the name, such as ``.parquet``."""
        return PurePosixPath(self.name).suffix

    @cached_property
    def size(self) -> float | None:
        """Bytes of the file; None if its server does not tell."""
        size = self._files.size(self._path)
        return None if size is None else float(size)

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Turn whatever a protocol raises into one error.

        Yields:
            Nothing.

        Raises:
            DataError: If the file, or what was asked about it, cannot be had; says why.
        """
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self} cannot be read ({type(error).__name__}: {shortened(error).rstrip('.')}). "
                "Look whether the address is right and open to you, or name a copy on this machine."
            ) from error

    def exists(self) -> bool:
        """Tell whether there is a file or folder.

        Returns:
            Whether there is. What cannot be told is an error.
        """
        with self.reached():
            try:
                self._files.info(self._path)
            except FileNotFoundError as error:
                # Over HTTP that is any failure; its cause tells them apart.
                cause = error.__cause__
                if cause is None or getattr(cause, "status", None) == HTTPStatus.NOT_FOUND:
                    return False
                raise cause from None
        return True

    def is_dir(self) -> bool:
        """Tell whether it is a folder.

        Returns:
            Whether it is.
        """
        if self._is_folder is None:
            with self.reached():
                self._is_folder = bool(self._files.isdir(self._path))
        return self._is_folder

    def iterdir(self) -> Iterator[Url]:
        """List a folder.

        Yields:
            Files and folders, in order of name.
        """
        with self.reached():
            entries = self._files.ls(self._path, detail=True)
        for name, kind in sorted((entry["name"], entry["type"]) for entry in entries):
            is_folder = {"directory": True, "file": False}.get(kind)
            yield Url(self._files.unstrip_protocol(name), is_folder=is_folder)

    def glob(self) -> Iterator[Url]:
        """Find the files whose names fit this one, which has wildcards.

        Yields:
            The files, in order of name.
        """
        with self.reached():
            paths = self._files.glob(self._path)
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
