"""Quantization units: what a target framework wants to know of its quantization, in that framework's terms."""

from __future__ import annotations

from dataclasses import dataclass

from nnc_core.syntax.driver import Buffer, Syntax


@dataclass(slots=True)
class QuantizationUnitHeader:
    """``nnr_quantization_unit_header()``; values beyond the enumerations are reserved or private."""

    quantization_storage_format: int = 0
    quantization_compression_format: int = 0


@dataclass(slots=True)
class QuantizationUnitPayload:
    """``nnr_quantization_unit_payload()``: data in another format's terms."""

    quantization_data: Buffer = b""


def nnr_quantization_unit_header(s: Syntax, h: QuantizationUnitHeader) -> None:
    """``nnr_quantization_unit_header()``."""
    h.quantization_storage_format = s.u(8, "quantization_storage_format", h.quantization_storage_format)
    h.quantization_compression_format = s.u(8, "quantization_compression_format", h.quantization_compression_format)


def nnr_quantization_unit_payload(s: Syntax, p: QuantizationUnitPayload) -> None:
    """``nnr_quantization_unit_payload()``, of data that are not compressed (any more)."""
    p.quantization_data = s.bs("quantization_data", p.quantization_data)
