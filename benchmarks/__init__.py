"""Measurements of speed and memory: ratios taken in one run, printed by `make bench`."""
