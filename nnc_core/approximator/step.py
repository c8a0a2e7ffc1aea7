"""Quantization parameters and step sizes (clause 9), and what an encoder derives them from."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LARGEST_LEVEL: Final = 2147483645
_PERCENTILE: Final = 99.95


def step_size(qp: int, qp_density: int) -> float:
    """The quantization step for a quantization parameter: 2**qp_density steps per octave, 1 for 0.

    Raises ValueError for a density outside 0..7 and for a step that is not a normal number in binary32.
    """
    if not 0 <= qp_density <= 7:
        raise ValueError(f"qp_density is {qp_density}, expected 0..7")
    octave = qp >> qp_density
    if not -126 <= octave <= 127:
        raise ValueError(f"qp {qp} with qp_density {qp_density} gives a step of 2**{octave}, beyond binary32")
    steps = 1 << qp_density
    return math.ldexp(steps + qp % steps, octave - qp_density)


def real_qp(step: float, qp_density: int) -> float:
    """The inverse of `step_size`, as a real number; ``step`` is above 0."""
    octave = math.floor(math.log2(step))
    return ((octave - 1) << qp_density) + math.ldexp(step, qp_density - octave)


def qp_against_overflow(values: NDArray[Any], qp_density: int) -> int:
    """The quantization parameter with which the largest of finite values is just below 2**31 steps."""
    return math.ceil(real_qp(float(np.abs(values).max()) / _LARGEST_LEVEL, qp_density))


def bit_depth_range(values: NDArray[Any], bits: int) -> tuple[int, int]:
    """The levels of an integer type of ``bits`` bits: unsigned if no value is negative."""
    return (0, (1 << bits) - 1) if values.min() >= 0 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def bit_depth_qp(values: NDArray[Any], bits: int, qp_density: int) -> int:
    """The quantization parameter with which all but the largest of 2000 values fit an integer type of ``bits`` bits."""
    magnitudes, most = np.abs(values), bit_depth_range(values, bits)[1]
    step = float(np.percentile(magnitudes, _PERCENTILE)) / most or float(magnitudes.max()) / most
    reach = 1 << (5 + qp_density)
    return round(min(max(real_qp(step, qp_density), -reach), reach - 1)) if step else 0
