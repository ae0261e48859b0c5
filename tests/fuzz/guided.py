"""Let coverage guide the mutations: ``python -m tests.fuzz.guided TARGET -max_total_time=600``.

Needs `atheris` (the extra ``fuzz``). Options are libFuzzer's. A file that does harm is written to
``crash-…`` in the working folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random


def main() -> None:
    """Try one target until libFuzzer is told to stop, or has found something."""
    import atheris  # noqa: PLC0415  others read this file too, as for its doctests

    with atheris.instrument_imports(include=["subvocab"]):
        from subvocab.errors import SubvocabError  # noqa: PLC0415
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    name, *options = sys.argv[1:]
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="subvocab-fuzz-", dir="/dev/shm") as parent:
        folder, corpus = Path(parent, "in"), Path(parent, "corpus")
        folder.mkdir()
        corpus.mkdir()
        target.prepare(folder)
        path = folder / target.file
        (corpus / "whole").write_bytes(path.read_bytes())

        def try_one(content: bytes) -> None:
            path.write_bytes(content)
            try:
                target.read(folder)
            except SubvocabError:
                return

        def mutate(content: bytes, most: int, seed: int) -> bytes:
            try:
                changed = target.mutate(content, Random(seed))  # noqa: S311  it is no secret
            except (ValueError, IndexError, RecursionError):  # it is no longer of its format
                changed = atheris.Mutate(content, most)
            return changed[:most]

        atheris.Setup(
            [
                sys.argv[0],
                *options,
                "-rss_limit_mb=4096",
                "-timeout=20",
                "-max_len=65536",
                str(corpus),
            ],
            try_one,
            custom_mutator=mutate,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
