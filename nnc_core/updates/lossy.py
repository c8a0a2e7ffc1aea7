"""Lossy updates of one tensor: the quantized difference from what the receiver has."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import quantized, reconstructed
from nnc_core.coder.encoder import Coding
from nnc_core.planner.quality import qp_of
from nnc_core.records import dataclass
from nnc_core.updates.chain import Left, Link
from nnc_core.updates.coding import coded_update
from nnc_core.updates.differences import is_float
from nnc_core.updates.digest import fingerprint
from nnc_core.updates.exact import TensorUpdate

__all__ = [
    "Change",
    "LossyOptions",
    "change_of",
    "lossy_update",
    "predicted",
    "reconstruction",
    "weights_rms",
    "with_values",
]

_VECTOR: Final = 0.25
"""How much finer the step of a vector is, in terms of the rms of its own change."""


@dataclass(frozen=True, slots=True)
class LossyOptions:
    """How coarse an update is.

    ``step`` is the quantization step in terms of the rms of the change: that of all weights of the model, or a
    quarter of its own for a vector, in the largest update of the chain so far; smaller changes wait until they have
    added up. ``qp`` is an absolute step in its place, of vectors as well unless ``vector_qp`` says another. Of the
    changes of the weights the share ``sparsity`` is left for the next update: the smallest, or with ``structured``
    the rows with the smallest. ``lambda_scale`` weighs bits against errors.
    """

    step: float = 1.0
    qp: int | None = None
    vector_qp: int | None = None
    dq_flag: bool = True
    sparsity: float = 0.0
    structured: bool = False
    lambda_scale: float = 0.0

    def __post_init__(self) -> None:
        if not (self.step > 0 and math.isfinite(self.step)):
            raise ValueError(f"step is {self.step}, expected a positive number")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity}, expected at least 0 and less than 1")

    def qp_for(self, change: Change, weights: float, qp_density: int) -> int | None:
        """The quantization parameter of a tensor, where the weights change by the rms ``weights``; None for no step."""
        absolute = self.qp if change.matrix or self.vector_qp is None else self.vector_qp
        if absolute is not None:
            return absolute
        return qp_of(self.step * (weights if change.matrix else _VECTOR * change.rms), qp_density)


@dataclass(frozen=True, slots=True)
class Change:
    """How much a tensor changes: the sum of the squares of all differences, and whether it has rows and columns.

    ``largest`` is the rms of the largest update before this one.
    """

    name: str
    matrix: bool
    size: int
    energy: float
    largest: float

    @property
    def rms(self) -> float:
        """The rms of the change, or of the largest before it."""
        return max(self.largest, math.sqrt(self.energy / self.size))


def weights_rms(changes: Iterable[Change]) -> float:
    """The rms of the change of all weights of a model."""
    weights = [change for change in changes if change.matrix]
    size = sum(change.size for change in weights)
    return math.sqrt(sum(change.energy for change in weights) / size) if size else 0.0


def reconstruction(base: NDArray[Any], link: Link) -> NDArray[np.float32]:
    """What the receiver has, before it is rounded to the tensor's own type."""
    if link.values is not None:
        return link.values
    with np.errstate(over="ignore", invalid="ignore"):
        return base.astype(np.float32)


def change_of(name: str, new: NDArray[Any], base: NDArray[Any], link: Link) -> Change | None:
    """How much a tensor changes; None for what must be exact: integers, and values that are not finite."""
    if not is_float(base.dtype):
        return None
    difference = _difference(new, reconstruction(base, link))
    if not np.isfinite(difference).all():
        return None
    matrix = sum(extent > 1 for extent in base.shape) > 1
    energy = float(np.einsum("i,i->", *2 * (difference.reshape(-1).astype(np.float64),)))
    return Change(name, matrix, difference.size, energy, link.rms)


def _difference(new: NDArray[Any], reconstructed: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore", over="ignore"):
        difference: NDArray[np.float32] = new.astype(np.float32) - reconstructed
    return difference


def lossy_update(
    name: str,
    new: NDArray[Any],
    base: NDArray[Any],
    link: Link,
    qp: int,
    options: LossyOptions,
    coding: Coding,
    prediction: NDArray[np.float32] | None = None,
    *,
    residual: bool = False,
) -> TensorUpdate | None:
    """Code the difference with the step of ``qp``, or what is left of it after the ``prediction``; None for no change.

    Raises ValueError where the difference is too large for the step.
    """
    before = reconstruction(base, link)
    rest = _difference(new, before)
    if prediction is not None:
        rest = rest - prediction
    shape = base.shape or (1,)
    rest = _sparse(np.ascontiguousarray(rest.reshape(shape[0], -1)), options).reshape(shape)
    tensor = quantized(rest, qp, coding.qp_density, options.dq_flag, lambda_scale=options.lambda_scale)
    coded = coded_update(name, tensor, link.history(residual), coding)
    if coded is None and prediction is None:
        return None
    change = predicted(reconstructed(tensor, coding.qp_density).values.reshape(base.shape), prediction)
    after, values = with_values(base, before, change)
    left = Left(fingerprint(after), None if coded is None else coded.history, link.exponents, values)
    return TensorUpdate(() if coded is None else (coded.unit,), after, left, change=change)


def predicted(residual: NDArray[np.float32], prediction: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The update that a residual stands for (clause 9.1.6): the prediction is the last reconstructed update."""
    return residual if prediction is None else residual + prediction


def with_values(
    base: NDArray[Any], before: NDArray[np.float32], change: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """The tensor after a change, and its unrounded reconstruction where its own type is another than float32."""
    values = before + change
    if base.dtype == np.float32:
        return values, None
    with np.errstate(over="ignore"):
        return values.astype(base.dtype), values


def _sparse(difference: NDArray[np.float32], options: LossyOptions) -> NDArray[np.float32]:
    """The largest changes of a matrix; a vector has all."""
    if not options.sparsity or min(difference.shape) <= 1:
        return difference
    size = np.abs(difference).mean(axis=1) if options.structured else np.abs(difference).reshape(-1)
    dropped = int(options.sparsity * size.size)
    keep = np.ones(size.size, bool)
    keep[np.argsort(size, kind="stable")[:dropped]] = False
    return np.where(keep[:, None] if options.structured else keep.reshape(difference.shape), difference, np.float32(0))
