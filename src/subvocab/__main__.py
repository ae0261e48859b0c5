"""Run the command line as ``python -m subvocab``."""

from subvocab.cli import main

main()
