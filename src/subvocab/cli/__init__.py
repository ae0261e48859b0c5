"""The command line: ``subvocab``."""

from __future__ import annotations


def main() -> None:
    """Run the command line; the entry point of ``subvocab``."""
    from subvocab.cli.app import app  # noqa: PLC0415

    app(prog_name="subvocab")


__all__ = ["main"]
