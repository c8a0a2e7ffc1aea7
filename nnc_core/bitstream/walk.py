"""The walk over a bitstream that finds its units and puts them before the rules (clause 6.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from nnc_core.bitstream.scope import Scope, Sink, refuse
from nnc_core.bitstream.units import UnitRecord, is_reference_list
from nnc_core.errors import BitstreamError, NncError
from nnc_core.limits import Limits
from nnc_core.stored import Bytes
from nnc_core.syntax.context import InputParameters
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.reader import Reader, Tracer
from nnc_core.syntax.repeated import ReadHeaders
from nnc_core.syntax.unit_types import Header, read_header
from nnc_core.syntax.units import UnitHeader, nnr_unit_header, nnr_unit_size
from nnc_core.tables.code_points import NnrUnitType


class Walk:
    """One walk over the units; ``scope`` is what is in force where it has come to.

    With a ``sink`` that keeps violations, a unit whose header cannot be read has the header None. The walk ends where
    a size is wrong, or a start unit or model parameter set cannot be read, on which the rest depends.
    """

    def __init__(
        self,
        data: Bytes,
        limits: Limits,
        input_parameters: Callable[[str], InputParameters | None],
        sink: Sink = refuse,
    ) -> None:
        self.scope = Scope(limits, input_parameters, self._violation)
        self._sink = sink
        self._data = data
        self._index = 0
        self._offset = 0
        self._lost = False
        self._headers = ReadHeaders()

    def units(self) -> Iterator[UnitRecord]:
        """Read unit after unit up to the end of the data; those of an aggregate follow it."""
        yield from self._units(0, len(self._data), None)
        self._offset = len(self._data)
        if not self._lost:
            self.scope.finish(self._index)

    def _units(self, offset: int, end: int, within: int | None) -> Iterator[UnitRecord]:
        while (offset < end or self._index == 0) and not self._lost:
            self.scope.context.limits.check("units", self._index + 1)
            self._offset = offset
            unit = self._unit(offset, end, within)
            if unit is None:
                self._lost = True
                return
            self._lost = unit.header is None and unit.type in (NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS)
            self._index += 1
            yield unit
            offset += unit.size
            if unit.type == NnrUnitType.NNR_AGG and unit.header is not None:
                self.scope.open(unit)
                yield from self._units(unit.payload_offset, offset, unit.index)
                self._offset = offset
                if not self._lost:
                    self.scope.close(self._index)

    def _unit(self, offset: int, end: int, within: int | None) -> UnitRecord | None:
        """The unit at ``offset``, after its rules; None if it has no size to go by."""
        like = self._headers.find(self._data, offset, end, self.scope.context)
        if like is not None:
            self.scope.enter(self._index, NnrUnitType.NNR_NDU)
            return self._noted(NnrUnitType.NNR_NDU, like.header, offset, like.size, like.payload_offset, 0, within)
        reader, h = Reader(self._data, offset, end, unit=self._index), UnitHeader()
        try:
            nnr_unit_size(reader, h)
            reader.narrow(h.nnr_unit_size)
            nnr_unit_header(reader, h)
        except BitstreamError as error:
            self._sink(error)
            return None
        start, context = reader.byte_position, self.scope.context
        self.scope.enter(self._index, h.nnr_unit_type)
        header = self._header(reader, h.nnr_unit_type)
        if header is not None:
            start = reader.byte_position
        if isinstance(header, CompressedDataUnitHeader):
            self._headers.learn(self._data, offset, start, header, context)
        return self._noted(h.nnr_unit_type, header, offset, h.nnr_unit_size, start, h.partial_data_counter, within)

    def _noted(
        self,
        nnr_unit_type: int,
        header: Header | None,
        offset: int,
        size: int,
        start: int,
        counter: int,
        within: int | None,
    ) -> UnitRecord:
        unit = UnitRecord(
            index=self._index,
            offset=offset,
            size=size,
            type=nnr_unit_type,
            header=header,
            payload_offset=start,
            payload_size=offset + size - start,
            partial_data_counter=counter,
            in_parts=counter > 1 or self.scope.in_parts,
            names=self.scope.names(self._index, header),
            within=within,
            quantization=self.scope.quantization,
            context=self.scope.context,
        )
        # No other payload is looked into before it is asked for.
        self.scope.note(unit, self._data[start : offset + size] if is_reference_list(header) else b"")
        return unit

    def _header(self, reader: Reader, nnr_unit_type: int) -> Header | None:
        try:
            return read_header(reader, nnr_unit_type, self.scope.context)
        except BitstreamError as error:
            self._sink(error)
            return None

    def _violation(self, error: BitstreamError) -> None:
        """Add the place of a violation that the scope has found."""
        if error.bit_offset is None:
            error.bit_offset = self._place(error.element)
        self._sink(error)

    def _place(self, element: str | None) -> int:
        """Where in the unit in hand an element of its header starts, or else what follows the header, in bits."""
        tracer, h = Tracer(self._data, self._offset, unit=self._index), UnitHeader()
        with suppress(NncError):
            nnr_unit_size(tracer, h)
            tracer.narrow(h.nnr_unit_size)
            nnr_unit_header(tracer, h)
            if any(traced.name == element for traced in tracer.elements):
                return _place_of(element, tracer)
            read_header(tracer, h.nnr_unit_type, self.scope.context)
        return _place_of(element, tracer)


def _place_of(element: str | None, tracer: Tracer) -> int:
    places = {traced.name: traced.bit_offset for traced in tracer.elements}
    return places.get(element or "", tracer.bit_offset)
