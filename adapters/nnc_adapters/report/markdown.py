"""A report as Markdown, for pull requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nnc_adapters.report.data import Report, StreamReport, TensorReport
from nnc_adapters.shared.text import printable

__all__ = ["markdown"]

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|#~!@:"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
_NAMED = 8


def markdown(report: Report) -> str:
    """What a report says in short: sizes, the largest and the worst tensors, what is exact."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"## {_text(report.stream.label)}"
    yield ""
    yield from _table(("bitstream", "bytes", "of the original", "bits per weight", "SQNR"), map(_row, report.streams))
    yield from _where(report.stream)
    yield from _tensors("Largest tensors", report.stream.largest)
    yield from _tensors("Lowest SQNR", report.stream.worst)
    yield from _exact(report.stream)


def _row(stream: StreamReport) -> tuple[str, ...]:
    size, before, rate = stream.bytes.total, stream.original_bytes, stream.bits_per_weight
    return (
        _text(stream.label),
        f"{size:,}",
        f"{100 * size / before:.2f} %" if before else "",
        "" if rate is None else f"{rate:.3f}",
        _decibel(stream.sqnr_db),
    )


def _where(stream: StreamReport) -> Iterator[str]:
    total = max(stream.bytes.total, 1)
    rows = ((kind, f"{count:,}", f"{100 * count / total:.2f} %") for kind, count in stream.bytes._asdict().items())
    yield from _section("Where the bytes go", ("kind", "bytes", "share"), rows)


def _tensors(title: str, tensors: Sequence[TensorReport]) -> Iterator[str]:
    columns = ("tensor", "shape", "bytes", "bits per weight", "SQNR")
    yield from _section(title, columns, map(_tensor, tensors))


def _tensor(t: TensorReport) -> tuple[str, ...]:
    shape = "x".join(map(str, t.shape)) or "scalar"
    quality = "exact" if t.exact else _decibel(t.sqnr_db)
    return _text(t.name), shape, f"{t.bytes.total:,}", f"{t.bits_per_weight:.2f}", quality


def _exact(stream: StreamReport) -> Iterator[str]:
    rows = ((_text(why), str(len(tensors)), _named(tensors)) for why, tensors in stream.exact.items())
    yield from _section("Kept exact", ("why", "tensors", "names"), rows)


def _named(tensors: Sequence[TensorReport]) -> str:
    names = ", ".join(_text(t.name) for t in tensors[:_NAMED])
    return f"{names} and {len(tensors) - _NAMED} more" if len(tensors) > _NAMED else names


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A heading and a table; nothing where the table is empty."""
    content = list(rows)
    if content:
        yield from ("", f"### {title}", "")
        yield from _table(columns, content)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _text(text: str) -> str:
    """Text out of a file as Markdown shows it, and nothing but text."""
    return printable(text).translate(_SPECIAL)


def _decibel(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"
