"""Count the tokens of a dataset, from ids or from texts, wherever it is kept (no torch)."""

from subvocab.data.scanner import scan

__all__ = ["scan"]
