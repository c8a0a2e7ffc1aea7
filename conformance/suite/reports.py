"""Reports: tables on the terminal, JSON, JUnit XML, and a page of HTML with a row for each row of the suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any
from xml.etree import ElementTree

from rich.table import Table
from rich.text import Text

from conformance.suite.claims import Claim, described, verdict
from conformance.suite.coverage import Coverage
from conformance.suite.procedures import FAILED, PASSED, UNSUPPORTED, Outcome, Refusal
from conformance.suite.rows import Row

_MANY = 6
_COLOURS = {PASSED: "green", FAILED: "red", UNSUPPORTED: "yellow"}


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
        lines = [f"[{_COLOURS[outcome.status]}]{outcome.status}[/]", *remarks(outcome)]
        shown.add_row(outcome.row.name, outcome.row.id, "\n".join(lines), f"{outcome.seconds:.2f}")
    return shown


def remarks(outcome: Outcome) -> list[str]:
    """What is to be said of an outcome beside its status."""
    found = [outcome.message] if outcome.reason else []
    return found + ["what the bitstream says of the model was not returned"] * (not outcome.described)


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many rows passed, failed, or are not supported."""
    counts = Counter(outcome.status for outcome in outcomes)
    return f"{len(outcomes)} rows: " + ", ".join(f"{counts[status]} {status}" for status in _COLOURS)


def refusals_table(found: Sequence[Refusal], decoder: str) -> Table:
    """What became of each bitstream that breaks a rule."""
    failed = sum(each.status == FAILED for each in found)
    shown = Table(
        title=decoder, caption=f"{len(found)} bitstreams that break a rule, {failed} not refused as they should"
    )
    for column in ("rule", "breaks it", "result", "the decoder"):
        shown.add_column(column, overflow="fold")
    for each in found:
        rule = each.negative.rule + " (optional)" * each.negative.optional
        shown.add_row(rule, each.negative.example, f"[{_COLOURS[each.status]}]{each.status}[/]", each.reason)
    return shown


def as_dictionary(outcomes: Sequence[Outcome], decoder: str, claim: Claim, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything for programs."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "decoder": decoder,
        "claim": described(claim, rows, outcomes),
        "summary": {status: counts[status] for status in _COLOURS},
        "rows": [_described(outcome) for outcome in outcomes],
    }


def _described(outcome: Outcome) -> dict[str, Any]:
    fields = ("status", "reason", "stream", "tensor", "position", "seconds")
    found = {"row": outcome.row.name, "id": outcome.row.id} | {name: getattr(outcome, name) for name in fields}
    return {**found, "model_info_returned": outcome.described}


def refusals_as_dictionary(found: Sequence[Refusal], decoder: str) -> dict[str, Any]:
    """The refusals for programs."""
    fields = ("rule", "clause", "kind", "optional")
    rows = [
        {**{name: getattr(each.negative, name) for name in fields}, "status": each.status, "reason": each.reason}
        for each in found
    ]
    return {"decoder": decoder, "negative": rows}


def junit(outcomes: Sequence[Outcome], decoder: str) -> str:
    """JUnit XML: a test case for each row; what is not supported counts as skipped."""
    counts = Counter(outcome.status for outcome in outcomes)
    attributes = {"name": f"conformance of {decoder}", "tests": str(len(outcomes))}
    attributes |= {"failures": str(counts[FAILED]), "skipped": str(counts[UNSUPPORTED])}
    suite = ElementTree.Element("testsuite", attributes)
    for outcome in outcomes:
        about = {"classname": f"table{outcome.row.table}", "name": outcome.row.id, "time": f"{outcome.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", about)
        if outcome.status != PASSED:
            kind = "failure" if outcome.status == FAILED else "skipped"
            ElementTree.SubElement(case, kind, {"message": _printable(outcome.message)})
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, "unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Text without control characters, which XML cannot hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35em .7em; border-bottom: 1px solid #ddd }
td:nth-child(2) { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: 13px }
.passed { color: #17692f } .failed { color: #b01818; font-weight: bold } .unsupported { color: #8a5a00 }
"""


def html(outcomes: Sequence[Outcome], decoder: str, claim: Claim, rows: Sequence[Row]) -> str:
    """A page that stands on its own."""
    body = "\n".join(map(_html_row, outcomes))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Conformance of {escape(decoder)}</title>
<style>{_STYLE}</style>
<h1>ISO/IEC 15938-18: conformance of {escape(decoder)}</h1>
<p>{escape(summary(outcomes))}.</p>
<p>{escape(verdict(claim, rows, outcomes))}.</p>
<table>
<tr><th>row<th>bitstream<th>clause<th>feature<th>result<th>seconds
{body}
</table>
</html>
"""


def _html_row(outcome: Outcome) -> str:
    row = outcome.row
    cells = [row.name, row.id, row.clause, row.feature]
    result = "<br>".join([f'<span class="{outcome.status}">{outcome.status}</span>', *map(escape, remarks(outcome))])
    return f"<tr>{''.join(f'<td>{escape(cell)}' for cell in cells)}<td>{result}<td>{outcome.seconds:.2f}"


_GROUPS = {
    "elements": "syntax elements",
    "points": "code points",
    "contexts": "contexts and bins",
    "lines": "lines of the arithmetic decoder",
}


def coverage_tables(found: Coverage) -> Iterator[Table]:
    """Which rows exercise what."""
    for group, exercised in found.described().items():
        shown = Table(title=f"{_GROUPS[group]}: {len(exercised)}")
        for column in (group, "rows"):
            shown.add_column(column, overflow="fold")
        for what, rows in exercised.items():
            shown.add_row(Text(what), ", ".join(rows[:_MANY]) + f" and {len(rows) - _MANY} more" * (len(rows) > _MANY))
        yield shown
