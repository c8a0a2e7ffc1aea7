"""A bitstream as units: an index that leaves payloads untouched, and a writer that streams (clauses 7.2 and 7.3)."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import BinaryIO

from nnc_core.errors import UnitOrderError, UnitSizeError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax.data_unit import coded_shapes, context_after, element_names, nnr_compressed_data_unit_header
from nnc_core.syntax.elements import Buffer
from nnc_core.syntax.parameter_sets import nnr_model_parameter_set_payload
from nnc_core.syntax.quantization import nnr_quantization_unit_header, nnr_quantization_unit_payload
from nnc_core.syntax.reader import Reader, TracedElement, Tracer
from nnc_core.syntax.records import (
    CompressedDataUnitHeader,
    InputParameters,
    ModelParameterSet,
    QuantizationUnitHeader,
    QuantizationUnitPayload,
    StartUnitHeader,
    SyntaxContext,
    TopologyUnitHeader,
    TopologyUnitPayload,
    UnitHeader,
    nothing_known,
)
from nnc_core.syntax.topology import deflate, inflate, nnr_topology_unit_header, nnr_topology_unit_payload
from nnc_core.syntax.units import nnr_start_unit_header, nnr_unit_header, nnr_unit_size, unit_prefix
from nnc_core.syntax.writer import Writer
from nnc_core.tables.code_points import (
    PRIVATE_TOPOLOGY,
    NnrUnitType,
    PayloadType,
    QuantizationStorageFormat,
    TopologyCompressionFormat,
    TopologyStorageFormat,
)

Header = StartUnitHeader | ModelParameterSet | TopologyUnitHeader | QuantizationUnitHeader | CompressedDataUnitHeader

_QUANTIZED = (PayloadType.NNR_PT_FLOAT, PayloadType.NNR_PT_BLOCK)
_NOT_DESCRIPTIONS = (TopologyStorageFormat.NNR_TPL_PRUN, TopologyStorageFormat.NNR_TPL_REFLIST)
_PRIVATE = range(128, 256)
_EMPTY = b"\0"  # topology data of no bytes, in the form that all known decoders read


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One NNR unit of a bitstream: ``data[offset : offset + size]``, its payload from ``payload_offset`` on.

    ``header`` is what the unit says before its payload (all of it, for a parameter set), ``None`` for a type that is
    not interpreted. ``names`` are the tensors of a data unit, in header order. ``context`` is what the header was read
    with.
    """

    index: int
    offset: int
    size: int
    type: int
    header: Header | None
    payload_offset: int
    payload_size: int
    partial_data_counter: int = 0
    names: tuple[str, ...] = ()
    context: SyntaxContext = field(default_factory=SyntaxContext, repr=False)

    @property
    def data_header(self) -> CompressedDataUnitHeader:
        """The header of a data unit; `TypeError` for any other unit."""
        if not isinstance(self.header, CompressedDataUnitHeader):
            raise TypeError(f"unit {self.index} is no data unit")
        return self.header


def read_header(s: Reader, nnr_unit_type: int, ctx: SyntaxContext) -> Header | None:
    """Read what stands between the common header and the payload; ``None`` for a type that is not interpreted."""
    if nnr_unit_type == NnrUnitType.NNR_STR:
        start = StartUnitHeader()
        nnr_start_unit_header(s, start)
        return start
    if nnr_unit_type == NnrUnitType.NNR_MPS:
        mps = ModelParameterSet()
        nnr_model_parameter_set_payload(s, mps, ctx)
        return mps
    if nnr_unit_type == NnrUnitType.NNR_TPL:
        topology = TopologyUnitHeader()
        nnr_topology_unit_header(s, topology)
        return topology
    if nnr_unit_type == NnrUnitType.NNR_QNT:
        quantization = QuantizationUnitHeader()
        nnr_quantization_unit_header(s, quantization)
        return quantization
    if nnr_unit_type == NnrUnitType.NNR_NDU:
        data = CompressedDataUnitHeader()
        nnr_compressed_data_unit_header(s, data, ctx)
        return data
    return None


class Bitstream:
    """The units of a bitstream, found by their sizes; payloads are not read before they are asked for.

    ``data`` may be a memory map, and must stay as it is. ``input_parameters`` looks up what is known of a tensor by
    other ways than the bitstream, such as its dimensions. Construction raises a `BitstreamError` for whatever is
    wrong with sizes, order or headers, `LimitError` for what exceeds ``limits``, and `UnsupportedError` for a model
    parameter set or a reference list that cannot be read.
    """

    def __init__(
        self,
        data: Buffer | mmap.mmap,
        limits: Limits | None = None,
        input_parameters: Callable[[str], InputParameters | None] = nothing_known,
    ) -> None:
        self._data = memoryview(data).cast("B")
        self._limits = limits or Limits()
        index = _Indexer(self._data, self._limits, input_parameters)
        self.units: tuple[UnitRecord, ...] = tuple(index.units())
        self.general_profile_idc: int = index.context.general_profile_idc
        self.mps: ModelParameterSet | None = index.mps

    @cached_property
    def data_units(self) -> Mapping[str, UnitRecord]:
        """The unit of each tensor that has one of its own, in bitstream order; of a divided unit the first fragment.

        `UnsupportedError` if there are aggregate units, which may hold further tensors.
        """
        self._refuse_aggregates()
        return MappingProxyType({unit.names[0]: unit for unit in self._first_fragments() if len(unit.names) == 1})

    @cached_property
    def compound_units(self) -> tuple[UnitRecord, ...]:
        """The data units with several tensors (blocks, and tensors that are cut up after decoding)."""
        self._refuse_aggregates()
        return tuple(unit for unit in self._first_fragments() if len(unit.names) > 1)

    @cached_property
    def topology(self) -> Topology | None:
        """The description in the topology unit, with the quantization unit; a lone zero byte stands for no data.

        Raises `UnsupportedError` for formats beyond the enumerations and for descriptions in several units,
        `LimitError` beyond ``limits.topology_bytes``, `BitstreamError` for damaged data.
        """
        found = [(u, h) for u in self.units if isinstance(h := u.header, TopologyUnitHeader) and _is_description(h)]
        standard = [(u, h) for u, h in found if h.topology_storage_format not in _PRIVATE]
        private = [(u, h) for u, h in found if h.topology_storage_format == PRIVATE_TOPOLOGY]
        if not found:
            return None
        storage_format = _storage_format((standard or found)[0][1])
        data = self._description(standard)
        return Topology(
            storage_format, data or b"", self._quantization_data(storage_format), self._description(private)
        )

    def _description(self, found: list[tuple[UnitRecord, TopologyUnitHeader]]) -> bytes | None:
        """The data of the only topology unit in ``found``."""
        if not found:
            return None
        unit, header = found[0]
        if len(found) > 1 or unit.partial_data_counter:
            raise UnsupportedError("a topology in several units")
        return self._inflated(unit, header.topology_compression_format, "topology")

    def _quantization_data(self, storage_format: int) -> bytes | None:
        """The data of the only quantization unit, which is in the terms of ``storage_format``."""
        found = [(u, h) for u in self.units if isinstance(h := u.header, QuantizationUnitHeader)]
        if not found:
            return None
        unit, header = found[0]
        if len(found) > 1 or unit.partial_data_counter:
            raise UnsupportedError("a quantization description in several units")
        if header.quantization_storage_format != storage_format:
            described = f"quantization_storage_format {header.quantization_storage_format}"
            raise UnsupportedError(f"{described} beside topology_storage_format {storage_format:d}")
        return self._inflated(unit, header.quantization_compression_format, "quantization")

    def _inflated(self, unit: UnitRecord, compression_format: int, kind: str) -> bytes:
        data = inflate(compression_format, self.payload(unit), self._limits.topology_bytes, unit.index, kind)
        return b"" if data == _EMPTY else data

    def payload(self, unit: UnitRecord) -> Buffer:
        """The payload bytes of ``unit``: a view, or the joined bytes of all fragments if it is the first of several."""
        fragments = self.units[unit.index : unit.index + max(1, unit.partial_data_counter)]
        views = [self._data[u.payload_offset : u.payload_offset + u.payload_size] for u in fragments]
        return views[0] if len(views) == 1 else b"".join(views)

    def quantization(self, unit: UnitRecord) -> tuple[int, int]:
        """``qp_density`` and base quantization parameter for ``unit``; `UnsupportedError` after a NNR_LPS."""
        if unit.index > self._first_layer_parameter_set:
            raise UnsupportedError("NNR_LPS")
        if self.mps is None or self.mps.mps_qp_density is None:
            raise ValueError(f"unit {unit.index} is not quantized")
        return self.mps.mps_qp_density, self.mps.mps_quantization_parameter or 0

    def trace(self, unit: UnitRecord) -> list[TracedElement]:
        """Every syntax element of ``unit`` above the arithmetic coder, in order, with its place and bits."""
        tracer = Tracer(self._data, unit.offset, unit.offset + unit.size, unit=unit.index)
        nnr_unit_size(tracer, UnitHeader())
        nnr_unit_header(tracer, UnitHeader())
        header = read_header(tracer, unit.type, unit.context)
        if isinstance(header, TopologyUnitHeader) and _is_plain(header):
            nnr_topology_unit_payload(tracer, TopologyUnitPayload(), header, unit.context)
        elif isinstance(header, QuantizationUnitHeader) and not header.quantization_compression_format:
            nnr_quantization_unit_payload(tracer, QuantizationUnitPayload())
        return tracer.elements

    def close(self) -> None:
        """Let go of the data, so that a memory map can be closed; payload views must be gone by then."""
        self._data.release()

    @cached_property
    def _first_layer_parameter_set(self) -> int:
        indices = (unit.index for unit in self.units if unit.type == NnrUnitType.NNR_LPS)
        return next(indices, len(self.units))

    def _first_fragments(self) -> Iterator[UnitRecord]:
        skip = 0
        for unit in self.units:
            if unit.names and not skip:
                yield unit
                skip = max(1, unit.partial_data_counter)
            skip = max(0, skip - 1)

    def _refuse_aggregates(self) -> None:
        if any(unit.type == NnrUnitType.NNR_AGG for unit in self.units):
            raise UnsupportedError("NNR_AGG")


def _is_description(header: TopologyUnitHeader) -> bool:
    return header.topology_storage_format not in _NOT_DESCRIPTIONS


def _is_plain(header: TopologyUnitHeader) -> bool:
    """Whether the payload's syntax is known and not hidden by compression."""
    raw = header.topology_compression_format == TopologyCompressionFormat.NNR_PT_RAW
    return raw and header.topology_storage_format != TopologyStorageFormat.NNR_TPL_PRUN


def _storage_format(header: TopologyUnitHeader) -> TopologyStorageFormat:
    try:
        return TopologyStorageFormat(header.topology_storage_format)
    except ValueError:
        raise UnsupportedError(f"topology_storage_format {header.topology_storage_format}") from None


class _Indexer:
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
            unit = self._unit(index, offset)
            self._note(unit)
            yield unit
            offset += unit.size
            index += 1
        if self._fragments:
            raise UnitOrderError("the last fragments of a data unit are missing", unit=index)

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
            self.context = self.context.with_parameters(header)
        elif isinstance(header, TopologyUnitHeader):
            self._note_topology(unit, header)
        elif isinstance(header, CompressedDataUnitHeader):
            self._note_data(unit, header)
        elif unit.type == NnrUnitType.NNR_LPS:
            self._quantized_by_layers = True

    def _note_topology(self, unit: UnitRecord, header: TopologyUnitHeader) -> None:
        if header.topology_storage_format != TopologyStorageFormat.NNR_TPL_REFLIST:
            return
        if unit.partial_data_counter:
            raise UnsupportedError("a reference list in several units")
        coded = self._data[unit.payload_offset : unit.offset + unit.size]
        most = self.context.limits.topology_bytes
        data = inflate(header.topology_compression_format, coded, most, unit.index)
        reader = Reader(data, unit=unit.index)
        payload = TopologyUnitPayload()
        nnr_topology_unit_payload(reader, payload, header, self.context)
        if reader.byte_position != len(data):
            raise UnitSizeError("bytes follow the reference list", unit=unit.index)
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
            raise UnitOrderError("no parameter set before this unit has a qp_density", unit=unit.index)

    def _check_names(self, unit: UnitRecord) -> None:
        for name in unit.names:
            if name in self._names:
                raise UnitOrderError("the tensor is coded twice", unit=unit.index, tensor=name)
            self._names.add(name)

    def _check_fragment(self, unit: UnitRecord) -> None:
        before = self._fragments[-1]
        expected = before.partial_data_counter - 1
        if unit.partial_data_counter != expected:
            message = f"fragment {unit.partial_data_counter} after fragment {before.partial_data_counter}"
            raise UnitOrderError(message, unit=unit.index, element="partial_data_counter", expected=str(expected))
        if unit.header != before.header:
            raise UnitOrderError("the header differs from that of the fragment before", unit=unit.index)


def _names(header: Header | None, context: SyntaxContext, reader: Reader) -> tuple[str, ...]:
    if not isinstance(header, CompressedDataUnitHeader):
        return ()
    if context.mps_topology_indexed_reference_flag and not context.topology_elements:
        raise UnitOrderError("a reference by index before the reference list", unit=reader.unit)
    try:
        return element_names(header, context)
    except IndexError:
        message = f"the reference list has {len(context.topology_elements)} names"
        raise reader.illegal("topology_elem_id_index", message) from None


def _refuse_payload(unit: UnitRecord) -> None:
    if unit.payload_size:
        raise UnitSizeError(f"{unit.payload_size} bytes follow the last element", unit=unit.index)


def _check_raw_size(fragments: list[UnitRecord], header: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    if header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_RAW_FLOAT:
        return
    shape = coded_shapes(header, ctx)[0]
    size, expected = sum(unit.payload_size for unit in fragments), 4 * prod(shape)
    if size != expected:
        message = f"{size} payload bytes for dimensions {shape}"
        raise UnitSizeError(message, unit=fragments[-1].index, expected=f"{expected} bytes")


def _smallest(data: bytes) -> tuple[TopologyCompressionFormat, bytes]:
    """A description as its unit carries it: compressed where that makes it smaller, never empty."""
    packed = deflate(data)
    if len(packed) < len(data):
        return TopologyCompressionFormat.NNR_DFL, packed
    return TopologyCompressionFormat.NNR_PT_RAW, data or _EMPTY


class BitstreamWriter:
    """Writes a bitstream to a binary file object, unit by unit; ``size`` counts the bytes.

    Construction writes the start unit and the model parameter set; `topology` comes next, then each `data_unit`.
    A record that the syntax cannot hold raises `ElementValueError`, one beyond ``limits`` `LimitError`, a tensor
    that is written twice `UnitOrderError`.
    """

    def __init__(
        self, stream: BinaryIO, mps: ModelParameterSet, general_profile_idc: int = 1, limits: Limits | None = None
    ) -> None:
        self._stream = stream
        self.size = 0
        self.context = SyntaxContext(general_profile_idc, limits=limits or Limits()).with_parameters(mps)
        self._names: set[str] = set()
        start, parameters = Writer(), Writer()
        nnr_start_unit_header(start, StartUnitHeader(general_profile_idc))
        nnr_model_parameter_set_payload(parameters, mps, self.context)
        self._unit(NnrUnitType.NNR_STR, start.data())
        self._unit(NnrUnitType.NNR_MPS, parameters.data())

    def topology(self, topology: Topology) -> None:
        """Write a topology unit, and the units for what comes with it; data are compressed where that saves bytes.

        `UnsupportedError` for a quantization description in terms of a format that has no code point for that.
        """
        self._description(topology.storage_format, topology.data)
        if topology.quantization is not None:
            self._quantization(topology.storage_format, topology.quantization)
        if topology.private is not None:
            self._description(PRIVATE_TOPOLOGY, topology.private)

    def _description(self, storage_format: int, data: bytes) -> None:
        compression, payload = _smallest(data)
        writer = Writer()
        nnr_topology_unit_header(writer, TopologyUnitHeader(storage_format, compression))
        self._unit(NnrUnitType.NNR_TPL, writer.data(), payload)

    def _quantization(self, storage_format: int, data: bytes) -> None:
        if storage_format not in QuantizationStorageFormat._value2member_map_:
            raise UnsupportedError(f"quantization_storage_format {storage_format:d}")
        compression, payload = _smallest(data)
        writer = Writer()
        nnr_quantization_unit_header(writer, QuantizationUnitHeader(storage_format, compression))
        self._unit(NnrUnitType.NNR_QNT, writer.data(), payload)

    def data_unit(self, header: CompressedDataUnitHeader, payload: Buffer) -> None:
        """Write a data unit."""
        writer = Writer()
        nnr_compressed_data_unit_header(writer, header, self.context)
        for name in element_names(header, self.context):
            if name in self._names:
                raise UnitOrderError("the tensor is coded twice", tensor=name)
            self._names.add(name)
        self.context = context_after(header, self.context)
        self._unit(NnrUnitType.NNR_NDU, writer.data(), payload)

    def _unit(self, nnr_unit_type: NnrUnitType, header: bytes, payload: Buffer = b"") -> None:
        prefix = unit_prefix(nnr_unit_type, header, len(payload))
        self._stream.write(prefix)
        self._stream.write(payload)
        self.size += len(prefix) + len(payload)
