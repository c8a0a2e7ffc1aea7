"""Calibrated quantization: levels for the least error of a layer's output, from what its inputs look like.

An encoder's choice; the result is decoded as any other. It is for matrices that are multiplied by inputs along their
width: ``rows`` outputs, ``width`` inputs. A convolution is one, for each group, with the elements of a patch as inputs.

>>> import numpy as np
>>> inputs = np.random.default_rng(1).normal(size=(500, 8)) @ np.random.default_rng(2).normal(size=(8, 8))
>>> weights = np.random.default_rng(3).normal(size=(6, 8)).astype(np.float32)
>>> measured = Covariance(8)
>>> measured.add(inputs)
>>> levels = quantize_calibrated(weights, 0.5, measured.calibration())
>>> levels.shape, levels.dtype.name
((6, 8), 'int32')
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnc_core import _native
from nnc_core.approximator.native import REFUSED
from nnc_core.approximator.rates import lambda_dependent, lambda_uniform
from nnc_core.records import dataclass

DAMPING = 0.1
"""Share of the inputs' mean square that is added to each of them: corrections must not rely on chance."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `quantize_calibrated` has to know of the inputs of one matrix.

    ``factor``: upper triangular U (float32, width x width) with U^T U the inverse of the inputs' damped covariance.
    ``importance``: what a squared error in each column counts, 1 in the mean (float64). Where the rows form groups that
    have inputs of their own, those of each follow each other. ``input_first`` says that the rows are multiplied by
    inputs, not the columns.
    """

    factor: NDArray[np.float32]
    importance: NDArray[np.float64]
    input_first: bool = False


class Covariance:
    """The mean of x x^T over all inputs x of a matrix with ``width`` columns, added up batch by batch."""

    def __init__(self, width: int) -> None:
        self._sum = np.zeros((width, width))
        self._count = 0
        self._pending: list[NDArray[np.float64]] = []  # fewer rows than columns: products of many are faster

    def add(self, inputs: ArrayLike) -> None:
        """Take in inputs (any shape, ending in ``width``). Raises ValueError for another width or values not finite."""
        batch = np.array(inputs, np.float64)
        if batch.shape[-1:] != self._sum.shape[:1]:
            raise ValueError(f"inputs have shape {batch.shape}, expected (..., {len(self._sum)})")
        batch = batch.reshape(-1, len(self._sum))
        if not np.isfinite(batch).all():
            raise ValueError("inputs have values that are not finite")
        self._pending.append(batch)
        if sum(map(len, self._pending)) >= len(self._sum):
            self._sum, self._count = self._total()
            self._pending.clear()

    def _total(self) -> tuple[NDArray[np.float64], int]:
        rows = np.concatenate([*self._pending, np.zeros((0, len(self._sum)))])
        return self._sum + rows.T @ rows, self._count + len(rows)

    @property
    def width(self) -> int:
        """The number of elements of an input."""
        return len(self._sum)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The covariance, width x width; raises ValueError before there are any inputs."""
        total, count = self._total()
        if count == 0:
            raise ValueError("there are no inputs to calibrate with")
        return total / count

    def calibration(self, damping: float = DAMPING) -> Calibration:
        """Ready for `quantize_calibrated`."""
        return calibration(self.mean, damping)


def calibration(covariance: NDArray[np.float64], damping: float = DAMPING) -> Calibration:
    """What a covariance of inputs (width x width) means for quantization; all zeros mean nothing at all.

    Raises ValueError for a matrix that is not a covariance, and for ``damping`` that is not above 0.
    """
    width = len(covariance)
    if covariance.shape != (width, width) or not np.isfinite(covariance).all():
        raise ValueError(f"a covariance of shape {covariance.shape}, expected a square one of finite numbers")
    if not 0 < damping < np.inf:
        raise ValueError(f"damping is {damping}, expected more than 0")
    scale = float(np.trace(covariance)) / width or 1.0
    damped = covariance / scale + damping * np.eye(width)
    try:
        # Factored from the last column to the first: R R^T with R upper triangular, whose inverse is U.
        factor = np.linalg.inv(np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1])
    except np.linalg.LinAlgError:
        raise ValueError("a matrix that is not positive definite, expected a covariance") from None
    weight = 1 / np.diag(factor) ** 2
    return Calibration(np.triu(factor).astype(np.float32), weight / weight.mean())


def quantize_calibrated(
    values: NDArray[np.float32],
    step: float,
    calibration: Calibration,
    *,
    dq_flag: bool = True,
    lambda_scale: float = 0.0,
    cabac_unary_length_minus1: int = 10,
    shift_indices: Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """The multiples of the step that change a matrix's outputs least (with bits: the best of both together).

    What each column leaves in error, those to the right of it make up for as far as they can, in every survivor of the
    search. `values` are C-contiguous float32, rows x width; so is the result, int32, for ``scan_order`` 0. Exact zeros
    stay zeros. Raises ValueError for values that are not finite, or too large with their corrections, and for a
    calibration of another width.
    """
    levels = np.empty(values.shape, np.int32)
    lagrangian = lambda_dependent(lambda_scale) if dq_flag else lambda_uniform(lambda_scale)
    indices = None if shift_indices is None else bytes(shift_indices)
    known = (calibration.factor, calibration.importance, calibration.input_first)
    if not _native.quantize_calibrated(
        values, step, *known, dq_flag, lagrangian, cabac_unary_length_minus1, indices, levels
    ):
        raise ValueError(REFUSED)
    return levels


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """What is known of the inputs of a weight: their covariance, for each of the equal groups that its rows form.

    The weight is seen as a matrix. Its rows are outputs, and its last dimensions, as many as make up the width of the
    covariances, are multiplied by inputs. With ``input_first`` these are its first dimensions, without groups.
    """

    covariances: tuple[Covariance, ...]
    input_first: bool = False

    def matrix(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Rows and columns of a weight of this shape; `None` if it cannot have such inputs."""
        groups = len(self.covariances)
        widths = {each.width for each in self.covariances}
        for axis in range(1, len(shape)):
            rows, columns = prod(shape[:axis]), prod(shape[axis:])
            divided = groups == 1 if self.input_first else groups > 0 and rows % groups == 0
            if divided and widths == {rows if self.input_first else columns}:
                return rows, columns
        return None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of this shape can have such inputs."""
        return self.matrix(shape) is not None

    def calibration(self, damping: float = DAMPING) -> Calibration:
        """Ready for `quantize_calibrated`; raises ValueError where there are no inputs.

        Groups count alike, whatever the scale of their inputs: a normalization that follows may make up for it.
        """
        groups = [each.calibration(damping) for each in self.covariances]
        factor = np.concatenate([each.factor for each in groups])
        return Calibration(factor, np.concatenate([each.importance for each in groups]), self.input_first)
