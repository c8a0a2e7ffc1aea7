"""Adapters between exchange formats and the codec (ISO/IEC 15938-17, Annexes A to E)."""

from __future__ import annotations

from nnc_adapters.api import CompressReport, DecompressReport, compress, decompress

__all__ = ["CompressReport", "DecompressReport", "compress", "decompress"]
