"""Whether the tensors of a unit come back as they were, and in which form they travel, as far as a bitstream tells."""

from __future__ import annotations

from nnc_core import TensorInfo
from nnc_core.approximator.step import step_size
from nnc_core.bitstream import UnitRecord, marks
from nnc_core.syntax import CompressedDataUnitHeader
from nnc_core.tables.code_points import PayloadType

__all__ = ["form"]

_PARTS = {
    marks.PATTERNS: "bits of {}",
    marks.EXPONENT: "exponents of {}",
    marks.REST: "signs and mantissas",
    marks.INDEX: "places in a palette",
    marks.PALETTE: "palette of {}",
    marks.PLACES: "places of exceptions",
    marks.VALUES: "exceptions",
    marks.INTEGER: "integers",
}


def form(unit: UnitRecord, info: TensorInfo | None) -> str:
    """In which form values that are exact travel; empty where they are quantized, or nothing tells.

    Multiples of a power of two that were not quantized dependently are exact if they were such before.
    """
    h = unit.header
    if not isinstance(h, CompressedDataUnitHeader) or not unit.names:
        return ""
    mark = marks.mark_of(unit.names[0])
    if mark.part in _PARTS:
        return _PARTS[mark.part].format(mark.dtype)
    payload_type = h.nnr_compressed_data_unit_payload_type
    if payload_type == PayloadType.NNR_PT_INT:
        return "integers"
    if payload_type == PayloadType.NNR_PT_RAW_FLOAT:
        return "raw floats"
    density = unit.quantization.qp_density if unit.quantization else None
    if h.dq_flag or info is None or info.qp is None or density is None or info.qp % (1 << density):
        return ""
    return f"multiples of {step_size(info.qp, density):g}"
