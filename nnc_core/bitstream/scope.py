"""What is in force at a place in a bitstream, and which rules the unit in hand breaks (clauses 6.3 and 6.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

from nnc_core.bitstream.units import Quantization, UnitRecord, is_reference_list
from nnc_core.errors import BitstreamError, ElementValueError, UnitOrderError, UnitSizeError
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.syntax.aggregate import AggregateUnitHeader
from nnc_core.syntax.context import InputParameters, SyntaxContext, nothing_known
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, coded_shapes, context_after, element_names
from nnc_core.syntax.deflate import inflate
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.reader import Reader
from nnc_core.syntax.topology import TopologyUnitHeader, TopologyUnitPayload, nnr_topology_unit_payload
from nnc_core.syntax.unit_types import Header
from nnc_core.syntax.units import StartUnitHeader
from nnc_core.tables.code_points import NnrUnitType, PayloadType, TopologyCompressionFormat, TopologyStorageFormat

Sink = Callable[[BitstreamError], None]

_STR, _MPS, _LPS = NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS, NnrUnitType.NNR_LPS
_NDU, _AGG = NnrUnitType.NNR_NDU, NnrUnitType.NNR_AGG
_AFTER_PARAMETERS = (_LPS, _NDU, _AGG)
_IN_PARTS = (NnrUnitType.NNR_TPL, NnrUnitType.NNR_QNT, _NDU)
_QUANTIZED = (PayloadType.NNR_PT_FLOAT, PayloadType.NNR_PT_BLOCK)
_FIRST_ELEMENTS: Mapping[int, str] = {
    NnrUnitType.NNR_TPL: "topology_storage_format",
    NnrUnitType.NNR_QNT: "quantization_storage_format",
    NnrUnitType.NNR_NDU: "nnr_compressed_data_unit_payload_type",
}
_TOPOLOGY_ENDS: Mapping[int, tuple[str, str]] = {
    TopologyStorageFormat.NNR_TPL_REFLIST: ("topology_elem_id_list", "reference-list-size"),
    TopologyStorageFormat.NNR_TPL_PRUN: ("bit_mask_value", "pruning-size"),
}


def refuse(violation: BitstreamError) -> None:
    """The sink of readers and writers: the first violation is the last."""
    raise violation


class Scope:
    """The parameter sets in force, the reference list, the names seen, and the units that are not complete yet.

    Reader, writer and validator take it through a bitstream unit by unit: `enter` when the type is known, `note` when
    the header is, `open` and `close` around the units of an aggregate, `finish` at the end. A violation goes to
    ``sink``, which may raise it or keep it; in the second case the unit counts as far as it makes sense.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        input_parameters: Callable[[str], InputParameters | None] = nothing_known,
        sink: Sink = refuse,
    ) -> None:
        self.context = SyntaxContext(limits=limits or Limits(), input_parameters=input_parameters)
        self.mps: ModelParameterSet | None = None
        self.quantization: Quantization | None = None
        self._sink = sink
        self._lps: LayerParameterSet | None = None
        self._names: set[str] = set()
        self._references = 0
        self._listed = 0
        self._parts: list[tuple[UnitRecord, Buffer]] = []
        self._aggregates: list[_Aggregate] = []

    def enter(self, index: int, nnr_unit_type: int) -> None:
        """Check whether a unit of this type may come next."""
        if (nnr_unit_type == _STR) != (index == 0):
            if index == 0:
                self._misplaced(index, "start-unit-first", "the bitstream does not begin with an NNR_STR")
            else:
                self._misplaced(index, "one-start-unit", "a second NNR_STR")
        if nnr_unit_type == _MPS and self.mps is not None:
            self._misplaced(index, "one-model-parameter-set", "a second NNR_MPS")
        if self.mps is None and nnr_unit_type in _AFTER_PARAMETERS:
            message = f"an {NnrUnitType(nnr_unit_type).name} before the NNR_MPS"
            self._misplaced(index, "model-parameter-set-first", message)
        if self._parts and nnr_unit_type != self._parts[0][0].type:
            self._misplaced(index, "parts-together", "a unit between the parts of another one")
            self._parts = []
        if self._aggregates:
            self._check_announced(index, nnr_unit_type, self._aggregates[-1])

    @property
    def in_parts(self) -> bool:
        """Whether parts of a unit are still to come."""
        return bool(self._parts)

    def names(self, index: int, header: Header | None) -> tuple[str, ...]:
        """The tensors of a data unit, in header order."""
        if not isinstance(header, CompressedDataUnitHeader):
            return ()
        try:
            return element_names(header, self.context)
        except IndexError:
            self._check_references(index, header)
            return ()

    def note(self, unit: UnitRecord, payload: Buffer) -> None:
        """Check what a unit says against the units before, and keep what later ones need."""
        header = unit.header
        self._note_lists(unit)
        if unit.type in _IN_PARTS:
            self._note_part(unit, payload)
        if isinstance(header, CompressedDataUnitHeader):
            self._note_data(unit, header)
        elif isinstance(header, TopologyUnitHeader):
            self._note_topology(unit, header)
        elif isinstance(header, StartUnitHeader):
            self._refuse_payload(unit)
            self.context = replace(self.context, general_profile_idc=header.general_profile_idc)
        elif isinstance(header, ModelParameterSet):
            self._refuse_payload(unit)
            self.mps = header
            self._take_over_parameters(None)
        elif isinstance(header, LayerParameterSet):
            self._refuse_payload(unit)
            self._take_over_parameters(header)
        if unit.type in _IN_PARTS and unit.partial_data_counter <= 1:
            self._parts = []

    def open(self, unit: UnitRecord) -> None:
        """Begin with the units inside an aggregate; a layer parameter set among them holds up to its end."""
        self.context.limits.check("nesting", len(self._aggregates) + 1, f"unit {unit.index}")
        self._aggregates.append(_Aggregate(unit, self._lps))

    def close(self, index: int) -> None:
        """End an aggregate; ``index`` is that of the unit that may follow."""
        self._require_complete(index)
        self._take_over_parameters(self._aggregates.pop().layer)

    def finish(self, index: int) -> None:
        """End the bitstream, which has ``index`` units."""
        self._require_complete(index)

    def _take_over_parameters(self, layer: LayerParameterSet | None) -> None:
        self._lps, mps = layer, self.mps or ModelParameterSet()
        self.context = replace(
            self.context,
            mps_parent_signalling_enabled_flag=mps.mps_parent_signalling_enabled_flag,
            mps_topology_indexed_reference_flag=mps.mps_topology_indexed_reference_flag,
            block_partitioning=mps.mps_unification_flag or (layer is not None and layer.lps_unification_flag),
        )
        self.quantization = None
        if layer is not None and layer.lps_qp_density is not None:
            self.quantization = Quantization(layer.lps_qp_density, layer.lps_quantization_parameter or 0)
        elif mps.mps_qp_density is not None:
            self.quantization = Quantization(mps.mps_qp_density, mps.mps_quantization_parameter or 0)

    def _note_lists(self, unit: UnitRecord) -> None:
        """Count what takes far more memory than the bits that it is read from; each part of a unit has it anew."""
        self._listed += _list_entries(unit.header)
        self.context.limits.check("list_entries", self._listed, f"unit {unit.index}")

    def _note_part(self, unit: UnitRecord, payload: Buffer) -> None:
        if self._parts:
            before = self._parts[-1][0]
            expected = before.partial_data_counter - 1
            if unit.partial_data_counter != expected:
                message = f"part {unit.partial_data_counter} after part {before.partial_data_counter}"
                self._misplaced(unit.index, "parts-in-order", message, "partial_data_counter", str(expected))
                if unit.header != before.header:
                    self._parts = []
            elif unit.header != before.header:
                message = "the header differs from that of the part before"
                self._misplaced(unit.index, "parts-alike", message, _FIRST_ELEMENTS[unit.type])
        self._parts.append((unit, payload))

    def _note_data(self, unit: UnitRecord, header: CompressedDataUnitHeader) -> None:
        if header.nnr_compressed_data_unit_payload_type in _QUANTIZED and self.quantization is None:
            message = "no parameter set in force has a qp_density"
            self._misplaced(unit.index, "qp-density", message, "nnr_compressed_data_unit_payload_type")
        if len(self._parts) == 1:
            self._check_names(unit, header)
        if unit.partial_data_counter <= 1:
            self._check_raw_size(unit, header)
            self.context = context_after(header, self.context)

    def _note_topology(self, unit: UnitRecord, header: TopologyUnitHeader) -> None:
        if is_reference_list(header) and unit.partial_data_counter <= 1:
            try:
                self._take_over_references(unit, header)
            except BitstreamError as error:
                self._sink(error)

    def _take_over_references(self, unit: UnitRecord, header: TopologyUnitHeader) -> None:
        payload = topology_payload([payload for _, payload in self._parts], unit, header, self.context)
        names = payload.topology_elements_ids_list.topology_elem_id_list
        self._references += len(names)
        self.context.limits.check("units", self._references, "topology_elem_id_list")
        self.context = replace(self.context, topology_elements=names)

    def _check_announced(self, index: int, nnr_unit_type: int, aggregate: _Aggregate) -> None:
        header, place = aggregate.unit.header, aggregate.units
        aggregate.units += 1
        announced = header.units[place : place + 1] if isinstance(header, AggregateUnitHeader) else ()
        for unit in announced:
            if unit.nnr_unit_type not in (None, nnr_unit_type):
                message = f"the aggregate has a unit of type {unit.nnr_unit_type} here"
                self._misplaced(index, "aggregate-types", message)

    def _check_references(self, index: int, header: CompressedDataUnitHeader) -> None:
        element, known = "topology_elem_id_index", len(self.context.topology_elements)
        if not known:
            self._misplaced(index, "reference-list-first", "a reference by index before the reference list", element)
            return
        if header.nnr_multiple_topology_elements_present_flag:
            indices = header.topology_elements_ids_list.topology_elem_id_index_list
            element = f"{element}_list[{next(j for j, index in enumerate(indices) if index >= known)}]"
        message = f"the reference list has {known} names"
        self._sink(ElementValueError(message, unit=index, element=element))

    def _check_names(self, unit: UnitRecord, header: CompressedDataUnitHeader) -> None:
        element = "topology_elem_id" + "_index" * self.context.mps_topology_indexed_reference_flag
        for j, name in enumerate(unit.names):
            if name in self._names:
                several = header.nnr_multiple_topology_elements_present_flag
                place = f"{element}_list[{j}]" if several else element
                self._misplaced(unit.index, "tensor-once", "the tensor is coded twice", place, tensor=name)
            self._names.add(name)

    def _check_raw_size(self, unit: UnitRecord, header: CompressedDataUnitHeader) -> None:
        if header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_RAW_FLOAT:
            return
        shape = coded_shapes(header, unit.context)[0]
        size, expected = sum(part.payload_size for part, _ in self._parts), 4 * prod(shape)
        if size != expected:
            message, told = f"{size} payload bytes for dimensions {shape}", f"{expected} bytes"
            self._sink(UnitSizeError(message, unit=unit.index, element="nnr_unit_size", expected=told, rule="raw-size"))

    def _require_complete(self, index: int) -> None:
        if self._parts:
            self._misplaced(index, "parts-complete", "the last parts of a unit are missing", "nnr_unit_size")
            self._parts = []

    def _refuse_payload(self, unit: UnitRecord) -> None:
        if unit.payload_size:
            message = f"{unit.payload_size} bytes follow the last element"
            self._sink(UnitSizeError(message, unit=unit.index, element="nnr_unit_size", rule="unit-payload-size"))

    def _misplaced(
        self,
        index: int,
        rule: str,
        message: str,
        element: str = "nnr_unit_type",
        expected: str | None = None,
        tensor: str | None = None,
    ) -> None:
        self._sink(UnitOrderError(message, unit=index, element=element, expected=expected, tensor=tensor, rule=rule))


@dataclass(slots=True)
class _Aggregate:
    """An aggregate whose units are passing: how many so far, and the layer parameter set that was in force before."""

    unit: UnitRecord
    layer: LayerParameterSet | None
    units: int = 0


def _list_entries(header: Header | None) -> int:
    """How long the lists in a header are: entries of codebooks, entry points, and places of units in an aggregate."""
    if isinstance(header, AggregateUnitHeader):
        return len(header.units)
    if not isinstance(header, CompressedDataUnitHeader):
        return 0
    codebooks = (header.integer_codebook, header.integer_codebook_h)
    return len(header.entry_points) + sum(book.codebook_size for book in codebooks if book is not None)


def topology_payload(
    parts: Sequence[Buffer], unit: UnitRecord, header: TopologyUnitHeader, ctx: SyntaxContext
) -> TopologyUnitPayload:
    """Read the payload of a topology unit, whose last part is ``unit``, from the payloads of all parts.

    Raises a `BitstreamError` with its place in the unit; what was compressed has none, nor has what lies in a part.
    """
    coded = parts[0] if len(parts) == 1 else b"".join(parts)
    names = is_reference_list(header)
    limit = "name_bytes" if names else "topology_bytes"
    most = getattr(ctx.limits, limit)
    data = inflate(header.topology_compression_format, coded, most, unit.index, limit=limit)
    reader, payload = Reader(data, unit=unit.index), TopologyUnitPayload()
    try:
        nnr_topology_unit_payload(reader, payload, header, ctx)
        if reader.byte_position != len(data):
            element, rule = _TOPOLOGY_ENDS[header.topology_storage_format]
            raise UnitSizeError(f"bytes follow the last {element}", unit=unit.index, element=element, rule=rule)
    except BitstreamError as error:
        plain = header.topology_compression_format == TopologyCompressionFormat.NNR_PT_RAW and len(parts) == 1
        error.bit_offset = 8 * (unit.payload_offset - unit.offset) + (error.bit_offset or 0 if plain else 0)
        raise
    return payload
