"""Unification: the weights of a block get one magnitude, and keep their signs (clause 8; 6.3.4.3 for its map)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nnc_core.reduction.micro_structured import block_means, per_element
from nnc_core.reduction.reduced import Reduced, Tensors, weights

__all__ = ["unify"]


def unify(
    parameters: Tensors,
    threshold: float,
    block: tuple[int, int] = (4, 4),
    super_block: tuple[int, int] = (64, 64),
    *,
    names: Iterable[str] | None = None,
) -> Reduced:
    """The model with blocks of weights unified where that changes little: each weight to its sign times their mean.

    A weight is seen as a matrix with the first dimension as rows, which blocks of so many rows and columns cover. A
    block is unified if the mean squared change is at most ``threshold`` times the mean square of the ``super_block``
    around it, whose sizes are multiples of those of the block. Exact zeros stay zeros, and do not count. Raises
    ValueError for other sizes, `ModelError` for values that are not finite.

    >>> unify({"w": np.array([[1.0, -3.0, 0.0, 8.0]])}, 0.2, (1, 2), (1, 4)).parameters["w"].tolist()
    [[2.0, -2.0, 0.0, 8.0]]
    """
    if any(size < 1 or outer % size for size, outer in zip(block, super_block, strict=True)):
        raise ValueError(f"super-blocks of {super_block}, expected multiples of the blocks of {block}")
    found = dict(parameters)
    for name, array in weights(parameters, names).items():
        matrix = array.reshape(len(array), -1).astype(np.float64)
        present = (matrix != 0).astype(np.float64)
        counts = np.maximum(block_means(present, block), np.finfo(np.float64).tiny)
        means = per_element(block_means(np.abs(matrix), block) / counts, block, matrix.shape)
        unified = np.sign(matrix) * means
        change = per_element(block_means(np.square(unified - matrix), block), block, matrix.shape)
        around = per_element(block_means(np.square(matrix), super_block), super_block, matrix.shape)
        found[name] = np.where(change <= threshold * around, unified, matrix).reshape(array.shape).astype(array.dtype)
    return Reduced(found)
