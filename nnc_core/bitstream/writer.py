"""Writes a bitstream unit by unit (clause 6.3)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from nnc_core.bitstream.descriptions import smallest
from nnc_core.bitstream.division import WHOLE, Division
from nnc_core.bitstream.scope import Scope, Sink, refuse
from nnc_core.bitstream.units import UnitRecord
from nnc_core.errors import UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax.aggregate import AggregatedUnit, AggregateUnitHeader
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, with_references
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.pruning import PruningTopologyContainer
from nnc_core.syntax.quantization import QuantizationUnitHeader
from nnc_core.syntax.repeated import WrittenHeaders
from nnc_core.syntax.topology import (
    TopologyElementsIdsList,
    TopologyUnitHeader,
    TopologyUnitPayload,
)
from nnc_core.syntax.unit_types import Header, header_bytes, payload_bytes
from nnc_core.syntax.units import StartUnitHeader, unit_prefix
from nnc_core.tables.code_points import (
    PRIVATE_TOPOLOGY,
    AggregateUnitType,
    NnrUnitType,
    QuantizationStorageFormat,
    TopologyStorageFormat,
)

_ANY_BIT_DEPTH = 31


class BitstreamWriter:
    """Writes a bitstream to a binary file object, unit by unit; ``size`` counts the bytes.

    Construction writes the start unit, the model parameter set and, if there are ``references``, the list of them, to
    which data units then refer by index; the model parameter set must announce it. `topology` comes next, then each
    `data_unit`, cut up as ``division`` says. A ``thorough`` writer takes time to deflate descriptions. A record that
    the syntax cannot hold raises `ElementValueError`, one beyond ``limits`` `LimitError`, what is out of order, such
    as a tensor that is written twice, `UnitOrderError`.
    """

    def __init__(
        self,
        stream: BinaryIO,
        mps: ModelParameterSet,
        general_profile_idc: int = 1,
        limits: Limits | None = None,
        *,
        references: Sequence[str] = (),
        division: Division = WHOLE,
        thorough: bool = False,
        sink: Sink = refuse,
    ) -> None:
        self._stream = stream
        self._thorough = thorough
        self._scope = Scope(limits, sink=sink)
        self._division = division
        self._references = {name: index for index, name in enumerate(references)}
        self._headers = WrittenHeaders()
        self._index = 0
        self._aggregated: list[AggregatedUnit] | None = None
        self.size = 0
        self._unit(NnrUnitType.NNR_STR, StartUnitHeader(general_profile_idc))
        self._unit(NnrUnitType.NNR_MPS, mps)
        if references:
            self._reference_list(tuple(references))

    @property
    def units(self) -> int:
        """How many units have been written."""
        return self._index

    @property
    def context(self) -> SyntaxContext:
        """What is in force for the next unit."""
        return self._scope.context

    def topology(self, topology: Topology) -> None:
        """Write a topology unit, and the units for what comes with it; data are compressed where that saves bytes.

        `UnsupportedError` for a quantization description in terms of a format that has no code point for that.
        """
        self._description(topology.storage_format, topology.data)
        if topology.quantization is not None:
            self._quantization(topology.storage_format, topology.quantization)
        if topology.private is not None:
            self._description(PRIVATE_TOPOLOGY, topology.private)

    def remark(self, data: bytes) -> None:
        """Write a topology unit of no known format (NNR_TPL_UNREC), uncompressed, so that all decoders pass it."""
        self.context.limits.check("topology_bytes", len(data), "topology_data")
        self._described(NnrUnitType.NNR_TPL, TopologyUnitHeader(TopologyStorageFormat.NNR_TPL_UNREC), data)

    def pruning(self, container: PruningTopologyContainer) -> None:
        """Write a topology unit that tells what was pruned; it is compressed where that saves bytes."""
        self._listed(TopologyStorageFormat.NNR_TPL_PRUN, TopologyUnitPayload(pruning=container))

    def layer_parameter_set(self, lps: LayerParameterSet) -> None:
        """Write a layer parameter set; it holds up to the next one, or to the end of the aggregate it stands in."""
        self._unit(NnrUnitType.NNR_LPS, lps)

    def data_unit(self, header: CompressedDataUnitHeader, payload: Buffer) -> None:
        """Write a data unit; KeyError for a tensor that is missing among the references."""
        if self._references:
            header = with_references(header, self._references)
        self._unit(NnrUnitType.NNR_NDU, header, payload, self._division)

    @contextmanager
    def aggregate(
        self, kind: int = AggregateUnitType.NNR_AGG_GEN, *, entry_points: bool = False
    ) -> Iterator[BitstreamWriter]:
        """Put all units, at least two, that are written in the meantime into one aggregate unit."""
        stream, size, context, around = self._stream, self.size, self.context, self._aggregated
        self._scope.enter(self._index, NnrUnitType.NNR_AGG)
        record = self._record(NnrUnitType.NNR_AGG, None, 0)
        self._scope.open(record)
        self._stream, self.size, self._aggregated = io.BytesIO(), 0, []
        yield self
        payload = self._stream.getvalue()
        header = AggregateUnitHeader(kind, entry_points, tuple(self._aggregated))
        self._stream, self.size, self._aggregated = stream, size, around
        self._scope.close(self._index)
        self._write(NnrUnitType.NNR_AGG, header_bytes(NnrUnitType.NNR_AGG, header, context), payload)

    def _reference_list(self, names: tuple[str, ...]) -> None:
        self._listed(TopologyStorageFormat.NNR_TPL_REFLIST, TopologyUnitPayload(TopologyElementsIdsList(names)))

    def _listed(self, storage_format: TopologyStorageFormat, payload: TopologyUnitPayload) -> None:
        header = TopologyUnitHeader(storage_format)
        coded = payload_bytes(NnrUnitType.NNR_TPL, payload, header, self.context)
        header.topology_compression_format, data = smallest(coded, thorough=self._thorough)
        self._described(NnrUnitType.NNR_TPL, header, data)

    def _description(self, storage_format: int, data: bytes) -> None:
        self.context.limits.check("topology_bytes", len(data), "topology_data")
        compression, payload = smallest(data, thorough=self._thorough)
        self._described(NnrUnitType.NNR_TPL, TopologyUnitHeader(storage_format, compression), payload)

    def _quantization(self, storage_format: int, data: bytes) -> None:
        if storage_format not in QuantizationStorageFormat._value2member_map_:
            raise UnsupportedError(f"quantization_storage_format {storage_format:d}")
        compression, payload = smallest(data, thorough=self._thorough)
        self._described(NnrUnitType.NNR_QNT, QuantizationUnitHeader(storage_format, compression), payload)

    def _described(self, nnr_unit_type: NnrUnitType, header: Header, payload: Buffer) -> None:
        self._unit(nnr_unit_type, header, payload, self._division)

    def _unit(
        self, nnr_unit_type: NnrUnitType, header: Header, payload: Buffer = b"", division: Division = WHOLE
    ) -> None:
        self._scope.enter(self._index, nnr_unit_type)
        if isinstance(header, CompressedDataUnitHeader):
            coded = self._headers.data(header, self.context)
        else:
            coded = header_bytes(nnr_unit_type, header, self.context)
        for counter, piece in division.pieces(len(coded), payload):
            self._scope.note(self._record(nnr_unit_type, header, len(piece), counter), piece)
            self._write(nnr_unit_type, coded, piece, counter)

    def _record(
        self, nnr_unit_type: NnrUnitType, header: Header | None, payload_size: int, counter: int = 0
    ) -> UnitRecord:
        record = UnitRecord(
            index=self._index,
            offset=self.size,
            size=0,
            type=nnr_unit_type,
            header=header,
            payload_offset=self.size,
            payload_size=payload_size,
            partial_data_counter=counter,
            names=self._scope.names(self._index, header),
            context=self.context,
        )
        self._index += 1
        return record

    def _write(self, nnr_unit_type: NnrUnitType, header: bytes, payload: Buffer, counter: int = 0) -> None:
        prefix = unit_prefix(nnr_unit_type, header, len(payload), counter)
        if self._aggregated is not None:
            self._aggregated.append(AggregatedUnit(nnr_unit_type, self.size, _ANY_BIT_DEPTH, 0))
        self._stream.write(prefix)
        self._stream.write(payload)
        self.size += len(prefix) + len(payload)
