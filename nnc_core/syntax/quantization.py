"""Quantization units: what a target framework wants to know of its quantization, in that framework's terms."""

from __future__ import annotations

from nnc_core.syntax.elements import Syntax
from nnc_core.syntax.records import QuantizationUnitHeader, QuantizationUnitPayload


def nnr_quantization_unit_header(s: Syntax, h: QuantizationUnitHeader) -> None:
    """``nnr_quantization_unit_header()``."""
    h.quantization_storage_format = s.u(8, "quantization_storage_format", h.quantization_storage_format)
    h.quantization_compression_format = s.u(8, "quantization_compression_format", h.quantization_compression_format)


def nnr_quantization_unit_payload(s: Syntax, p: QuantizationUnitPayload) -> None:
    """``nnr_quantization_unit_payload()``, of data that are not compressed (any more)."""
    p.quantization_data = s.bs("quantization_data", p.quantization_data)
