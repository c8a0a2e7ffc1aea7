"""A report as one page of HTML that needs nothing else: styles, program and data are in it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from nnc_adapters.report.data import Report, StreamReport, TensorReport, UnitReport
from nnc_adapters.shared.text import printable
from nnc_core.syntax import TracedElement

__all__ = ["page"]

_SCRIPTS = ("dom.js", "treemap.js", "charts.js", "table.js", "units.js", "main.js")
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_LONGEST = 200
_FAR = 1e6


def page(report: Report) -> str:
    """The whole page as text; names in it are data and never markup."""
    style = _file("page.css")
    script = "\n".join(map(_file, _SCRIPTS))
    parts = {
        "{{style-hash}}": _hash(style),
        "{{script-hash}}": _hash(script),
        "{{style}}": style,
        "{{script}}": script,
        "{{data}}": json.dumps(_report(report), separators=(",", ":"), allow_nan=False).translate(_ESCAPED),
    }
    return _filled(_file("page.html"), parts)


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with its places filled; what is filled in is not searched for places."""
    for place, text in parts.items():
        before, found, after = template.partition(place)
        if found:
            return _filled(before, parts) + text + _filled(after, parts)
    return template


def _file(name: str) -> str:
    return files(__package__).joinpath("assets").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What lets a content security policy admit this text alone."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _report(report: Report) -> dict[str, Any]:
    known = _Known({}, {})
    units = [_unit(unit, known) for unit in report.stream.units]
    return {
        "original": None if report.original is None else printable(report.original),
        "streams": [_stream(stream) for stream in report.streams],
        "units": units,
        "shapes": list(known.shapes),
        "words": list(known.words),
    }


class _Known(NamedTuple):
    """What units have in common, by the number that stands for it: names, and lists of elements without values."""

    words: dict[str, int]
    shapes: dict[tuple[int, ...], int]

    def word(self, text: str) -> int:
        return self.words.setdefault(text, len(self.words))

    def shape(self, elements: Iterable[TracedElement]) -> int:
        """The number of a list of elements: of each its name, descriptor, place and number of bits."""
        found = tuple(n for e in elements for n in (self.word(e.name), self.word(e.descriptor), e.bit_offset, _bits(e)))
        return self.shapes.setdefault(found, len(self.shapes))


def _stream(stream: StreamReport) -> dict[str, Any]:
    return {
        "label": printable(stream.label),
        "bytes": list(stream.bytes),
        "before": stream.original_bytes,
        "weights": stream.weights,
        "sqnr": _number(stream.sqnr_db),
        "topology": stream.topology,
        "tensors": [_tensor(tensor) for tensor in stream.tensors],
    }


def _tensor(t: TensorReport) -> dict[str, Any]:
    """A tensor without what is not known of it."""
    error = t.error
    found: dict[str, Any] = {
        "name": printable(t.name),
        "shape": list(t.shape),
        "dtype": t.dtype,
        "kind": t.kind,
        "elements": t.elements,
        "bytes": list(t.bytes),
        "units": list(t.units),
        "qp": t.qp,
        "step": _number(t.step),
        "exact": printable(t.why_exact) or None,
        "sqnr": _number(t.sqnr_db),
        "lost": _number(error.lost) if error else None,
        "zeros": error.lost_zeros if error else None,
        "most": _number(error.error_to_rms) if error else None,
        "problem": error.problem if error else None,
        "levels": [*t.levels[:-1], round(t.levels.entropy, 3)] if t.levels else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _unit(unit: UnitReport, known: _Known) -> list[Any]:
    """A unit in short: its place, what it is called, its first bytes, and its elements."""
    head = base64.b64encode(unit.head).decode()
    place = [unit.index, unit.offset, unit.size, unit.payload_offset, unit.within, unit.omitted]
    title = [unit.type.removeprefix("NNR_"), unit.kind, printable(unit.content)[:_LONGEST]]
    return [*place, *title, head, known.shape(unit.elements), [_value(e.value) for e in unit.elements]]


def _bits(element: TracedElement) -> int:
    value = element.value
    large = isinstance(value, bytes | bytearray | memoryview) and not element.bits
    return 8 * len(value) if large else len(element.bits)  # type: ignore[arg-type]


def _value(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if value is None or (isinstance(value, int) and abs(value) < 1 << 53):
        return None if value is None else int(value)
    return printable(str(value))[:_LONGEST]


def _number(value: float | None) -> float | None:
    """Enough digits for a chart; what JSON cannot say is as far away as a chart can show."""
    if value is None or math.isnan(value):
        return None
    return float(f"{min(max(value, -_FAR), _FAR):.5g}")
