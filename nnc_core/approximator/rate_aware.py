"""Rate-aware quantization with everything tried that pays: several passes, and a binarization that suits the levels."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.calibrated import Calibration, quantize_calibrated
from nnc_core.approximator.native import quantize_dependent, quantize_uniform
from nnc_core.entropy.native import shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.entropy.unary_length import USUAL_UNARY_LENGTH_MINUS1, best_unary_length_minus1

PASSES = 2


class RateAware(NamedTuple):
    """Levels (int32, rows x width), and the number of flags, less 1, with which they are to be coded."""

    levels: NDArray[np.int32]
    cabac_unary_length_minus1: int


class _Quantizer(Protocol):
    def __call__(
        self, *, cabac_unary_length_minus1: int, shift_indices: tuple[int, ...] | None = None
    ) -> NDArray[np.int32]: ...


def quantize(
    values: NDArray[np.float32],
    step: float,
    *,
    dq_flag: bool = True,
    scan_order: int = 0,
    lambda_scale: float = 1.0,
    cabac_unary_length_minus1: int | None = None,
    calibration: Calibration | None = None,
    passes: int = PASSES,
) -> RateAware:
    """Quantize float32 values, rows x width, for the best of errors and bits together.

    Each pass but the first knows how the coder's contexts will be set by the levels of the one before; a second pass
    makes a tensor 0.1 to 0.7 % smaller, a third 0.1 % at most. Without ``cabac_unary_length_minus1`` the best is
    chosen, which saves as much again where levels are large. With ``calibration`` the errors are those of a layer's
    output, and ``scan_order`` is 0. Raises ValueError as the quantizers do.
    """
    quantizer: _Quantizer
    if calibration is not None:
        quantizer = partial(quantize_calibrated, values, step, calibration, dq_flag=dq_flag, lambda_scale=lambda_scale)
    else:
        plain = quantize_dependent if dq_flag else quantize_uniform
        quantizer = partial(plain, values, step, scan_order, lambda_scale)
    unary = USUAL_UNARY_LENGTH_MINUS1 if cabac_unary_length_minus1 is None else cabac_unary_length_minus1
    levels = quantizer(cabac_unary_length_minus1=unary)
    if cabac_unary_length_minus1 is None:
        unary = best_unary_length_minus1(levels, dq_flag)
    if not lambda_scale:
        return RateAware(levels, unary)
    parameters = TensorParameters(dq_flag=dq_flag, scan_order=scan_order, cabac_unary_length_minus1=unary)
    for _ in range(passes - 1):
        indices = shift_indices(levels, parameters, TensorChoices())
        levels = quantizer(cabac_unary_length_minus1=unary, shift_indices=indices)
    return RateAware(levels, unary)
