"""The units of a bitstream with their syntax elements, and where their bytes go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from nnc_adapters.report.data import Bytes, UnitReport
from nnc_adapters.shared import titles
from nnc_core import NnrFile
from nnc_core.bitstream import UnitRecord
from nnc_core.syntax import QuantizationUnitHeader, TopologyUnitHeader, TracedElement
from nnc_core.tables.code_points import NnrUnitType, TopologyStorageFormat

__all__ = ["described", "shared_out"]

_MOST_ELEMENTS = 1000
_MOST_HEAD = 4096
_OF_PAYLOAD = 64
_NAMES = "topology_elem_id"


def described(file: NnrFile, path: Path) -> Iterator[tuple[UnitRecord, UnitReport, Bytes]]:
    """Each unit of the bitstream at ``path`` with its elements, and where its bytes go."""
    with path.open("rb") as stream:
        for unit in file.units:
            elements = file.bitstream.trace(unit)
            yield unit, _report(unit, elements, stream), _bytes(unit, elements)


def _report(unit: UnitRecord, elements: Sequence[TracedElement], stream: BinaryIO) -> UnitReport:
    stream.seek(unit.offset)
    return UnitReport(
        index=unit.index,
        offset=unit.offset,
        size=unit.size,
        type=titles.name_of(NnrUnitType, unit.type),
        kind=titles.kind(unit),
        content=titles.content(unit),
        payload_offset=unit.payload_offset - unit.offset,
        within=unit.within,
        elements=tuple(elements[:_MOST_ELEMENTS]),
        omitted=max(0, len(elements) - _MOST_ELEMENTS),
        head=stream.read(min(unit.size, unit.payload_offset - unit.offset + _OF_PAYLOAD, _MOST_HEAD)),
    )


def _bytes(unit: UnitRecord, elements: Sequence[TracedElement]) -> Bytes:
    """The bytes of a unit; those of an aggregate without the units in it."""
    if unit.type == NnrUnitType.NNR_AGG:
        return Bytes(headers=unit.payload_offset - unit.offset)
    payload, h = unit.payload_size, unit.header
    if isinstance(h, TopologyUnitHeader) and h.topology_storage_format == TopologyStorageFormat.NNR_TPL_REFLIST:
        return Bytes(names=payload, headers=unit.size - payload)
    if isinstance(h, TopologyUnitHeader | QuantizationUnitHeader):
        return Bytes(topology=payload, headers=unit.size - payload)
    if unit.type != NnrUnitType.NNR_NDU:
        return Bytes(headers=unit.size)
    names = sum(len(e.bits) for e in elements if e.descriptor == "st(v)" and e.name.startswith(_NAMES)) // 8
    return Bytes(weights=payload, names=names, headers=unit.size - payload - names)


def shared_out(whole: Bytes, elements: Sequence[int]) -> list[Bytes]:
    """Bytes of a block divided among its tensors in proportion to their elements; nothing is lost."""
    total = max(sum(elements), 1)
    shares = [Bytes(*(count * number // total for count in whole)) for number in elements]
    rest = [count - sum(column) for count, column in zip(whole, zip(*shares, strict=True), strict=True)]
    shares[0] = Bytes(*(share + more for share, more in zip(shares[0], rest, strict=True)))
    return shares
