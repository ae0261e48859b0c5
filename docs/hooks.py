"""What pages get from the project's own files when the site is built.

A page says where by a line such as `<!-- messages -->`; so what is shown cannot grow old.
"""

from __future__ import annotations

import ast
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "subvocab"
RESULTS = ROOT / "benchmarks" / "results"
MATRIX = ROOT / "benchmarks" / "results" / "matrix.csv"
SHORTEST = 30
"""Of a text that is a message, and no name."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put generated parts in their places.

    Args:
        markdown: A page.
        **_: MkDocs' own.

    Returns:
        The page with them.
    """
    parts = {"messages": messages, "benchmarks": benchmarks, "matrix": matrix}
    for name, part in parts.items():
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, part())
    return markdown


def messages() -> str:
    """List every error message of the library, by its exception and the module that raises it.

    Returns:
        Markdown.
    """
    errors = ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    exceptions = {node.name for node in errors.body if isinstance(node, ast.ClassDef)}
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                text = _message(node.args[0])
                if node.func.id in exceptions and len(text) > SHORTEST:
                    found[node.func.id][module].add(text)
    lines = []
    for exception in sorted(found):
        lines += [f"### `{exception}`", ""]
        for module, texts in sorted(found[exception].items()):
            lines += [f"- {text} <small>`{module}`</small>" for text in sorted(texts)]
        lines.append("")
    return "\n".join(lines)


def _message(node: ast.expr) -> str:
    """Write the text of a message, with … for each value in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _escaped(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _escaped(str(part.value)) if isinstance(part, ast.Constant) else "…"
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _message(node.left) + _message(node.right)
    return "…"


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def benchmarks() -> str:
    """Show what `make bench` found last.

    Returns:
        Markdown: a table for each file of results.
    """
    lines = []
    for path in sorted(RESULTS.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or "question" not in rows[0]:
            continue
        lines += [
            f"## {path.stem}",
            "",
            "| question | measured | must | aim | verdict |",
            "|---|---|---|---|---|",
        ]
        for row in rows:
            must = f"{'≥' if row['more_is_better'] == 'True' else '≤'} {row['must']}"
            cells = (
                f"{_escaped(row['question'])}<br><small>{_escaped(row['conditions'])}</small>",
                f"{float(row['value']):.3g} {row['unit']}",
                must if row["must"] else "",
                row["aim"],
                row["verdict"],
            )
            lines.append("| " + " | ".join(cells) + " |")
        last = rows[-1]
        lines += ["", f"<small>{last['machine']}; {last['versions']}; {last['date']}</small>", ""]
    return "\n".join(lines)


def matrix() -> str:
    """Show the exactness matrix that `make matrix` measured last.

    Returns:
        Markdown: a table.
    """
    if not MATRIX.is_file():
        return "*`make matrix` was not run yet.*"
    with MATRIX.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    optimizers = [n for n in rows[0] if n not in ("family", "head", "machine", "versions", "date")]
    lines = ["| model, head | " + " | ".join(optimizers) + " |", "|---|" + "---|" * len(optimizers)]
    for row in rows:
        cells = [f"{row['family']}, {row['head']}", *(row[name] for name in optimizers)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"<small>{rows[0]['versions']}; {rows[0]['date']}</small>"])
