"""The environment of each peer: made once, in ``build/peers``, and named by what it holds."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "peers"
OF_TRANSFORMERS = ("transformers", "tokenizers", "huggingface_hub")
"""What another version of transformers brings in versions of its own."""


def python_of(requirements: tuple[str, ...], transformers: str) -> Path:
    """Make the environment of a peer, if there is none yet.

    Args:
        requirements: For pip, beside torch, transformers and what the trial itself needs.
        transformers: The version; the tested one if empty.

    Returns:
        Its Python.
    """
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if transformers:
        pinned = [line for line in pinned if line.split("==")[0] not in OF_TRANSFORMERS]
        pinned.append(f"transformers=={transformers}")
    wanted = ("torch", "transformers", "safetensors", "psutil", *requirements)
    content = "\n".join((*wanted, *pinned))
    folder = FOLDER / hashlib.sha256(content.encode()).hexdigest()[:12]
    python = folder / "bin" / "python"
    stamp = folder / "complete"
    if not stamp.exists():
        print(f"Making an environment with {', '.join(wanted)} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(pinned) + "\n", encoding="utf-8")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", str(constraints), *wanted], check=True)
        stamp.touch()
    return python


def run_in(python: Path, *arguments: str) -> str:
    """Run a trial there.

    Args:
        python: From `python_of`.
        *arguments: Of ``benchmarks.peers.trial``.

    Returns:
        What it printed last.
    """
    paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **quiet}
    command = [str(python), "-W", "ignore", "-m", "benchmarks.peers.trial", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return str(done.stdout).splitlines()[-1]
