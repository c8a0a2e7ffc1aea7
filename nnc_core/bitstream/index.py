"""A file or buffer as units: found by their sizes, payloads untouched until they are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

from nnc_core.bitstream.units import UnitRecord
from nnc_core.bitstream.walk import Walk
from nnc_core.bitstream.writer import EMPTY
from nnc_core.errors import UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax.context import InputParameters, nothing_known
from nnc_core.syntax.deflate import inflate
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.quantization import QuantizationUnitHeader
from nnc_core.syntax.reader import TracedElement, Tracer
from nnc_core.syntax.topology import TopologyUnitHeader
from nnc_core.syntax.unit_types import UNIT_TYPES, Header, read_header
from nnc_core.syntax.units import UnitHeader, nnr_unit_header, nnr_unit_size
from nnc_core.tables.code_points import (
    PRIVATE_TOPOLOGY,
    NnrUnitType,
    TopologyCompressionFormat,
    TopologyStorageFormat,
)

_NOT_DESCRIPTIONS = (TopologyStorageFormat.NNR_TPL_PRUN, TopologyStorageFormat.NNR_TPL_REFLIST)
_PRIVATE = range(128, 256)


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
        walk = Walk(self._data, self._limits, input_parameters)
        self.units: tuple[UnitRecord, ...] = tuple(walk.units())
        self.general_profile_idc: int = walk.context.general_profile_idc
        self.mps: ModelParameterSet | None = walk.mps

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

        An application-private format counts where there is no other description. Raises `UnsupportedError` for formats
        beyond the enumerations and for descriptions in several units, `LimitError` beyond ``limits.topology_bytes``,
        `BitstreamError` for damaged data.
        """
        found = [(u, h) for u in self.units if isinstance(h := u.header, TopologyUnitHeader) and _is_description(h)]
        standard = [(u, h) for u, h in found if h.topology_storage_format not in _PRIVATE]
        private = [(u, h) for u, h in found if h.topology_storage_format == PRIVATE_TOPOLOGY]
        description = standard or [(u, h) for u, h in found if h.topology_storage_format != PRIVATE_TOPOLOGY]
        if not found:
            return None
        storage_format = _storage_format((description or private)[0][1])
        data = self._description(description)
        return Topology(
            storage_format, data or b"", self._quantization_data(storage_format), self._description(private)
        )

    def _description(self, found: list[tuple[UnitRecord, TopologyUnitHeader]]) -> bytes | None:
        """The data of the only topology unit in ``found``."""
        if not found:
            return None
        unit, header = found[0]
        if len(found) > 1 or unit.partial_data_counter > 1:
            raise UnsupportedError("a topology in several units")
        return self._inflated(unit, header.topology_compression_format, "topology")

    def _quantization_data(self, storage_format: int) -> bytes | None:
        """The data of the only quantization unit, which is in the terms of ``storage_format``."""
        found = [(u, h) for u in self.units if isinstance(h := u.header, QuantizationUnitHeader)]
        if not found:
            return None
        unit, header = found[0]
        if len(found) > 1 or unit.partial_data_counter > 1:
            raise UnsupportedError("a quantization description in several units")
        if header.quantization_storage_format != storage_format:
            described = f"quantization_storage_format {header.quantization_storage_format}"
            raise UnsupportedError(f"{described} beside topology_storage_format {storage_format:d}")
        return self._inflated(unit, header.quantization_compression_format, "quantization")

    def _inflated(self, unit: UnitRecord, compression_format: int, kind: str) -> bytes:
        data = inflate(compression_format, self.payload(unit), self._limits.topology_bytes, unit.index, kind)
        return b"" if data == EMPTY and compression_format == TopologyCompressionFormat.NNR_PT_RAW else data

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
        table = UNIT_TYPES[unit.type].payload if unit.type in UNIT_TYPES else None
        if table is not None and _is_plain(header):
            table.run(tracer, table.record(), header, unit.context)
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


def _is_plain(header: Header | None) -> bool:
    """Whether the payload's syntax is known and not hidden by compression."""
    if isinstance(header, TopologyUnitHeader):
        known = header.topology_storage_format != TopologyStorageFormat.NNR_TPL_PRUN
        return known and header.topology_compression_format == TopologyCompressionFormat.NNR_PT_RAW
    if isinstance(header, QuantizationUnitHeader):
        return header.quantization_compression_format == TopologyCompressionFormat.NNR_PT_RAW
    return False


def _storage_format(header: TopologyUnitHeader) -> int:
    """The format of a description: of the enumeration, or one that only an application knows."""
    number = header.topology_storage_format
    if number in _PRIVATE and number != PRIVATE_TOPOLOGY:
        return number
    try:
        return TopologyStorageFormat(number)
    except ValueError:
        raise UnsupportedError(f"topology_storage_format {number}") from None
