"""What pages get from the project's own files when the site is built.

A page says where by a line such as `<!-- messages -->`; so what is shown cannot grow old.
"""

from __future__ import annotations

import ast
import csv
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "subvocab"
RESULTS = ROOT / "benchmarks" / "results"
CIRCUMSTANCES = ("machine", "versions", "date")
PEERS = {
    "peak MB": "{peak MB} ({peak × full} ×)",
    "step s": "{step s} ({step × full} ×)",
    "result": "{result}",
    "scan s": "{scan s}",
    "prepare s": "{prepare s}",
    "save s": "{save s}",
    "checkpoint MB": "{checkpoint MB}",
    "restore (merge) s": "{restore s} ({merge s})",
}
"""Columns of that table, and what stands in them."""
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
    parts: dict[str, Callable[[], str]] = {
        "messages": messages,
        "benchmarks": benchmarks,
        "matrix": matrix,
        "peers": peers,
        "families": families,
        "faults": partial(_whole_table, "faults"),
        "fuzz": partial(_whole_table, "fuzz"),
    }
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
        rows = _rows(path.stem)
        if not rows or "question" not in rows[0]:
            continue
        lines += [f"## {path.stem}", "", *_head("question", "measured", "must", "aim", "verdict")]
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
        lines += ["", _circumstances(rows), ""]
    return "\n".join(lines)


def matrix() -> str:
    """Show the exactness matrix that `make matrix` measured last.

    Returns:
        Markdown: a table.
    """
    rows = _rows("matrix")
    optimizers = [name for name in rows[0] if name not in ("family", "head", *CIRCUMSTANCES)]
    lines = _head("model, head", *optimizers)
    for row in rows:
        cells = [f"{row['family']}, {row['head']}", *(row[name] for name in optimizers)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _circumstances(rows)])


def peers() -> str:
    """Show what `make peers` found last, a table for each task.

    Returns:
        Markdown.
    """
    rows = _rows("peers")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"## {task}", "", *_head("peer", *PEERS)]
        for row in rows:
            if row["task"] == task:
                cells = (t.format(**row).replace(" ()", "") for t in PEERS.values())
                lines.append(f"| {row['peer']} | " + " | ".join(cells) + " |")
        lines.append("")
    notes = {row["peer"]: row["note"] for row in rows if row["note"]}
    lines += [f"- {peer}: {note}." for peer, note in notes.items()]
    return "\n".join([*lines, "", _circumstances(rows)])


def families() -> str:
    """Show which families each peer trained rightly, as `make peers` found last.

    Returns:
        Markdown: a table, and what was raised.
    """
    rows = _rows("peers_families")
    shown = [name for name in rows[0] if name not in CIRCUMSTANCES]
    lines = _head(*shown)
    raised: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        lines.append("| " + " | ".join(_sign(row[name]) for name in shown) + " |")
        for name in shown:
            if row[name].startswith("error: "):
                raised[name][row[name].removeprefix("error: ")].append(row[shown[0]])
    lines += ["", "What was raised:", ""]
    for name, errors in raised.items():
        for error, models in errors.items():
            lines.append(f"- {name}: `{error}` ({'; '.join(models)})")
    return "\n".join([*lines, "", _circumstances(rows)])


def _sign(cell: str) -> str:
    """Shorten what became of a model to what fits into a cell."""
    kind, _, rest = cell.partition(" ")
    if kind == "DIFFERS:":
        return "≠ " + rest.replace("losses by ", "").replace(", weights by ", "; ")
    return {"equal": "=", "to": "≈", "error:": "error"}.get(kind, cell)


def _whole_table(name: str) -> str:
    """Show a file of results as it is."""
    rows = _rows(name)
    shown = [column for column in rows[0] if column not in CIRCUMSTANCES]
    lines = _head(*shown)
    lines += ["| " + " | ".join(row[column] for column in shown) + " |" for row in rows]
    return "\n".join([*lines, "", _circumstances(rows)])


def _rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _head(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def _circumstances(rows: list[dict[str, str]]) -> str:
    return f"<small>{'; '.join(rows[-1][name] for name in CIRCUMSTANCES)}</small>"
