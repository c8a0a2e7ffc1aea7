"""Adapters between exchange formats and the codec (ISO/IEC 15938-17, Annexes A to E)."""

from __future__ import annotations

from nnc_adapters.api import CompressReport, DecompressReport, compress, decompress
from nnc_adapters.export import load_tensors
from nnc_adapters.verification import VerifyReport, verify

__all__ = ["CompressReport", "DecompressReport", "VerifyReport", "compress", "decompress", "load_tensors", "verify"]
