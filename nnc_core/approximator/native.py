"""Quantization and reconstruction in native code: the functions of `nnc_core.approximator.reference`, at full speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnc_core import _native

_REFUSED = "the tensor has values that are not finite, or too large for the step size"


def quantize_uniform(values: NDArray[np.float32], step: float) -> NDArray[np.int32]:
    """The nearest multiples of the step, halves away from zero; C-contiguous float32 of any shape to int32.

    Raises ValueError for values that are not finite and multiples of 2**31 and more.
    """
    levels = np.empty(values.shape, np.int32)
    if not _native.quantize_uniform(values.reshape(-1), step, levels.reshape(-1)):
        raise ValueError(_REFUSED)
    return levels


def quantize_dependent(values: NDArray[np.float32], step: float, scan_order: int = 0) -> NDArray[np.int32]:
    """The multiples of the step on the best path through the trellis; C-contiguous float32, rows x width, to int32.

    A value of exactly zero stays zero.
    Raises ValueError for values that are not finite and multiples of 2**31 - 4 and more.
    """
    levels = np.empty(values.shape, np.int32)
    if not _native.quantize_dependent(values, step, scan_order, levels):
        raise ValueError(_REFUSED)
    return levels


def reconstruct(levels: NDArray[np.int32], step: float) -> NDArray[np.float32]:
    """The values of uniformly or dependently quantized integers; C-contiguous int32 of any shape to float32."""
    values = np.empty(levels.shape, np.float32)
    _native.reconstruct(levels.reshape(-1), step, values.reshape(-1))
    return values
