"""One unit of a bitstream as the index knows it (clause 6.3)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import field
from typing import NamedTuple

from nnc_core.errors import BitstreamError, LimitError
from nnc_core.records import dataclass
from nnc_core.stored import Bytes
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.quantization import QuantizationUnitHeader
from nnc_core.syntax.reader import TracedElement, Tracer
from nnc_core.syntax.topology import TopologyUnitHeader
from nnc_core.syntax.unit_types import UNIT_TYPES, Header, read_header
from nnc_core.syntax.units import UnitHeader, nnr_unit_header, nnr_unit_size
from nnc_core.tables.code_points import TopologyCompressionFormat, TopologyStorageFormat


class Quantization(NamedTuple):
    """What a parameter set says for the data units after it."""

    qp_density: int
    quantization_parameter: int


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One NNR unit of a bitstream: ``data[offset : offset + size]``, its payload from ``payload_offset`` on.

    ``header`` is what the unit says before its payload (all of it, for a parameter set), ``None`` for a type that is
    not interpreted. ``in_parts`` tells that the payload is one of several parts. ``names`` are the tensors of a data
    unit, in header order. ``quantization`` and ``context`` are what is in force for it. ``within`` is the index of the
    aggregate unit that it stands in.
    """

    index: int
    offset: int
    size: int
    type: int
    header: Header | None
    payload_offset: int
    payload_size: int
    partial_data_counter: int = 0
    in_parts: bool = False
    names: tuple[str, ...] = ()
    within: int | None = None
    quantization: Quantization | None = field(default=None, repr=False)
    context: SyntaxContext = field(default_factory=SyntaxContext, repr=False)

    @property
    def data_header(self) -> CompressedDataUnitHeader:
        """The header of a data unit; `TypeError` for any other unit."""
        if not isinstance(self.header, CompressedDataUnitHeader):
            raise TypeError(f"unit {self.index} is not a data unit")
        return self.header


def compression_format(header: Header | None) -> int:
    """The ``topology_compression_format`` or ``quantization_compression_format`` of a unit."""
    if isinstance(header, TopologyUnitHeader):
        return header.topology_compression_format
    if isinstance(header, QuantizationUnitHeader):
        return header.quantization_compression_format
    return TopologyCompressionFormat.NNR_PT_RAW


def is_reference_list(header: Header | None) -> bool:
    """Whether a unit with this header lists names, to which others refer by index."""
    reference_list = TopologyStorageFormat.NNR_TPL_REFLIST
    return isinstance(header, TopologyUnitHeader) and header.topology_storage_format == reference_list


def trace(data: Bytes, unit: UnitRecord) -> list[TracedElement]:
    """Every syntax element of ``unit`` above the arithmetic coder, in order, with its place and bits.

    Where the unit is damaged, the elements up to there.
    """
    tracer = Tracer(data, unit.offset, unit.offset + unit.size, unit=unit.index)
    with suppress(BitstreamError, LimitError):
        h = UnitHeader()
        nnr_unit_size(tracer, h)
        nnr_unit_header(tracer, h)
        header = read_header(tracer, h.nnr_unit_type, unit.context)
        table = UNIT_TYPES[h.nnr_unit_type].payload if h.nnr_unit_type in UNIT_TYPES else None
        if (
            table is not None
            and not unit.in_parts
            and compression_format(header) == TopologyCompressionFormat.NNR_PT_RAW
        ):
            table.run(tracer, table.record(), header, unit.context)
    return tracer.elements


def place(data: Bytes, unit: UnitRecord, element: str) -> int:
    """Where in ``unit`` an element of its header starts, or else its payload, in bits."""
    places = {traced.name: traced.bit_offset for traced in trace(data, unit)}
    return places.get(element, 8 * (unit.payload_offset - unit.offset))
