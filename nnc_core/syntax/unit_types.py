"""Which tables a unit consists of, by its type (clauses 6.3.3.1 and 6.3.4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from nnc_core.syntax.aggregate import AggregateUnitHeader, nnr_aggregate_unit_header
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, nnr_compressed_data_unit_header
from nnc_core.syntax.driver import Syntax
from nnc_core.syntax.layer_parameter_set import LayerParameterSet, nnr_layer_parameter_set
from nnc_core.syntax.model_parameter_set import ModelParameterSet, nnr_model_parameter_set_payload
from nnc_core.syntax.quantization import (
    QuantizationUnitHeader,
    QuantizationUnitPayload,
    nnr_quantization_unit_header,
    nnr_quantization_unit_payload,
)
from nnc_core.syntax.reader import Reader
from nnc_core.syntax.topology import (
    TopologyUnitHeader,
    TopologyUnitPayload,
    nnr_topology_unit_header,
    nnr_topology_unit_payload,
)
from nnc_core.syntax.units import StartUnitHeader, nnr_start_unit_header
from nnc_core.syntax.writer import Writer
from nnc_core.tables.code_points import NnrUnitType

Header = (
    StartUnitHeader
    | ModelParameterSet
    | LayerParameterSet
    | TopologyUnitHeader
    | QuantizationUnitHeader
    | CompressedDataUnitHeader
    | AggregateUnitHeader
)
Payload = TopologyUnitPayload | QuantizationUnitPayload


class HeaderTable(NamedTuple):
    """What stands between the common unit header and the payload; all of a parameter set."""

    record: Callable[[], Header]
    run: Callable[[Syntax, Any, SyntaxContext], None]


class PayloadTable(NamedTuple):
    """A payload that consists of syntax elements, as it is before NNR_DFL; its syntax depends on the header."""

    record: Callable[[], Payload]
    run: Callable[[Syntax, Any, Any, SyntaxContext], None]


class UnitTables(NamedTuple):
    """The tables of a unit type; ``payload`` is None where it is empty, arithmetic-coded, or consists of units."""

    header: HeaderTable
    payload: PayloadTable | None = None


UNIT_TYPES: Final[Mapping[int, UnitTables]] = {
    NnrUnitType.NNR_STR: UnitTables(HeaderTable(StartUnitHeader, nnr_start_unit_header)),
    NnrUnitType.NNR_MPS: UnitTables(HeaderTable(ModelParameterSet, nnr_model_parameter_set_payload)),
    NnrUnitType.NNR_LPS: UnitTables(HeaderTable(LayerParameterSet, nnr_layer_parameter_set)),
    NnrUnitType.NNR_TPL: UnitTables(
        HeaderTable(TopologyUnitHeader, nnr_topology_unit_header),
        PayloadTable(TopologyUnitPayload, nnr_topology_unit_payload),
    ),
    NnrUnitType.NNR_QNT: UnitTables(
        HeaderTable(QuantizationUnitHeader, nnr_quantization_unit_header),
        PayloadTable(QuantizationUnitPayload, nnr_quantization_unit_payload),
    ),
    NnrUnitType.NNR_NDU: UnitTables(HeaderTable(CompressedDataUnitHeader, nnr_compressed_data_unit_header)),
    NnrUnitType.NNR_AGG: UnitTables(HeaderTable(AggregateUnitHeader, nnr_aggregate_unit_header)),
}


def read_header(s: Reader, nnr_unit_type: int, ctx: SyntaxContext) -> Header | None:
    """Read what stands between the common header and the payload; ``None`` for a type that is not interpreted."""
    tables = UNIT_TYPES.get(nnr_unit_type)
    if tables is None:
        return None
    header = tables.header.record()
    tables.header.run(s, header, ctx)
    return header


def payload_bytes(nnr_unit_type: int, payload: Payload, header: Header, ctx: SyntaxContext) -> bytes:
    """The bytes of ``payload``, before NNR_DFL; `ElementValueError` for a record that the syntax cannot hold."""
    table, writer = UNIT_TYPES[nnr_unit_type].payload, Writer()
    if table is None:
        raise TypeError(f"a payload of units of type {nnr_unit_type} does not consist of syntax elements")
    table.run(writer, payload, header, ctx)
    return writer.data()


def header_bytes(nnr_unit_type: int, header: Header, ctx: SyntaxContext) -> bytes:
    """The bytes of ``header``; `ElementValueError` for a record that the syntax cannot hold."""
    writer = Writer()
    UNIT_TYPES[nnr_unit_type].header.run(writer, header, ctx)
    return writer.data()
