"""How much a bit is worth: `lambda_scale` of ISO/IEC 15938-18, Table 8, as the quantizers count."""

from __future__ import annotations

import math
from typing import Final

BALANCED_UNIFORM: Final = math.log(2) / 6
"""Squared steps per bit at which a uniform quantizer trades errors for bits evenly, at high rates."""

BALANCED_DEPENDENT: Final = 4 * BALANCED_UNIFORM * 0.7
"""The same for dependent quantization: each of its quantizers has steps twice as wide; 0.7 is found by trial."""

MAX_LAMBDA_SCALE: Final = 1e5
"""Far beyond what leaves anything but zeros."""


def lambda_uniform(lambda_scale: float) -> float:
    """Squared steps per bit for uniform quantization."""
    return _checked(lambda_scale) * BALANCED_UNIFORM


def lambda_dependent(lambda_scale: float) -> float:
    """Squared steps per bit for dependent quantization."""
    return _checked(lambda_scale) * BALANCED_DEPENDENT


def _checked(lambda_scale: float) -> float:
    if not 0 <= lambda_scale <= MAX_LAMBDA_SCALE:
        raise ValueError(f"lambda_scale is {lambda_scale}, expected 0..{MAX_LAMBDA_SCALE:g}")
    return lambda_scale
