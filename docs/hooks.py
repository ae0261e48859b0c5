"""What pages get from the project's own files when the site is built.

A page says where by a line such as `<!-- messages -->`; so what is shown cannot grow old.
"""

from __future__ import annotations

import ast
import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
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
WARN = "warnings.warn"
PRICE = 0.05
"""Dollars an hour, of a core."""


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
        "trillion": trillion,
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
    """List every message of the library, by the exception that carries it and its module.

    Returns:
        Markdown; warnings come last.
    """
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    exceptions = {n.name for n in trees[PACKAGE / "errors.py"].body if isinstance(n, ast.ClassDef)}
    constants = {key: text for tree in trees.values() for key, text in _constants(tree)}
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path, tree in trees.items():
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                named = ast.unparse(node.func)
                text = _message(node.args[0], constants | dict(_constants(tree)))
                if (named in exceptions or named == WARN) and " " in text:
                    found[named][module].add(text)
    lines = []
    for named in sorted(found, key=lambda named: (named == WARN, named)):
        lines += ["### Warnings" if named == WARN else f"### `{named}`", ""]
        for module, texts in sorted(found[named].items()):
            lines += [f"- {text} <small>`{module}`</small>" for text in sorted(texts)]
        lines.append("")
    return "\n".join(lines)


def _constants(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Find the parts of messages that a module names."""
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = _message(node.value, {})
            if " " in text:
                yield node.targets[0].id, text


def _message(node: ast.expr, constants: Mapping[str, str]) -> str:
    """Write the text of a message, with … for each value in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _escaped(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_message(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _message(node.value, constants)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _message(node.left, constants) + _message(node.right, constants)
    return constants.get(node.id, "…") if isinstance(node, ast.Name) else "…"


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


def trillion() -> str:
    """Tell what counting 10¹² tokens would cost at the rates that Ray reached last.

    Returns:
        Markdown: a table.
    """
    rows = _rows("ray")
    rates: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        _, *what, _ = row["question"].split(", ")
        rates[", ".join(what)].append(float(row["conditions"].rsplit("Ray ", 1)[1]))
    lines = _head("10¹² tokens of", "million tokens/s a core", "core hours", "price", "256 cores")
    for name, found in rates.items():
        hours = 1e6 / min(found) / 3600
        cells = (
            f"{min(found):.3g}",
            f"{hours:,.1f}",
            f"${hours * PRICE:,.2f}",
            f"{hours / 256:.2g} h",
        )
        lines.append("| " + " | ".join((name, *cells)) + " |")
    return "\n".join([*lines, "", _circumstances(rows)])


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
