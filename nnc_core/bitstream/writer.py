"""Writes a bitstream unit by unit (clauses 6.3 and 6.4)."""

from __future__ import annotations

from typing import BinaryIO

from nnc_core.bitstream.scope import with_parameters
from nnc_core.errors import UnitOrderError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import (
    CompressedDataUnitHeader,
    context_after,
    element_names,
)
from nnc_core.syntax.deflate import deflate
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.quantization import QuantizationUnitHeader
from nnc_core.syntax.topology import TopologyUnitHeader
from nnc_core.syntax.unit_types import Header, header_bytes
from nnc_core.syntax.units import StartUnitHeader, unit_prefix
from nnc_core.tables.code_points import (
    PRIVATE_TOPOLOGY,
    NnrUnitType,
    QuantizationStorageFormat,
    TopologyCompressionFormat,
)

EMPTY = b"\0"
"""Topology data of no bytes, in the form that all known decoders read."""


def _smallest(data: bytes) -> tuple[TopologyCompressionFormat, bytes]:
    """A description as its unit carries it: compressed where that makes it smaller, never empty."""
    packed = deflate(data)
    if len(packed) < len(data) or data == EMPTY:  # which would stand for no bytes
        return TopologyCompressionFormat.NNR_DFL, packed
    return TopologyCompressionFormat.NNR_PT_RAW, data or EMPTY


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
        self.context = with_parameters(SyntaxContext(general_profile_idc, limits=limits or Limits()), mps)
        self._names: set[str] = set()
        self._unit(NnrUnitType.NNR_STR, StartUnitHeader(general_profile_idc))
        self._unit(NnrUnitType.NNR_MPS, mps)

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
        self._unit(NnrUnitType.NNR_TPL, TopologyUnitHeader(storage_format, compression), payload)

    def _quantization(self, storage_format: int, data: bytes) -> None:
        if storage_format not in QuantizationStorageFormat._value2member_map_:
            raise UnsupportedError(f"quantization_storage_format {storage_format:d}")
        compression, payload = _smallest(data)
        self._unit(NnrUnitType.NNR_QNT, QuantizationUnitHeader(storage_format, compression), payload)

    def data_unit(self, header: CompressedDataUnitHeader, payload: Buffer) -> None:
        """Write a data unit."""
        coded = header_bytes(NnrUnitType.NNR_NDU, header, self.context)
        for name in element_names(header, self.context):
            if name in self._names:
                raise UnitOrderError("the tensor is coded twice", tensor=name)
            self._names.add(name)
        self.context = context_after(header, self.context)
        self._write(NnrUnitType.NNR_NDU, coded, payload)

    def _unit(self, nnr_unit_type: NnrUnitType, header: Header, payload: Buffer = b"") -> None:
        self._write(nnr_unit_type, header_bytes(nnr_unit_type, header, self.context), payload)

    def _write(self, nnr_unit_type: NnrUnitType, header: bytes, payload: Buffer) -> None:
        prefix = unit_prefix(nnr_unit_type, header, len(payload))
        self._stream.write(prefix)
        self._stream.write(payload)
        self.size += len(prefix) + len(payload)
