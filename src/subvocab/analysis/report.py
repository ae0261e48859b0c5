"""A report as one HTML file: what a dataset uses of a vocabulary, and what that saves (paper §3).

The page holds all it shows: figures as SVG, the unused tokens as JSON, style and script.
It forbids its browser to load anything, and the same findings give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from io import TextIOBase
from pathlib import Path
from typing import Any

import numpy as np

from subvocab._atomic import replacing
from subvocab._extras import import_extra
from subvocab._typing import StrPath
from subvocab.analysis import plots
from subvocab.analysis._figures import draw_figures
from subvocab.analysis._findings import Findings, find
from subvocab.analysis.anomalies import TokenKind, UnusedToken
from subvocab.analysis.savings import Savings
from subvocab.analysis.usage import coverage, tokens_to_cover
from subvocab.vocabulary import TokenCounts, VocabularyGrowth

TEMPLATES = Path(__file__).parent / "templates"
FIRST_ROWS = 100
STRIP = 180
"""Parts of V that the strip at the top shows."""

MEANING = {
    TokenKind.SPECIAL: "Kept for the model's own use: padding, ends, masks.",
    TokenKind.BYTE: "Stands for bytes that are no whole character.",
    TokenKind.UNREACHABLE: (
        "The tokenizer never makes it from its own text, or it only pads the matrix."
    ),
    TokenKind.PLAIN: "A word, or a piece of one, that does not occur here.",
}


FILTERS: dict[str, Callable[..., str]] = {
    "count": "{:,}".format,
    "percent": lambda value, digits=1: f"{value:.{digits}%}",
    "bytes": lambda value: plots.readable_bytes(value) if value else "0",
    "digits": lambda value: f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}",  # noqa: PLR2004
    "millions": lambda value: f"{value / 1e6:,.1f}M",
}
"""How the template writes numbers."""


def check_libraries() -> None:
    """See before long work that a report can be written.

    Raises:
        MissingExtraError: If matplotlib or Jinja is not installed.
    """
    for library in ("matplotlib", "jinja2"):
        import_extra(library, extra="report", purpose="Writing a report")


def write_report(
    target: StrPath | TextIOBase,
    growth: VocabularyGrowth,
    unused: Sequence[UnusedToken] = (),
    *,
    savings: Sequence[Savings] = (),
    data: str = "This dataset",
    tokenizer: str = "its tokenizer",
    about: Mapping[str, str] | None = None,
) -> Findings:
    """Write a page of what a dataset uses of a vocabulary.

    Args:
        target: The file to write, in a folder that exists; or an open stream of text,
            such as an ``io.StringIO``.
        growth: What one pass over the dataset told.
        unused: The tokens never seen.
        savings: What is saved, model by model.
        data: Name of the dataset, for the heading.
        tokenizer: Name of the tokenizer, for the heading.
        about: How it was made: values by name, in the order to show them.

    Returns:
        The numbers on the page. Laws that cannot be fitted are left out, and the page says
        why.

    Raises:
        DataError: If nothing was read.
        MissingExtraError: If matplotlib or Jinja is not installed.
    """
    findings = find(growth, unused, savings)
    page = _render(findings, data, tokenizer, about or {})
    if isinstance(target, TextIOBase):
        target.write(page)
        return findings
    with replacing(Path(target)) as staged:
        # Names of files may be no text.
        staged.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")
    return findings


def _render(findings: Findings, data: str, tokenizer: str, about: Mapping[str, str]) -> str:
    """Fill in the template."""
    jinja = import_extra("jinja2", extra="report", purpose="Writing a report")
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= FILTERS
    trusted = environment.filters["safe"]
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        environment.get_template("report.html.jinja").render(
            **_numbers(findings),
            **draw_figures(findings, trusted),
            data=data,
            tokenizer=tokenizer,
            about=about,
            style=trusted((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            script=trusted(script),
            script_digest=digest,
            unused_data=trusted(_as_json(findings.unused)),
        )
    )


def _numbers(findings: Findings) -> dict[str, Any]:
    """Give the template its numbers."""
    counts = findings.growth.counts
    ahead = np.array([plots.AHEAD * counts.total_tokens])
    strip = _strip(counts)
    return {
        "ahead": plots.AHEAD,
        "size": counts.full_vocab_size,
        "unique": counts.unique_tokens,
        "total": counts.total_tokens,
        "partial": findings.partial_vocab_size,
        "strip": strip.tolist(),
        "strip_told": ", ".join(
            f"{part.mean():.0%}" for part in np.array_split(strip, min(4, strip.size))
        ),
        "heaps": findings.heaps,
        "saturating": findings.saturating,
        "heaps_ahead": _rounded(findings.heaps.predict(ahead)[0]) if findings.heaps else 0,
        "saturating_ahead": _rounded(findings.saturating.predict(ahead)[0])
        if findings.saturating
        else 0,
        "fits": findings.fits,
        "unfitted": findings.unfitted,
        "covered_95": tokens_to_cover(counts, 0.95),
        "top": _top(counts),
        "savings": findings.savings,
        "heads": any(plan.training.head != "none" for plan in findings.savings),
        "setting": _setting(findings.savings),
        "parts": _parts(findings.savings),
        "unused": findings.unused_by_kind(),
        "unused_total": len(findings.unused),
        "first_unused": findings.unused[:FIRST_ROWS],
        "meaning": {kind.value: meaning for kind, meaning in MEANING.items()},
    }


def _rounded(value: float) -> int:
    """Round an expectation to the three digits that it deserves."""
    return int(float(f"{value:.3g}"))


def _strip(counts: TokenCounts) -> np.ndarray:
    """Tell for equal parts of V, in order of id, which share of them is used."""
    parts = np.array_split(counts.counts > 0, min(STRIP, counts.full_vocab_size))
    return np.array([part.mean() for part in parts])


def _top(counts: TokenCounts) -> list[tuple[int, float]]:
    """Tell what the 10, 100 and so on most frequent tokens cover, and what all do."""
    shares = coverage(counts)
    amounts = [10**power for power in range(1, 7) if 10**power < shares.size]
    return [(amount, float(shares[amount - 1])) for amount in (*amounts, shares.size)]


def _parts(savings: Sequence[Savings]) -> list[str]:
    """Name the parts of memory that any model has."""
    memories = [memory for plan in savings for memory in (plan.full, plan.partial)]
    return [part for part in plots.PARTS if any(getattr(memory, part) for memory in memories)]


def _setting(savings: Sequence[Savings]) -> str:
    """Say what training the memory is worked out for, if it is the same for all."""
    settings = {
        f"{plan.training.precision}, {plan.training.optimizer}, batches of "
        f"{plan.training.batch_size} × {plan.training.length} tokens"
        for plan in savings
    }
    return settings.pop() if len(settings) == 1 else ""


def _as_json(unused: Sequence[UnusedToken]) -> str:
    """Write the unused tokens for the page's script.

    Args:
        unused: Up to a million.

    Returns:
        JSON that is safe within a ``<script>``: ids as gaps, a digit for each kind.
    """
    names = list(TokenKind)
    ids = np.array([token.token_id for token in unused], dtype=np.int64)
    values = {
        "names": [kind.value for kind in names],
        "gaps": np.diff(ids, prepend=0).tolist(),
        "kinds": "".join(str(names.index(token.kind)) for token in unused),
        "texts": [token.text for token in unused],
    }
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    # No tag ends the script early, and nothing is left that UTF-8 or HTML cannot hold.
    unsafe = r"[<>&\x7f-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]"
    return re.sub(unsafe, lambda found: f"\\u{ord(found[0]):04x}", text)
