"""Making a report of bitstreams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import nnc_core
from nnc_adapters import verification
from nnc_adapters.comparison import TensorComparison
from nnc_adapters.containers import plain
from nnc_adapters.report.data import Bytes, Levels, Report, StreamReport, TensorReport, UnitReport
from nnc_adapters.report.levels import histograms
from nnc_adapters.report.reasons import explained
from nnc_adapters.report.units import described, shared_out
from nnc_adapters.reports import Meter, passing
from nnc_adapters.shared import exactly
from nnc_adapters.shared.files import about, size_of
from nnc_adapters.verification import VerifyReport
from nnc_core import Limits, NnrFile, TensorInfo
from nnc_core.approximator.step import step_size
from nnc_core.bitstream import UnitRecord
from nnc_core.bitstream.marks import mark_of

__all__ = ["report"]


def report(
    source: str | Path,
    original: str | Path | None = None,
    *,
    beside: Mapping[str, str | Path] | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    meter: Meter | None = None,
    label: str | None = None,
    **reading: Any,
) -> Report:
    """Report on the bitstream ``source``, and compare it with the model ``original`` that it was made from.

    ``source`` may be a container of NNR as well. ``beside`` has other bitstreams of the same model by label, which are
    put beside it, without their units; ``label`` is what this one is called, if not by its file. ``reading`` are the
    other options of `verify`. ``meter`` is told the bytes that are done.
    Raises what `verify` and `nnc_core.open` raise.
    """
    source, others = Path(source), {name: Path(path) for name, path in (beside or {}).items()}
    made = None if original is None else Path(original)
    options = _Options(threads, limits, meter, reading)
    first = _stream(label or source.name, source, made, options)
    rest = [replace(_stream(name, path, made, options), units=()) for name, path in others.items()]
    return Report(first, tuple(rest), None if made is None else made.name)


class _Options(NamedTuple):
    threads: int | None
    limits: Limits | None
    meter: Meter | None
    reading: dict[str, Any]


def _stream(label: str, source: Path, original: Path | None, options: _Options) -> StreamReport:
    limits = options.limits
    with about(source), plain(source, limits or Limits()) as path, nnc_core.open(path, limits=limits) as file:
        units = list(described(file, path))
        levels = _levels(file, options.meter)
        found = None if original is None else _verified(original, path, options)
        tensors = list(_tensors(file, units, levels, found))
    return StreamReport(
        label=label,
        bytes=_total(share for *_, share in units),
        tensors=tuple(tensors if original is None else explained(tensors, original, options.reading, limits)),
        units=tuple(each for _, each, _ in units),
        sqnr_db=found.sqnr_db if found else None,
        topology=found.topology if found else None,
        original_bytes=None if original is None else size_of(original),
    )


def _verified(original: Path, path: Path, options: _Options) -> VerifyReport:
    return verification.verify(
        original, path, threads=options.threads, meter=options.meter, limits=options.limits, **options.reading
    )


def _levels(file: NnrFile, meter: Meter | None) -> dict[str, Levels]:
    found: dict[str, Levels] = {}
    passed, done = passing(meter, "reading", sum(unit.size for unit in file.bitstream.data_units)), 0
    for unit, levels in zip(file.bitstream.data_units, histograms(file), strict=True):
        found = levels | found  # of a tensor in several units, the first
        done += unit.size
        if passed is not None:
            passed(done)
    return found


def _total(shares: Iterable[Bytes]) -> Bytes:
    return Bytes(*map(sum, zip(*shares, strict=True)))


def _tensors(
    file: NnrFile,
    units: Sequence[tuple[UnitRecord, UnitReport, Bytes]],
    levels: Mapping[str, Levels],
    found: VerifyReport | None,
) -> Iterator[TensorReport]:
    """The tensors in bitstream order; those of a block share its units."""
    errors = {each.name: each for each in found.tensors} if found else {}
    records = {record.index: record for record, *_ in units}
    carriers = _carriers(units)
    for infos in _blocks(file.tensors.values()):
        indices = carriers[infos[0].name]
        whole = _total(units[index][2] for index in indices)
        elements = [max(1, prod(info.shape)) for info in infos]
        for info, share in zip(infos, shared_out(whole, elements), strict=True):
            unit = records[info.unit]
            yield _tensor(info, unit, indices, share, levels.get(info.name), errors.get(info.name))


def _tensor(
    info: TensorInfo,
    unit: UnitRecord,
    units: tuple[int, ...],
    share: Bytes,
    levels: Levels | None,
    error: TensorComparison | None,
) -> TensorReport:
    density = unit.quantization.qp_density if unit.quantization else None
    return TensorReport(
        name=info.name,
        shape=info.shape,
        dtype=error.dtype if error else info.dtype,
        kind=info.payload_type.removeprefix("NNR_PT_") + " dq" * info.dq_flag,
        qp=info.qp,
        step=None if info.qp is None or density is None else step_size(info.qp, density),
        units=units,
        bytes=share,
        exact_as=exactly.form(unit, info),
        levels=levels,
        error=error,
    )


def _carriers(units: Sequence[tuple[UnitRecord, UnitReport, Bytes]]) -> dict[str, tuple[int, ...]]:
    """The units of each tensor."""
    found: dict[str, tuple[int, ...]] = {}
    for record, *_ in units:
        alone = len(record.names) == 1
        for name in record.names:
            tensor = mark_of(name).tensor if alone else name
            found[tensor] = (*found.get(tensor, ()), record.index)
    return found


def _blocks(infos: Iterable[TensorInfo]) -> Iterator[list[TensorInfo]]:
    """Tensors that start in the same unit."""
    blocks: dict[int, list[TensorInfo]] = {}
    for info in infos:
        blocks.setdefault(info.unit, []).append(info)
    yield from blocks.values()
