"""Quantization and reconstruction in native code: the functions of `nnc_core.approximator.reference`, at full speed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnc_core import _native
from nnc_core.approximator.rates import lambda_dependent, lambda_uniform

REFUSED = "the tensor has values that are not finite, or too large for the step size"


def quantize_uniform(
    values: NDArray[np.float32],
    step: float,
    scan_order: int = 0,
    lambda_scale: float = 0.0,
    cabac_unary_length_minus1: int = 10,
    shift_indices: Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """The nearest multiples of the step, halves away from zero; C-contiguous float32 of any shape to int32.

    With `lambda_scale` (Table 8; 1 is balanced) above 0, those that give the best of error and bits together when they
    are coded in `scan_order`, with contexts that start from `shift_indices`; then the values are rows x width.

    Raises ValueError for values that are not finite and multiples of 2**31 and more (with bits: 2**31 - 4).
    """
    levels = np.empty(values.shape, np.int32)
    matrix = values if values.ndim == 2 else values.reshape(1, -1)
    rate = (scan_order, lambda_uniform(lambda_scale), cabac_unary_length_minus1, _bytes(shift_indices))
    if not _native.quantize_uniform(matrix, step, *rate, levels.reshape(matrix.shape)):
        raise ValueError(REFUSED)
    return levels


def quantize_dependent(
    values: NDArray[np.float32],
    step: float,
    scan_order: int = 0,
    lambda_scale: float = 0.0,
    cabac_unary_length_minus1: int = 10,
    shift_indices: Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """The multiples of the step on the best path through the trellis; C-contiguous float32, rows x width, to int32.

    A value of exactly zero stays zero. With `lambda_scale` (Table 8; 1 is balanced) above 0, bits count as well as
    errors: those of a coder whose contexts start from `shift_indices`.

    Raises ValueError for values that are not finite and multiples of 2**31 - 4 and more.
    """
    levels = np.empty(values.shape, np.int32)
    rate = (scan_order, lambda_dependent(lambda_scale), cabac_unary_length_minus1, _bytes(shift_indices))
    if not _native.quantize_dependent(values, step, *rate, levels):
        raise ValueError(REFUSED)
    return levels


def _bytes(shift_indices: Sequence[int] | None) -> bytes | None:
    return None if shift_indices is None else bytes(shift_indices)


def reconstruct(levels: NDArray[np.int32], step: float) -> NDArray[np.float32]:
    """The values of uniformly or dependently quantized integers; C-contiguous int32 of any shape to float32."""
    values = np.empty(levels.shape, np.float32)
    _native.reconstruct(levels.reshape(-1), step, values.reshape(-1))
    return values


def reconstruct_in_place(levels: NDArray[np.int32], step: float) -> NDArray[np.float32]:
    """The same in the memory of the levels, which are gone then."""
    _native.reconstruct_in_place(levels.reshape(-1), step)
    return levels.view(np.float32)
