"""A report for programs: what JSON can say of it, without syntax elements, which ``nnc inspect --trace`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nnc_adapters.report.data import Report, StreamReport, TensorReport, UnitReport

__all__ = ["described"]


def described(report: Report) -> dict[str, Any]:
    """The report as dictionaries and lists; the ``streams`` begin with the bitstream that it is about."""
    return {"original": report.original, "streams": list(map(_stream, report.streams))}


def _stream(stream: StreamReport) -> dict[str, Any]:
    return {
        "label": stream.label,
        "bytes": {**stream.bytes._asdict(), "total": stream.bytes.total},
        "original_bytes": stream.original_bytes,
        "weights": stream.weights,
        "bits_per_weight": stream.bits_per_weight,
        "sqnr_db": stream.sqnr_db,
        "topology": stream.topology,
        "largest": _names(stream.largest),
        "lowest_sqnr": _names(stream.worst),
        "exact": {why: _names(tensors) for why, tensors in stream.exact.items()},
        "tensors": list(map(_tensor, stream.tensors)),
        "units": list(map(_unit, stream.units)),
    }


def _names(tensors: Sequence[TensorReport]) -> list[str]:
    return [tensor.name for tensor in tensors]


def _tensor(t: TensorReport) -> dict[str, Any]:
    return {
        "name": t.name,
        "shape": list(t.shape),
        "dtype": t.dtype,
        "kind": t.kind,
        "qp": t.qp,
        "step": t.step,
        "units": list(t.units),
        "bytes": {**t.bytes._asdict(), "total": t.bytes.total},
        "bits_per_weight": t.bits_per_weight,
        "exact": t.exact,
        "why_exact": t.why_exact,
        "levels": t.levels._asdict() if t.levels else None,
        "error": asdict(t.error) if t.error else None,
    }


def _unit(unit: UnitReport) -> dict[str, Any]:
    return {name: getattr(unit, name) for name in ("index", "offset", "size", "type", "kind", "content", "within")}
