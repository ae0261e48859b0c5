"""The report works where people read it: in a browser, in the dark, on a phone, by keyboard."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from subvocab.analysis.report import write_report
from tests.unit.analysis.report_samples import MARKUP, growth, savings, unused

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if BROWSER is None:
    pytest.skip(
        "no Chromium is on the path, so the report was not opened in a browser",
        allow_module_level=True,
    )
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MANY = 250_000
PHONE = {"width": 375, "height": 812}
CONTRAST = """
([front, back]) => {
  const light = (color) => {
    const parts = color.match(/[0-9.]+/g).slice(0, 3).map((part) => {
      const value = Number(part) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const [low, high] = [light(front), light(back)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a browser."""
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report with all that one can hold."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, growth(), unused(), savings=savings(), data="a <b>.txt", tokenizer="tiny")
    return path


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """Open the report; whatever it complains of or asks for fails the test."""
    yield from _opened(browser, page_file)


def _opened(browser: Any, path: Path, **options: Any) -> Iterator[Any]:
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    page.wait_for_load_state("networkidle")
    context.close()
    assert complaints == []
    assert requests == [path.as_uri()]


def _rows(page: Any) -> list[str]:
    texts: list[str] = page.locator("#unused-table tbody th").all_text_contents()
    return texts


def _status(page: Any) -> str:
    return str(page.locator("#unused-status").text_content())


def test_the_first_rows_are_shown_and_counted(page: Any) -> None:
    """The table shows a hundred rows of those there are, markup as it is."""
    assert _rows(page) == [token.text for token in unused()[:100]]
    assert _rows(page)[: len(MARKUP)] == MARKUP
    assert _status(page) == "1 to 100 of 500 tokens"


def test_search_finds_parts_of_texts(page: Any) -> None:
    """Every key is a search, in any case, with a space as a space."""
    page.get_by_label("Find a token").fill("WORD49")
    assert _rows(page) == ["␣word49", *(f"␣word{at}" for at in range(490, 494))]
    assert _status(page) == "1 to 5 of 5 tokens"

    page.get_by_label("Find a token").fill(" word49")
    assert len(_rows(page)) == 5

    page.get_by_label("Find a token").fill("<SCRIPT>")
    assert _rows(page) == ["<script>alert(1)</script>"]
    assert _status(page) == "1 to 1 of 1 token"


def test_search_finds_an_id(page: Any) -> None:
    """A number is an id, and a part of texts."""
    page.get_by_label("Find a token").fill("30")

    ids = page.locator("#unused-table tbody td.number").all_text_contents()
    assert "30" in ids
    assert _rows(page)[0] == "␣word4"
    assert _rows(page)[1:3] == ["␣word30", "␣word130"]


def test_search_without_a_match_says_so(page: Any) -> None:
    """An empty table is explained, and the buttons rest."""
    page.get_by_label("Find a token").fill("no such token")

    assert _rows(page) == []
    assert _status(page) == "No unused token matches"
    for name in ("Previous", "Next"):
        assert page.get_by_role("button", name=name).get_attribute("aria-disabled") == "true"


def test_the_count_is_announced(page: Any) -> None:
    """Who does not see the table hears how many there are."""
    assert page.locator("#unused-status").get_attribute("aria-live") == "polite"
    assert page.get_by_role("status").count() == 1


def test_kinds_are_filtered(page: Any) -> None:
    """A kind narrows what is shown, together with the search."""
    page.get_by_role("radio", name="byte", exact=True).check()
    kinds = page.locator("#unused-table tbody td:last-child").all_text_contents()
    assert set(kinds) == {"byte"}
    assert _status(page) == "1 to 100 of 125 tokens"

    page.get_by_label("Find a token").fill("word49")
    expected = [t.text for t in unused() if t.kind == "byte" and "word49" in t.text]
    assert _rows(page) == expected


def test_pages_turn(page: Any) -> None:
    """All tokens can be reached; beyond the last page there is none."""
    page.get_by_role("button", name="Next").click()
    assert _rows(page) == [token.text for token in unused()[100:200]]
    assert _status(page) == "101 to 200 of 500 tokens"

    for _ in range(5):  # the last finds a button that rests
        page.get_by_role("button", name="Next").click(force=True)
    assert _status(page) == "401 to 500 of 500 tokens"

    page.get_by_role("button", name="Previous").click()
    assert _status(page) == "301 to 400 of 500 tokens"


def test_the_keyboard_reaches_everything(page: Any) -> None:
    """Tab visits skip link, tables, search, kinds and buttons, and each shows its focus."""
    visited = []
    for _ in range(20):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
              const at = document.activeElement;
              if (at === document.body) return [null, 0];
              const shown = at.type === "radio" ? at.nextElementSibling : at;
              const style = getComputedStyle(shown);
              const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
              return [at.id || at.getAttribute("aria-label") || at.name || at.className, outline];
            }"""
        )
        if name is None:
            break
        visited.append(name)
        assert outline >= 2, name

    assert visited == [
        "skip",
        "Fitted laws",
        "Coverage",
        "Memory by model",
        "Parameters by model",
        "unused-text",
        "kind",
        "Unused tokens",
        "unused-previous",
        "unused-next",
    ]


def test_search_and_kinds_work_by_keyboard(page: Any) -> None:
    """No mouse is needed to search, choose a kind and turn the page."""
    page.locator("#unused-text").focus()
    page.keyboard.type("word")
    assert _status(page) == "1 to 100 of 494 tokens"

    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", name="special").is_checked()
    assert "of 123 tokens" in _status(page)

    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert _status(page) == "101 to 123 of 123 tokens"


def test_the_skip_link_leads_to_the_report(page: Any) -> None:
    """It shows when it has the focus, and passes over the head."""
    page.keyboard.press("Tab")
    assert page.locator(".skip").bounding_box()["y"] >= 0

    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("width", [320, 375, 620, 1280])
def test_no_width_scrolls_sideways(browser: Any, page_file: Path, width: int) -> None:
    """Tables scroll inside their boxes; figures are drawn for the width there is."""
    for page in _opened(browser, page_file, viewport={**PHONE, "width": width}):
        wide, seen = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        drawn = page.locator(".drawing svg:visible")

        assert wide <= seen
        assert drawn.count() == 4
        for at in range(drawn.count()):
            text = drawn.nth(at).locator("text").first.bounding_box()
            assert text["height"] >= 10  # letters that can be read


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_text_is_legible_in_light_and_dark(
    browser: Any, page_file: Path, scheme: str, *, dark: bool
) -> None:
    """Page and figures follow the reader's choice, with a contrast of 4.5 to 1 or more."""
    for page in _opened(browser, page_file, color_scheme=scheme):
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", back))) < 200) == dark

        colors = page.evaluate(
            """() => [
              ...[...document.querySelectorAll(".drawing text")].map(
                (at) => getComputedStyle(at).fill),
              ...[...document.querySelectorAll("h1, em, p, dt, dd, th, td, figcaption, small")].map(
                (at) => getComputedStyle(at).color),
            ]"""
        )
        assert len(colors) > 100
        for front in sorted(set(colors)):
            assert page.evaluate(CONTRAST, [front, back]) >= 4.5, front
        bars = page.evaluate(
            """() => [...document.querySelectorAll(".drawing [style*='var(--']")]
              .filter((at) => /fill: var\\(--(blue|orange|green|purple|edge)/.test(at.outerHTML))
              .map((at) => getComputedStyle(at).fill)"""
        )
        for front in sorted(set(bars)):
            assert page.evaluate(CONTRAST, [front, back]) >= 3, front


def test_figures_have_names(page: Any) -> None:
    """A reader of screens finds five images, each told in words, and nothing of their parts."""
    images = page.get_by_role("img")

    assert images.count() == 5
    for at in range(images.count()):
        assert re.search(r"\d", images.nth(at).get_attribute("aria-label"))
    assert page.locator("figure figcaption").count() == 5
    assert page.locator("h1").count() == 1
    assert page.get_by_role("main").count() == 1


def test_a_page_without_scripts_is_whole(browser: Any, page_file: Path) -> None:
    """What needs a script is not shown without; the first tokens are."""
    for page in _opened(browser, page_file, java_script_enabled=False):
        assert page.locator("#unused-search").is_hidden()
        assert page.locator("#unused-table tbody tr").count() == 100
        assert _status(page) == "The first 100 of 500 tokens"


def test_the_policy_lets_nothing_out(browser: Any, page_file: Path) -> None:
    """Even a script that gets in cannot ask for anything."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_file.as_uri())

    refused = page.evaluate(
        """() => fetch("http://127.0.0.1:9/").then(() => "sent", (error) => error.name)"""
    )
    violated = page.evaluate(
        """() => new Promise((done) => {
          document.addEventListener("securitypolicyviolation", (e) => done(e.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.wasRun = true";
          document.body.append(script);
        })"""
    )

    assert (refused, violated) == ("TypeError", "script-src-elem")
    assert page.evaluate("window.wasRun") is None
    context.close()


def test_a_quarter_of_a_million_tokens_are_searched_at_once(browser: Any, tmp_path: Path) -> None:
    """However many tokens there are, the page holds a hundred rows, and answers a key."""
    path = tmp_path / "large.html"
    write_report(path, growth(), unused(MANY))

    matches = [token.text for token in unused(MANY) if "word2499" in token.text]

    for page in _opened(browser, path):
        assert page.locator("tr").count() < 150

        page.get_by_label("Find a token").fill("word2499")

        assert _rows(page) == matches[:100]
        assert _status(page) == f"1 to 100 of {len(matches)} tokens"
