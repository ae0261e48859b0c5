"""Every language model of transformers: none is silently wrong, and a change in support is seen."""

from __future__ import annotations

import pytest
import transformers as hf

from tests.every_family import (
    EQUAL,
    META,
    NOT_BUILT,
    REFUSED,
    WRONG,
    families,
    read_table,
    try_family,
)
from tests.models import LANGUAGE_MODELS

MADE_WITH, TABLE = read_table()
RENEW = "Run `python -m tests.every_family` and look at the difference."

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        hf.__version__ != MADE_WITH,
        reason=f"the table was made with transformers {MADE_WITH}, here is {hf.__version__}",
    ),
    # Default configurations warn of much that is none of our business.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize(("name", "head"), families())
def test_a_family_is_as_the_table_says(name: str, head: str) -> None:
    """Supported means that loss and gradients are the whole model's; else there is a reason."""
    expected = TABLE[name]

    found = try_family(name, head)

    assert found.outcome != WRONG, found.reason
    assert found.outcome == expected.outcome, f"{found.reason} {RENEW}"
    if found.outcome == REFUSED:
        assert found.reason == expected.reason, RENEW


def test_the_table_holds_every_family_and_nothing_else() -> None:
    """A family that transformers gains or loses is one to look at."""
    assert [(outcome.name, outcome.head) for outcome in TABLE.values()] == families()
    assert {outcome.outcome for outcome in TABLE.values()} <= {EQUAL, REFUSED, META, NOT_BUILT}


def test_most_families_are_measured() -> None:
    """The walk cannot become empty unseen: most families are in it, the widely used ones too."""
    measured = {name for name, outcome in TABLE.items() if outcome.outcome == EQUAL}

    assert len(measured) > len(TABLE) * 0.85
    assert len(measured) > len(LANGUAGE_MODELS)
    assert all(o.reason for o in TABLE.values() if o.outcome != EQUAL)
