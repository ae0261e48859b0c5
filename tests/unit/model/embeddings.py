"""An embedding that no model is around of, whole and partial."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import subvocab as sv
from tests.models import FULL_VOCAB_SIZE
from tests.reference import drawn_vocabulary, unused_ids

VOCABULARY = drawn_vocabulary()
UNUSED = unused_ids(VOCABULARY)
EVERY_ID = torch.arange(FULL_VOCAB_SIZE)


def plain(**options: Any) -> nn.Embedding:
    """Make an embedding that no model is around of."""
    torch.manual_seed(0)
    return nn.Embedding(FULL_VOCAB_SIZE, 8, **options)


def pair(**options: Any) -> tuple[nn.Embedding, Any]:
    """Make the same embedding twice, whole and partial."""
    whole, partial = plain(**options), plain(**options)
    sv.shrink(partial, VOCABULARY)
    return whole, partial
