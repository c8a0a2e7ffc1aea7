"""Reports: tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from suite.procedures import Outcome
from suite.rows import Row

_COLOURS = {"passed": "green", "failed": "red", "unsupported": "yellow"}


def listing(rows: Sequence[Row]) -> Table:
    """What the suite has."""
    size = sum(sum(row.bytes) for row in rows)
    table = Table(title=f"{len(rows)} rows, {size} bytes")
    for column in ("row", "bitstream", "clause", "feature"):
        table.add_column(column, overflow="fold")
    table.add_column("bytes", justify="right")
    for row in rows:
        table.add_row(row.name, row.id, row.clause, row.feature, str(sum(row.bytes)))
    return table


def table(outcomes: Sequence[Outcome], decoder: str) -> Table:
    """What became of each row."""
    shown = Table(title=decoder, caption=summary(outcomes))
    for column in ("row", "bitstream", "result", "seconds"):
        shown.add_column(column, overflow="fold", justify="right" if column == "seconds" else "left")
    for outcome in outcomes:
        result = f"[{_COLOURS[outcome.status]}]{outcome.status}[/]"
        lines = [result, outcome.message] if outcome.reason else [result]
        shown.add_row(outcome.row.name, outcome.row.id, "\n".join(lines), f"{outcome.seconds:.2f}")
    return shown


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many rows passed, failed, or are not supported."""
    counts = Counter(outcome.status for outcome in outcomes)
    return f"{len(outcomes)} rows: " + ", ".join(f"{counts[status]} {status}" for status in _COLOURS)
