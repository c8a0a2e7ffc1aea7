"""Quantization and reconstruction (clause 9), and the module ``approximator`` of ISO/IEC 15938-18."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnc_core.lazy import imported_on_use

if TYPE_CHECKING:
    from nnc_core.approximator.data import ApproxData, ApproxInfo, SbtArgs
    from nnc_core.approximator.part18 import (
        apply_lsa,
        approx,
        decompose,
        fold_bn,
        rec,
        recompose,
        restored,
        set_lsa,
        unfold_bn,
    )
else:
    __getattr__ = imported_on_use(
        __name__,
        {
            "data": ("ApproxData", "ApproxInfo", "SbtArgs"),
            "part18": (
                "apply_lsa",
                "approx",
                "decompose",
                "fold_bn",
                "rec",
                "recompose",
                "restored",
                "set_lsa",
                "unfold_bn",
            ),
        },
    )

__all__ = [
    "ApproxData",
    "ApproxInfo",
    "SbtArgs",
    "apply_lsa",
    "approx",
    "decompose",
    "fold_bn",
    "rec",
    "recompose",
    "restored",
    "set_lsa",
    "unfold_bn",
]
