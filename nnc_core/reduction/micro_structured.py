"""Micro-structured pruning: small blocks of weights become zero, in a pattern that fast kernels can use (clause 8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.reduction.reduced import Reduced, Tensors, weights
from nnc_core.reduction.sparsification import smallest

__all__ = ["block_means", "per_element", "prune_blocks"]


def prune_blocks(
    parameters: Tensors, ratio: float, block: tuple[int, int] = (4, 4), *, names: Iterable[str] | None = None
) -> Reduced:
    """The model with this ``ratio`` of the blocks of each weight set to zero, those of the smallest mean magnitude.

    A weight is seen as a matrix with the first dimension as rows, which blocks of so many rows and columns cover; at
    the lower and right edge they are smaller. The shapes stay: a block that is gone is marked in the sparse mask.
    Raises ValueError for a ratio outside 0..1 and sizes below 1, `ModelError` for values that are not finite.

    >>> weight = np.array([[1.0, 1.0, 0.1, 0.2], [1.0, 1.0, 0.2, 0.1]])
    >>> prune_blocks({"w": weight}, 0.5, (2, 2)).parameters["w"].tolist()
    [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    """
    kept, gone = dict(parameters), {}
    for name, array in weights(parameters, names).items():
        means = block_means(np.abs(_matrix(array)), block)
        mask = per_element(smallest(means.ravel(), ratio).reshape(means.shape), block, _matrix(array).shape)
        gone[name] = mask.reshape(array.shape)
        kept[name] = np.where(gone[name], array.dtype.type(0), array)
    return Reduced(kept, sparse=gone)


def block_means(matrix: NDArray[np.float64], block: tuple[int, int]) -> NDArray[np.float64]:
    """The mean of each block of a matrix; of those at the edges, over the elements that are there."""
    if min(block) < 1:
        raise ValueError(f"blocks of {block[0]} x {block[1]}, expected 1 x 1 or more")
    starts = [np.arange(0, size, step) for size, step in zip(matrix.shape, block, strict=True)]
    sums = np.add.reduceat(np.add.reduceat(matrix, starts[0], axis=0), starts[1], axis=1)
    sizes = [
        np.minimum(start + step, size) - start for start, step, size in zip(starts, block, matrix.shape, strict=True)
    ]
    found: NDArray[np.float64] = sums / np.outer(*sizes)
    return found


def per_element(blocks: NDArray[Any], block: tuple[int, int], shape: tuple[int, ...]) -> NDArray[Any]:
    """A matrix of this shape that has in each block one value."""
    return blocks.repeat(block[0], axis=0).repeat(block[1], axis=1)[: shape[0], : shape[1]]


def _matrix(array: NDArray[Any]) -> NDArray[np.float64]:
    return array.reshape(len(array), -1).astype(np.float64)
