"""One unit of a bitstream as the index knows it, and its header by type (clause 7.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, nnr_compressed_data_unit_header
from nnc_core.syntax.model_parameter_set import ModelParameterSet, nnr_model_parameter_set_payload
from nnc_core.syntax.quantization import QuantizationUnitHeader, nnr_quantization_unit_header
from nnc_core.syntax.reader import Reader
from nnc_core.syntax.topology import TopologyUnitHeader, nnr_topology_unit_header
from nnc_core.syntax.units import StartUnitHeader, nnr_start_unit_header
from nnc_core.tables.code_points import (
    NnrUnitType,
)

Header = StartUnitHeader | ModelParameterSet | TopologyUnitHeader | QuantizationUnitHeader | CompressedDataUnitHeader


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
