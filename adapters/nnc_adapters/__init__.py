"""Adapters between exchange formats and the codec (ISO/IEC 15938-17, Annexes A to E)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnc_core.lazy import imported_on_use

if TYPE_CHECKING:
    from nnc_adapters.api import CompressReport, DecompressReport, compress, decompress
    from nnc_adapters.export import load_tensors
    from nnc_adapters.verification import VerifyReport, verify
else:
    __getattr__ = imported_on_use(
        __name__,
        {
            "api": ("CompressReport", "DecompressReport", "compress", "decompress"),
            "export": ("load_tensors",),
            "verification": ("VerifyReport", "verify"),
        },
    )

__all__ = ["CompressReport", "DecompressReport", "VerifyReport", "compress", "decompress", "load_tensors", "verify"]
