"""From the scale of a tensor and of its model to a quantization parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from nnc_core.approximator.step import step_size
from nnc_core.planner.statistics import Statistics

__all__ = [
    "LEAST_RMS",
    "NARROW_FLOOR",
    "WEIGHT_CEILING",
    "WEIGHT_FLOOR",
    "model_rms",
    "qp_of",
    "step_for",
    "too_wide",
    "vector_step",
    "weight_step",
]

MODEL: Final = 40.0
"""dB that the noise of weights lies below the rms of all weights of the model."""

WEIGHT_FLOOR, WEIGHT_CEILING = 34.0, 44.0
"""The least SQNR in dB of a tensor of weights, and the most that is spent on one.

Chosen by the accuracy of 40 small classifiers: 9 of 16000 decisions changed, and no classifier lost more than one of
them; with 36 and 30 dB, for a tenth fewer bytes, 19 changed."""

NARROW_FLOOR: Final = 43.0
"""The same for narrow ones, which have few values: factors of a product, where errors add up, and last layers."""

_VECTOR: Final = 60.0
_QUIET: Final = 20.0
_VECTOR_STEP: Final = step_size(-75, 2)
"""No step for a vector is coarser, whatever its scale."""

_DEPENDENT, _UNIFORM = 1.94, math.sqrt(12)
"""Step over the rms of the noise. Uniform: an error spread evenly over a step. Dependent: the noise of a uniform
quantizer with 0.56 times the step, as measured on normal and Laplacian values, with 0.1 to 0.3 dB to spare."""

_OCTAVES = range(-32, 32)
"""The exponents of the powers of two that are steps."""

LEAST_RMS: Final = 2.0 ** _OCTAVES[0] * 64
"""What is smaller all in all has no steps that are fine enough, whatever its quantization parameter."""

_MOST_STEPS, _VECTOR_STEPS = 1 << 26, 1 << 20
"""How many steps an ordinary value has at most, of weights and in a vector."""


def model_rms(weights: Iterable[Statistics]) -> float:
    """The rms of all weights of a model."""
    energy, size = 0.0, 0
    for each in weights:
        energy, size = energy + each.energy, size + each.size
    return math.sqrt(energy / size) if size else 0.0


def step_for(rms: float, sqnr: float, dq_flag: bool) -> float:
    """The step with which values of this rms have this SQNR in dB."""
    return (_DEPENDENT if dq_flag else _UNIFORM) * rms * 10 ** (-sqnr / 20)


def weight_step(found: Statistics, rms: float, dq_flag: bool) -> float:
    """The step of a tensor of weights in a model whose weights have this ``rms``."""
    floor, own = NARROW_FLOOR if found.narrow else WEIGHT_FLOOR, found.rms
    common = max(step_for(rms, MODEL, dq_flag), step_for(own, WEIGHT_CEILING, dq_flag))
    step = min(common, step_for(own, floor, dq_flag))
    if found.quiet < own:
        step = min(step, step_for(found.quiet, _QUIET, dq_flag))
    return max(step, found.peak / _MOST_STEPS)


def vector_step(found: Statistics, dq_flag: bool) -> float:
    """The step of a vector."""
    return max(min(_VECTOR_STEP, step_for(found.rms, _VECTOR, dq_flag)), found.peak / _VECTOR_STEPS)


def too_wide(found: Statistics, vector: bool) -> bool:
    """Whether the values are of so different scales that one step cannot do justice to them all."""
    if vector:
        return found.least < min(1e-4, 1 / (64 * found.size)) * found.rms
    return found.quiet < found.rms * 2**-14


def qp_of(step: float, qp_density: int) -> int:
    """The largest quantization parameter with at most this step, or else the smallest there is."""
    mantissa, exponent = math.frexp(step)
    octave, steps = exponent - 1, 1 << qp_density
    if octave < _OCTAVES[0]:
        return _OCTAVES[0] << qp_density
    if octave > _OCTAVES[-1]:
        return (_OCTAVES[-1] << qp_density) + steps - 1
    return (octave << qp_density) + int((2 * mantissa - 1) * steps)
