"""Tests of the memory that loading takes: that of the small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import tiny_model
from tests.unit.model.loading import run_offline

MEASURING = """
import sys, numpy as np, transformers as hf, subvocab as sv
vocabulary = sv.PartialVocabulary(np.arange(0, 60_000, 60), 60_000)
cls, folder = hf.AutoModelForSequenceClassification, {folder!r}
sv.from_pretrained(cls, {small!r}, sv.PartialVocabulary(np.arange(9), 300))  # imports and caches
with sv.PeakMemory() as memory:
    if {whole}:
        model = cls.from_pretrained(folder)
        kept = [p.data.clone() for p in model.parameters()]
    else:
        model = sv.from_pretrained(cls, folder, vocabulary, **{options})
        {then}
print(memory.peak_bytes)
"""


@pytest.mark.slow
def test_from_pretrained_never_holds_the_matrix(tmp_path: Path) -> None:
    """Private memory for the small model, and no more to save it whole; 61 MB the other way."""
    small, large = str(tmp_path / "small"), str(tmp_path / "large")
    tiny_model("bert").save_pretrained(small)
    tiny_model("bert", vocab_size=60_000, hidden_size=256).save_pretrained(large)
    assert (tmp_path / "large/model.safetensors").stat().st_size > 60_000_000

    def peak(*, whole: bool = False, options: str = "{}", then: str = "pass") -> int:
        code = MEASURING.format(folder=large, small=small, whole=whole, options=options, then=then)
        return int(run_offline(tmp_path, code))

    assert peak(whole=True) > 50_000_000  # the measure sees what is held
    assert peak() < 15_000_000
    assert peak(options="{'dtype': 'bfloat16'}") < 15_000_000
    saving = f"model.save_pretrained({str(tmp_path / 'out')!r})"
    assert peak(then=saving) < 25_000_000
