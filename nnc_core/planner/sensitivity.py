"""Steps from measured sensitivities: tensors that matter more to a model's output get finer ones.

A sensitivity is the error of the output over the error of the tensor that caused it. To measure it, replace one tensor
at a time by its `probe`, run the model on calibration inputs, and compare its outputs.

>>> sensitivities = {"first": 80.0, "second": 5.0, "unused": 0.0}
>>> steps = allocate(sensitivities, {"first": 1000, "second": 3000, "unused": 10}, 0.1)
>>> {name: round(step, 3) for name, step in steps.items()}
{'first': 0.045, 'second': 0.126, 'unused': 0.4}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.native import quantize_dependent, reconstruct

__all__ = ["allocate", "probe", "sensitivity"]

PROBE: Final = 0.34
"""Step of a probe over the rms of the tensor: about 16 dB, so that its error shows among those of rounding."""

EXPONENT: Final = 0.375
"""Less than the half that theory says for tensors that do not influence each other: sensitivities are noisy."""

_LEAST: Final = 1e-12
_FINEST, _COARSEST = 1 / 8, 4.0


def probe(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values of a tensor (float32, any shape) after coarse quantization."""
    matrix = np.ascontiguousarray(values.reshape(len(values) if values.ndim else 1, -1))
    rms = math.sqrt(float(np.mean(np.square(matrix, dtype=np.float64))))
    step = float(np.float32(PROBE * rms))
    if not step:
        return values
    return reconstruct(quantize_dependent(matrix, step), step).reshape(values.shape)


def sensitivity(output_error: float, values: NDArray[Any], probed: NDArray[Any]) -> float:
    """What a squared error of the tensor does to the output, of which ``output_error`` is the error's power."""
    error = float(np.sum(np.square(np.subtract(values, probed, dtype=np.float64))))
    return output_error / error if error else 0.0


def allocate(
    sensitivities: Mapping[str, float], sizes: Mapping[str, int], step: float, exponent: float = EXPONENT
) -> dict[str, float]:
    """The step of each tensor; ``step`` is their geometric mean over all weights before clamping.

    None is finer than an eighth of ``step`` or coarser than four times, however little it seems to matter.
    """
    raw = {name: max(gain, _LEAST) ** -exponent for name, gain in sensitivities.items()}
    total = sum(sizes[name] for name in raw)
    mean = math.exp(sum(sizes[name] * math.log(factor) for name, factor in raw.items()) / total) if total else 1.0
    return {name: step * min(max(factor / mean, _FINEST), _COARSEST) for name, factor in raw.items()}
