"""The walk over a bitstream that finds its units and checks what one says against those before (clause 6.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from math import prod

from nnc_core.bitstream.scope import with_parameters
from nnc_core.bitstream.units import UnitRecord
from nnc_core.errors import BitstreamError, NncError, UnitOrderError, UnitSizeError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.syntax.context import InputParameters, SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, coded_shapes, context_after, element_names
from nnc_core.syntax.deflate import inflate
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.reader import Reader, Tracer
from nnc_core.syntax.topology import TopologyUnitHeader, TopologyUnitPayload, nnr_topology_unit_payload
from nnc_core.syntax.unit_types import Header, read_header
from nnc_core.syntax.units import StartUnitHeader, UnitHeader, nnr_unit_header, nnr_unit_size
from nnc_core.tables.code_points import (
    NnrUnitType,
    PayloadType,
    TopologyCompressionFormat,
    TopologyStorageFormat,
)

_QUANTIZED = (PayloadType.NNR_PT_FLOAT, PayloadType.NNR_PT_BLOCK)


class Walk:
    """The state of one walk over the units: what the order rules and the headers of later units depend on."""

    def __init__(
        self, data: memoryview, limits: Limits, input_parameters: Callable[[str], InputParameters | None]
    ) -> None:
        self.context = SyntaxContext(limits=limits, input_parameters=input_parameters)
        self.mps: ModelParameterSet | None = None
        self._data = data
        self._names: set[str] = set()
        self._references = 0
        self._quantized_by_layers = False
        self._fragments: list[UnitRecord] = []

    def units(self) -> Iterator[UnitRecord]:
        """Read unit after unit up to the end of the data."""
        offset = index = 0
        while offset < len(self._data) or index == 0:
            self.context.limits.check("units", index + 1)
            try:
                unit = self._unit(index, offset)
                self._note(unit)
            except BitstreamError as error:
                if error.bit_offset is None:
                    error.bit_offset = self._place(index, offset, error.element)
                raise
            yield unit
            offset += unit.size
            index += 1
        if self._fragments:
            message = "the last fragments of a data unit are missing"
            raise UnitOrderError(message, unit=index, bit_offset=0, element="nnr_unit_size")

    def _unit(self, index: int, offset: int) -> UnitRecord:
        reader = Reader(self._data, offset, unit=index)
        h = UnitHeader()
        nnr_unit_size(reader, h)
        reader.narrow(h.nnr_unit_size)
        nnr_unit_header(reader, h)
        self._check_order(index, h.nnr_unit_type)
        header = read_header(reader, h.nnr_unit_type, self.context)
        start, end = reader.byte_position, offset + h.nnr_unit_size
        return UnitRecord(
            index=index,
            offset=offset,
            size=h.nnr_unit_size,
            type=h.nnr_unit_type,
            header=header,
            payload_offset=start,
            payload_size=end - start,
            partial_data_counter=h.partial_data_counter,
            names=_names(header, self.context, reader),
            context=self.context,
        )

    def _place(self, index: int, offset: int, element: str | None) -> int:
        """Where in a unit an element of its header starts, or else what follows the header, in bits."""
        tracer, h = Tracer(self._data, offset, unit=index), UnitHeader()
        with suppress(NncError):
            nnr_unit_size(tracer, h)
            nnr_unit_header(tracer, h)
            read_header(tracer, h.nnr_unit_type, self.context)
        places = {traced.name: traced.bit_offset for traced in tracer.elements}
        return places.get(element or "", tracer.bit_offset)

    def _check_order(self, index: int, nnr_unit_type: int) -> None:
        if (nnr_unit_type == NnrUnitType.NNR_STR) != (index == 0):
            message = "the bitstream does not begin with a NNR_STR" if index == 0 else "a second NNR_STR"
            raise UnitOrderError(message, unit=index, element="nnr_unit_type")
        if nnr_unit_type == NnrUnitType.NNR_MPS and self.mps:
            raise UnitOrderError("a second NNR_MPS", unit=index, element="nnr_unit_type")
        if nnr_unit_type == NnrUnitType.NNR_NDU and not self.mps:
            raise UnitOrderError("a NNR_NDU before the NNR_MPS", unit=index, element="nnr_unit_type")
        if nnr_unit_type != NnrUnitType.NNR_NDU and self._fragments:
            raise UnitOrderError("a unit between the fragments of a data unit", unit=index, element="nnr_unit_type")

    def _note(self, unit: UnitRecord) -> None:
        """Check what a unit says against the units before, and keep what later ones need."""
        header = unit.header
        if isinstance(header, StartUnitHeader):
            _refuse_payload(unit)
            self.context = replace(self.context, general_profile_idc=header.general_profile_idc)
        elif isinstance(header, ModelParameterSet):
            _refuse_payload(unit)
            self.mps = header
            self.context = with_parameters(self.context, header)
        elif isinstance(header, TopologyUnitHeader):
            self._note_topology(unit, header)
        elif isinstance(header, CompressedDataUnitHeader):
            self._note_data(unit, header)
        elif unit.type == NnrUnitType.NNR_LPS:
            self._quantized_by_layers = True

    def _note_topology(self, unit: UnitRecord, header: TopologyUnitHeader) -> None:
        if header.topology_storage_format != TopologyStorageFormat.NNR_TPL_REFLIST:
            return
        if unit.partial_data_counter > 1:
            raise UnsupportedError("a reference list in several units")
        coded = self._data[unit.payload_offset : unit.offset + unit.size]
        most = self.context.limits.topology_bytes
        data = inflate(header.topology_compression_format, coded, most, unit.index)
        reader = Reader(data, unit=unit.index)
        payload = TopologyUnitPayload()
        try:
            nnr_topology_unit_payload(reader, payload, header, self.context)
        except BitstreamError as error:
            # The reader counts from the payload on, and what was compressed has no place in the unit.
            raw = header.topology_compression_format == TopologyCompressionFormat.NNR_PT_RAW
            error.bit_offset = 8 * (unit.payload_offset - unit.offset) + (error.bit_offset or 0 if raw else 0)
            raise
        if reader.byte_position != len(data):
            raise UnitSizeError("bytes follow the reference list", unit=unit.index, element="topology_elem_id_list")
        names = payload.topology_elements_ids_list.topology_elem_id_list
        self._references += len(names)
        self.context.limits.check("units", self._references, "topology_elem_id_list")
        self.context = replace(self.context, topology_elements=names)

    def _note_data(self, unit: UnitRecord, header: CompressedDataUnitHeader) -> None:
        self._check_quantization(unit, header)
        if self._fragments:
            self._check_fragment(unit)
        else:
            self._check_names(unit)
        self._fragments.append(unit)
        if unit.partial_data_counter > 1:
            return
        _check_raw_size(self._fragments, header, unit.context)
        self._fragments = []
        self.context = context_after(header, self.context)

    def _check_quantization(self, unit: UnitRecord, header: CompressedDataUnitHeader) -> None:
        quantized = header.nnr_compressed_data_unit_payload_type in _QUANTIZED
        if quantized and not self._quantized_by_layers and (self.mps is None or self.mps.mps_qp_density is None):
            message = "no parameter set before this unit has a qp_density"
            raise UnitOrderError(message, unit=unit.index, element="nnr_compressed_data_unit_payload_type")

    def _check_names(self, unit: UnitRecord) -> None:
        header = unit.data_header
        element = "topology_elem_id" + "_index" * self.context.mps_topology_indexed_reference_flag
        for j, name in enumerate(unit.names):
            if name in self._names:
                place = f"{element}_list[{j}]" if header.nnr_multiple_topology_elements_present_flag else element
                raise UnitOrderError("the tensor is coded twice", unit=unit.index, element=place, tensor=name)
            self._names.add(name)

    def _check_fragment(self, unit: UnitRecord) -> None:
        before = self._fragments[-1]
        expected = before.partial_data_counter - 1
        if unit.partial_data_counter != expected:
            message = f"fragment {unit.partial_data_counter} after fragment {before.partial_data_counter}"
            raise UnitOrderError(message, unit=unit.index, element="partial_data_counter", expected=str(expected))
        if unit.header != before.header:
            message = "the header differs from that of the fragment before"
            raise UnitOrderError(message, unit=unit.index, element="nnr_compressed_data_unit_payload_type")


def _names(header: Header | None, context: SyntaxContext, reader: Reader) -> tuple[str, ...]:
    if not isinstance(header, CompressedDataUnitHeader):
        return ()
    if context.mps_topology_indexed_reference_flag and not context.topology_elements:
        message = "a reference by index before the reference list"
        raise UnitOrderError(message, unit=reader.unit, element="topology_elem_id_index")
    try:
        return element_names(header, context)
    except IndexError:
        message = f"the reference list has {len(context.topology_elements)} names"
        raise reader.illegal("topology_elem_id_index", message) from None


def _refuse_payload(unit: UnitRecord) -> None:
    if unit.payload_size:
        message = f"{unit.payload_size} bytes follow the last element"
        raise UnitSizeError(message, unit=unit.index, element="nnr_unit_size")


def _check_raw_size(fragments: list[UnitRecord], header: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    if header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_RAW_FLOAT:
        return
    shape = coded_shapes(header, ctx)[0]
    size, expected = sum(unit.payload_size for unit in fragments), 4 * prod(shape)
    if size != expected:
        message = f"{size} payload bytes for dimensions {shape}"
        index, element = fragments[-1].index, "nnr_unit_size"
        raise UnitSizeError(message, unit=index, element=element, expected=f"{expected} bytes")
