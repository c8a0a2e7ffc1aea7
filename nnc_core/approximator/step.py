"""Quantization parameters as step sizes (clause 9)."""

from __future__ import annotations

import math


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
