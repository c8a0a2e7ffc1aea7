"""What the units of a bitstream are called, for people."""

from __future__ import annotations

from enum import IntEnum

from nnc_core.bitstream import UnitRecord
from nnc_core.syntax import (
    AggregateUnitHeader,
    CompressedDataUnitHeader,
    LayerParameterSet,
    ModelParameterSet,
    QuantizationUnitHeader,
    StartUnitHeader,
    TopologyUnitHeader,
)
from nnc_core.syntax.unit_types import UNIT_TYPES
from nnc_core.tables.code_points import (
    AggregateUnitType,
    GeneralProfileIdc,
    NnrUnitType,
    QuantizationStorageFormat,
    TopologyCompressionFormat,
    TopologyStorageFormat,
)

__all__ = ["content", "kind", "name_of", "title"]


def kind(unit: UnitRecord) -> str:
    """The unit type or, for data, the payload type, with what else decides how it is coded."""
    h = unit.header
    if not isinstance(h, CompressedDataUnitHeader):
        return name_of(NnrUnitType, unit.type).removeprefix("NNR_")
    tools = (
        h.nnr_compressed_data_unit_payload_type.name.removeprefix("NNR_PT_"),
        "dq" * h.dq_flag,
        "cb" * h.codebook_present_flag,
        f"s{h.scan_order}" * (h.scan_order > 0),
        f"part {unit.partial_data_counter}" * (unit.partial_data_counter > 1),
    )
    return " ".join(filter(None, tools))


def title(unit: UnitRecord) -> str:
    """The unit type and what the unit is about."""
    about, type_ = content(unit), name_of(NnrUnitType, unit.type)
    return f"{type_}, {about}" if about else type_


def content(unit: UnitRecord) -> str:
    """What a unit is about: its tensors, or the choice that it makes for others."""
    h = unit.header
    if isinstance(h, StartUnitHeader):
        return name_of(GeneralProfileIdc, h.general_profile_idc)
    if isinstance(h, ModelParameterSet):
        return _quantization(h.mps_quantization_parameter, h.mps_qp_density)
    if isinstance(h, LayerParameterSet):
        return _quantization(h.lps_quantization_parameter, h.lps_qp_density)
    if isinstance(h, TopologyUnitHeader):
        storage = name_of(TopologyStorageFormat, h.topology_storage_format)
        return f"{storage} {name_of(TopologyCompressionFormat, h.topology_compression_format)}"
    if isinstance(h, QuantizationUnitHeader):
        storage = name_of(QuantizationStorageFormat, h.quantization_storage_format)
        return f"{storage} {name_of(TopologyCompressionFormat, h.quantization_compression_format)}"
    if h is None and unit.type in UNIT_TYPES:
        return "damaged"
    if isinstance(h, AggregateUnitHeader):
        return f"{name_of(AggregateUnitType, h.nnr_aggregate_unit_type)}, {len(h.units)} units"
    return " ".join(unit.names)


def name_of(kind: type[IntEnum], value: int) -> str:
    """The standard's name for a code point, or the number of a reserved or private one."""
    return kind(value).name if value in kind._value2member_map_ else str(value)


def _quantization(qp: int | None, qp_density: int | None) -> str:
    return "" if qp_density is None else f"qp {qp}, qp_density {qp_density}"
