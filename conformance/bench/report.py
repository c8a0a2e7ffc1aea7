"""A page of what `bench.py` found: one self-contained file, with bars and the whole table.

python -m conformance.bench.report [build/bench.json] [build/bench.html]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from conformance.bench.speed import COLUMNS, RESULTS, Row, cells

GOALS = {"encode": 9.0, "decode": 3.0}
_WIDTH, _BAR = 420, 16
_STYLE = """
:root { color-scheme: light dark; --bar: #2563eb; --short: #d97706; --grid: #8884; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
text { font: 13px system-ui, sans-serif; fill: currentColor; }
.wide { overflow-x: auto; }
"""


def page(rows: list[Row]) -> str:
    """The page as HTML."""
    body = "".join([*map(_chart, (rows, rows), GOALS), _table(rows)])
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>NNC Suite: speed and size</title>"
        f"<style>{_STYLE}</style><h1>NNC Suite: speed and size</h1>"
        "<p>CPU time of one thread; ratios compare runs that alternated on the same machine.</p>"
        f"{body}</html>\n"
    )


def _chart(rows: list[Row], what: str) -> str:
    """Bars of how often faster than NNCodec, with the goal as a line."""
    shown = [row for row in rows if row.what == what and row.ratio]
    if not shown:
        return f"<h2>{what}</h2><p>NNCodec took no part.</p>"
    most = max(GOALS[what], *(row.ratio or 0 for row in shown if row.weights > 1e5), 1)
    height = (_BAR + 8) * len(shown) + 10
    goal = 260 + _WIDTH * GOALS[what] / most
    line = f'<line x1="{goal:.0f}" x2="{goal:.0f}" y1="0" y2="{height}" stroke="currentColor" stroke-dasharray="4"/>'
    bars = "".join(_bar(row, i, most, GOALS[what]) for i, row in enumerate(shown))
    title = f"<h2>{what}: times faster than NNCodec (goal {GOALS[what]:g})</h2>"
    return f'{title}<svg width="{_WIDTH + 340}" height="{height}" role="img">{bars}{line}</svg>'


def _bar(row: Row, place: int, most: float, goal: float) -> str:
    y, ratio = place * (_BAR + 8) + 4, row.ratio or 0
    width = _WIDTH * min(ratio, most) / most
    color = "var(--bar)" if ratio >= goal else "var(--short)"
    return (
        f'<text x="250" y="{y + 13}" text-anchor="end">{escape(row.workload)}</text>'
        f'<rect x="260" y="{y}" width="{width:.0f}" height="{_BAR}" fill="{color}"/>'
        f'<text x="{266 + width:.0f}" y="{y + 13}">{ratio:.2f}</text>'
    )


def _table(rows: list[Row]) -> str:
    head = "".join(f"<th>{escape(name)}" for name in (*COLUMNS, "x2, x4"))
    lines = ("<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells(row)) for row in rows)
    return f"<h2>All figures</h2><div class=wide><table><tr>{head}{''.join(lines)}</table></div>"


def read(path: Path) -> Iterator[Row]:
    """The rows that `bench.py` kept."""
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return (Row(**each) for each in found)


def main() -> None:
    """Write the page."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else source.with_suffix(".html")
    if not source.is_file():
        raise SystemExit(f"{source} is not there; make bench makes it")
    target.write_text(page(list(read(source))))
    print(target)


if __name__ == "__main__":
    main()
