"""Count the tokens of a dataset, from ids or from texts, wherever it is kept (no torch)."""

from subvocab.data.scanner import scan, scan_growth

__all__ = ["scan", "scan_growth"]
