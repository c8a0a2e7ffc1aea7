"""From the values of a tensor to levels, as its plan says (clause 9)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator import rate_aware
from nnc_core.approximator.calibrated import Calibration, LayerInputs
from nnc_core.approximator.rate_aware import RateAware
from nnc_core.coder.plan import TensorPlan
from nnc_core.entropy.unary_length import USUAL_UNARY_LENGTH_MINUS1
from nnc_core.errors import ModelError

__all__ = ["MAX_LEVEL", "Calibrated", "as_floats", "beyond_levels", "calibration_of", "known", "levels_of"]

MAX_LEVEL = (1 << 31) - 1


def known(array: NDArray[Any]) -> NDArray[Any]:
    """The array with integers of at least 8 bits, in the byte order of this machine."""
    if array.dtype.kind == "V" and array.dtype.name.startswith(("int", "uint")):
        return array.astype(np.int8)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_floats(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """The values as float32; `ModelError` for what has none."""
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    # bfloat16 and other types from outside numpy have kind 'V' too, and know how to become float32.
    if array.dtype.kind not in "fV" or issubclass(array.dtype.type, np.void):
        raise ModelError(f"has dtype {array.dtype}, which NNR cannot express", tensor=name)
    if array.dtype.name == "bfloat16":  # with the bits of what is not a number
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, np.float32)


class Calibrated(NamedTuple):
    """The matrix that a weight is, and what is known of its inputs."""

    matrix: tuple[int, int]
    known: Calibration


def calibration_of(name: str, shape: tuple[int, ...], inputs: LayerInputs) -> Calibrated:
    """What a layer's ``inputs`` mean for its weight; `ModelError` for inputs of another width or without a use."""
    matrix = inputs.matrix(shape)
    if matrix is None:
        widths = ", ".join(str(each.width) for each in inputs.covariances)
        raise ModelError(f"has shape {shape}, and is calibrated with inputs of width {widths}", tensor=name)
    try:
        return Calibrated(matrix, inputs.calibration())
    except ValueError as error:
        raise ModelError(f"cannot be calibrated: {error}", tensor=name) from None


def levels_of(
    values: NDArray[np.float32], step: float, plan: TensorPlan, calibration: Calibrated | None = None
) -> RateAware | None:
    """The levels as rows x width, and how they are to be binarized; `None` if a value has none."""
    matrix = values.reshape(len(values), -1)
    if calibration is not None and plan.scan_order == 0:
        with suppress(ValueError):  # also where corrections grow too large
            found = _quantize(values.reshape(calibration.matrix), step, plan, calibration.known)
            return found._replace(levels=found.levels.reshape(matrix.shape))
    try:
        return _quantize(matrix, step, plan)
    except ValueError:
        return None


def _quantize(
    matrix: NDArray[np.float32], step: float, plan: TensorPlan, calibration: Calibration | None = None
) -> RateAware:
    unary = plan.cabac_unary_length_minus1
    chosen = plan.lambda_scale > 0 and not plan.exact and unary == USUAL_UNARY_LENGTH_MINUS1
    return rate_aware.quantize(
        matrix,
        step,
        dq_flag=plan.dq_flag,
        scan_order=plan.scan_order,
        lambda_scale=0.0 if plan.exact else plan.lambda_scale,
        cabac_unary_length_minus1=None if chosen else unary,
        calibration=calibration,
    )


def beyond_levels(values: NDArray[np.float32], step: float) -> NDArray[np.bool_]:
    """Which values have no level."""
    bound = np.float32(min(step * (MAX_LEVEL - 8), np.finfo(np.float32).max))
    beyond: NDArray[np.bool_] = ~(np.abs(values) < bound)  # and what is not a number
    return beyond
