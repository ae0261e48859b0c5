"""What the tests of loading share: a vocabulary, a class, and a process without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import transformers as hf

from tests.reference import drawn_vocabulary

VOCABULARY = drawn_vocabulary()
CLASSIFIER = hf.AutoModelForSequenceClassification


def run_offline(home: Path, code: str) -> str:
    """Run code in a process that knows only this cache, and no network."""
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
