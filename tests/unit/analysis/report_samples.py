"""What the tests of figures and reports draw: a small corpus, and two models."""

from __future__ import annotations

import numpy as np

from subvocab.analysis.anomalies import TokenKind, UnusedToken
from subvocab.analysis.savings import (
    ModelShape,
    ParameterShape,
    Role,
    Savings,
    Training,
    estimate_savings,
)
from subvocab.data import scan_growth
from subvocab.vocabulary import VocabularyGrowth

SIZE = 2000
MARKUP = ["</script><b>", "<script>alert(1)</script>", "a & b", '"quoted"', "日本", "\u2028"]


def growth(tokens: int = 20_000) -> VocabularyGrowth:
    """Read words as frequent as those of a language."""
    ids = np.random.default_rng(0).zipf(1.3, tokens) % SIZE
    return scan_growth(ids, full_vocab_size=SIZE)


def savings() -> list[Savings]:
    """Plan for a classifier, and for a language model with logits over V."""
    body = ParameterShape((64, 64))
    table = ParameterShape((SIZE, 64), Role.TABLE, looked_up=True)
    tied = ParameterShape((SIZE, 64), Role.TIED, looked_up=True, reused=True)
    return [
        estimate_savings(ModelShape("classifier", SIZE, (table, body)), 500),
        estimate_savings(
            ModelShape("speaker <$1>", SIZE, (tied, body)), 500, Training(head="exact")
        ),
    ]


def unused(amount: int = 500) -> list[UnusedToken]:
    """List tokens, the first of which would break a page that does not escape."""
    kinds = list(TokenKind)
    texts = [*MARKUP, *(f"␣word{at}" for at in range(amount - len(MARKUP)))]
    return [UnusedToken(3 * at, text, kinds[at % 4]) for at, text in enumerate(texts)]
