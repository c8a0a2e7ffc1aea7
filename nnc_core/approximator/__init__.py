"""Quantization and reconstruction (clause 9), and the module ``approximator`` of ISO/IEC 15938-18."""

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
