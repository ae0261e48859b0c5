"""Figures as SVG inside a page: the page's fonts and colours, light or dark, and no date."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from subvocab._extras import import_extra
from subvocab.analysis._style import COLORS

POINTS = 72
"""Units of an SVG file from matplotlib to the inch."""

STYLE = {
    "font.size": 12,
    "axes.labelsize": 12,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "subvocab",  # names of clipping paths, else drawn by chance
}


def draw_svg(draw: Callable[[Any], Any], *, name: str, width: int, height: int) -> str:
    """Draw a figure without a display, for a page to hold.

    Args:
        draw: Draws on the axes that it is given.
        name: What tells its parts from those of the page's other figures.
        width: Of the figure, in units of its text: 12 to a line.
        height: As the width.

    Returns:
        An ``<svg>`` element. Colours are the page's variables (``var(--ink)`` and so on),
        the font is the page's, and the same figure gives the same bytes.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib", extra="report", purpose="Drawing a figure")
    figures = import_extra("matplotlib.figure", extra="report", purpose="Drawing a figure")
    written = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(
            figsize=(width / POINTS, height / POINTS), layout="constrained", facecolor="none"
        )
        axes = figure.subplots()
        axes.set_facecolor("none")
        draw(axes)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing)
    return _for_a_page(written.getvalue(), name)


def _for_a_page(svg: str, name: str) -> str:
    """Leave out what only a file needs, and take fonts and colours from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style).*?</\1>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>",
        r'<svg \1 xmlns="http://www.w3.org/2000/svg" aria-hidden="true" focusable="false">',
        svg,
        count=1,
    )
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg)
    svg = re.sub(r"font: [^;\"]*?(\d[\d.]*)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"xlink:href=\"#", 'href="#', svg)
    svg = re.sub(r"(id=\"|href=\"#|url\(#)", rf"\g<1>{name}-", svg)
    for role, color in COLORS.items():
        svg = svg.replace(f": {color}", f": var(--{role})")
    return re.sub(r"\n\s*", "\n", svg).strip()
