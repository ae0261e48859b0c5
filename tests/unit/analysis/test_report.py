"""The page holds the numbers, escapes what it is given, and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib import pyplot as plt

from subvocab.analysis.report import check_libraries, write_report
from subvocab.data import scan_growth
from subvocab.errors import DataError, MissingExtraError
from tests.unit.analysis.report_samples import MARKUP, SIZE, growth, savings, unused

GROWTH = growth()


@pytest.fixture(scope="module")
def page() -> str:
    """Render all that a page can hold."""
    return _render(
        GROWTH,
        unused(),
        savings=savings(),
        data="a <b> & c.txt",
        tokenizer="tiny",
        about={"Data": "a <b> & c.txt"},
    )


def _render(*arguments: Any, **options: Any) -> str:
    stream = io.StringIO()
    write_report(stream, *arguments, **options)
    return stream.getvalue()


def _svgs(page: str) -> list[ET.Element]:
    return [
        ET.fromstring(drawn)  # noqa: S314  (made above)
        for drawn in re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    ]


def _unused_data(page: str) -> dict[str, Any]:
    held = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert held
    found: dict[str, Any] = json.loads(held[1])
    return found


def test_page_tells_the_headline_figures(page: str) -> None:
    """What everybody asks first is at the top."""
    counts = GROWTH.counts
    top = page[: page.index('id="growth"')]

    for number in (SIZE, counts.total_tokens, counts.unique_tokens):
        assert f"{number:,}" in top
    assert f"{counts.unique_tokens / SIZE:.1%}</em>" in top
    assert f"<dd>{len(counts.partial_vocabulary()):,} " in top


def test_page_is_the_same_each_time(page: str) -> None:
    """Neither a date nor chance gets in."""
    again = _render(
        growth(),
        unused(),
        savings=savings(),
        data="a <b> & c.txt",
        tokenizer="tiny",
        about={"Data": "a <b> & c.txt"},
    )

    assert again == page


def test_page_touches_no_pyplot(page: str) -> None:
    """A report made within a notebook leaves its figures alone."""
    assert page
    assert plt.get_fignums() == []


def test_page_names_nothing_outside(page: str) -> None:
    """All is in the page, and the page forbids the rest; names of XML are no addresses."""
    for name in ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"):
        page = page.replace(name, "")

    assert re.findall(r"https?:|(?:src|srcset)=|@import|<link|<iframe|url\((?!#)", page) == []
    assert "default-src 'none'" in page


def test_page_allows_its_own_script_only(page: str) -> None:
    """The policy carries the digest of the one script, byte for byte."""
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()

    assert f"script-src 'sha256-{digest}'" in page
    assert page.count("<script") == 2


def test_page_escapes_what_it_is_given(page: str) -> None:
    """A file, a model or a token may be called anything."""
    assert "a <b> & c" not in page
    assert "a &lt;b&gt; &amp; c.txt" in page
    assert "<script>alert" not in page
    assert "speaker &lt;$1&gt;" in page


def test_page_holds_every_unused_token(page: str) -> None:
    """The script finds ids, kinds and texts as they are."""
    data = _unused_data(page)

    assert np.cumsum(data["gaps"]).tolist() == [token.token_id for token in unused()]
    assert data["texts"] == [token.text for token in unused()]
    assert [data["names"][int(k)] for k in data["kinds"]] == [t.kind.value for t in unused()]
    assert data["texts"][: len(MARKUP)] == MARKUP


def test_page_shows_the_first_tokens_without_a_script(page: str) -> None:
    """A hundred rows stand there to begin with."""
    body = page[page.index('id="unused-table"') : page.index('class="pager"')]
    texts = [unescape(text) for text in re.findall(r"<bdi>(.*?)</bdi>", body, re.DOTALL)]

    assert texts == [token.text for token in unused()[:100]]


def test_figures_take_the_colours_of_the_page(page: str) -> None:
    """No colour of its own is left in a drawing, so that it follows light and dark."""
    assert len(_svgs(page)) == 9
    for drawn in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
        assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) <= {"#000000"}
    used = set(re.findall(r"var\(--([a-z]+)\)", page))
    assert used <= set(re.findall(r"--([a-z]+):", page))


def test_figures_keep_text_as_text(page: str) -> None:
    """It can be searched, and takes the font of the page."""
    texts = {text for svg in _svgs(page) for text in svg.itertext()}

    assert {"tokens read", "memory for training, GB", "speaker <$1>", "Heaps' law"} <= texts
    assert "font-family" not in "".join(re.findall(r"<svg .*?</svg>", page, re.DOTALL))


def test_figures_share_no_ids(page: str) -> None:
    """Parts of one drawing must not be taken from another, nor from the page."""
    ids = re.findall(r'\bid="([^"]+)"', page)

    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#|for="|labelledby=")([^")]+)', page)) <= set(ids)


def test_figures_have_alternatives_with_the_numbers(page: str) -> None:
    """Who does not see a figure is told what it says."""
    alternatives = re.findall(r'role="img" aria-label="([^"]+)"', page)
    told = unescape(" ".join(alternatives))

    assert len(alternatives) == page.count('role="img"') == page.count("<figure") == 5
    for plan in savings():
        assert f"{plan.model}: {plan.parameters.embedding_reduction:.1%}" in told
    assert f"{GROWTH.counts.unique_tokens:,} after 20,000" in told


def test_figures_are_told_where_bars_are_longer_than_the_total(page: str) -> None:
    """The line in a bar is explained where there is one, and only there."""
    assert "most that is held at the same time" in page
    assert "most that is held" not in _render(GROWTH, savings=savings()[:1])


def test_output_heads_are_no_free_lunch(page: str) -> None:
    """Where PEMA is not what full training is, the page says so."""
    assert "Full training of a model with an output head moves" in page
    assert "Full training of a model" not in _render(GROWTH, savings=savings()[:1])


def test_one_text_has_no_law_and_a_page() -> None:
    """It is said why nothing was fitted."""
    page = _render(scan_growth([[1, 2]], full_vocab_size=5))

    assert "No law could be fitted: 2 tokens are too few" in page
    assert "Fitted laws" not in page


def test_no_models_no_sections_on_them() -> None:
    """A page without models is whole."""
    page = _render(GROWTH, unused())

    assert 'id="memory"' not in page
    assert 'id="savings"' not in page


def test_nothing_unused_is_said() -> None:
    """An empty table helps nobody."""
    page = _render(scan_growth([[0, 1, 2] * 20], full_vocab_size=3))

    assert "the data use every token of the vocabulary" in page
    assert "<script" not in page


def test_nothing_read_is_refused() -> None:
    """There is nothing to show."""
    with pytest.raises(DataError) as caught:
        _render(scan_growth([[]], full_vocab_size=5))

    assert str(caught.value) == (
        "There is nothing to report: the data hold no token. Scan other data."
    )


def test_write_report_gives_the_numbers_on_the_page(tmp_path: Path) -> None:
    """What is printed is what is shown."""
    out = tmp_path / "a.html"

    figures = write_report(out, GROWTH, unused(), savings=savings()).figures()

    assert out.read_bytes() == _render(GROWTH, unused(), savings=savings()).encode()
    assert figures["unused"] == {"special": 125, "byte": 125, "unreachable": 125, "plain": 125}
    assert figures["coverage"][-1] == {
        "share": 1.0,
        "tokens": GROWTH.counts.unique_tokens,
        "covered": 1.0,
    }
    assert figures["fits"]["saturating"]["asymptote"] == SIZE
    assert figures["savings"][1]["full_bytes"]["total"] == savings()[1].full.total
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_without_a_library_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """Reports are an extra."""
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(MissingExtraError) as caught:
        check_libraries()

    assert str(caught.value) == (
        f"Writing a report needs `{library}`, which is not installed. "
        "Run `pip install 'subvocab[report]'`."
    )
