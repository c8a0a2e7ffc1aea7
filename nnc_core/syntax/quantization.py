"""Quantization units: what a target framework wants to know of its quantization, in that framework's terms."""

from __future__ import annotations

from nnc_core.records import dataclass
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.driver import Buffer, Elements, Syntax


@dataclass(slots=True)
class QuantizationUnitHeader:
    """``nnr_quantization_unit_header()``; values beyond the enumerations are reserved or private."""

    quantization_storage_format: int = 0
    quantization_compression_format: int = 0


@dataclass(slots=True)
class QuantizationUnitPayload:
    """``nnr_quantization_unit_payload()``: data in another format's terms."""

    quantization_data: Buffer = b""


def nnr_quantization_unit_header(s: Syntax, h: QuantizationUnitHeader, ctx: SyntaxContext) -> None:
    """``nnr_quantization_unit_header()`` (clause 6.3.3.6)."""
    e = Elements(s, h)
    e.u(8, "quantization_storage_format")
    e.u(8, "quantization_compression_format")


def nnr_quantization_unit_payload(
    s: Syntax, p: QuantizationUnitPayload, h: QuantizationUnitHeader, ctx: SyntaxContext
) -> None:
    """``nnr_quantization_unit_payload()`` (clause 6.3.4.6), of data that are not compressed (any more)."""
    Elements(s, p).bs("quantization_data")
