"""Low displacement rank: weights that hardly change along their diagonals, by two thin generators (clause 8).

The displacement of a matrix is what is left of it when each element loses its upper left neighbour. It has rank 2 or
less for a Toeplitz matrix, such as a convolution is, whatever rank that has itself. Its factors are coded like those of
any weight; but the bitstream has no word for the displacement, so that both sides have to agree on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.decomposition import decompose
from nnc_core.reduction.reduced import Floats

__all__ = ["displaced", "low_displacement_rank", "restored"]


def displaced(weight: Floats) -> NDArray[np.float64]:
    """The displacement of a weight (rows, ...) as a matrix: ``m[i, j] - m[i - 1, j - 1]``, 0 being outside.

    >>> displaced(np.array([[1, 2, 3], [4, 1, 2], [5, 4, 1]])).tolist()
    [[1.0, 2.0, 3.0], [4.0, 0.0, 0.0], [5.0, 0.0, 0.0]]
    """
    matrix = weight.reshape(len(weight), -1).astype(np.float64)
    found: NDArray[np.float64] = matrix.copy()
    found[1:, 1:] -= matrix[:-1, :-1]
    return found


def restored(displacement: Floats) -> NDArray[np.float64]:
    """The matrix with this displacement: sums along the diagonals.

    >>> restored(np.array([[1, 2, 3], [4, 0, 0], [5, 0, 0]])).tolist()
    [[1.0, 2.0, 3.0], [4.0, 1.0, 2.0], [5.0, 4.0, 1.0]]
    """
    found: NDArray[np.float64] = displacement.astype(np.float64)
    for row in range(1, len(found)):
        found[row, 1:] += found[row - 1, :-1]
    return found


def low_displacement_rank(
    weight: Floats, *, rank: int | None = None, error: float | None = None, ratio: float | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Generators G (rows x rank) and H (rank x width) whose product is about the displacement of a weight (rows, ...).

    The rank is chosen as in `low_rank`; the ``error`` is that of the displacement, and `restored` adds it up. `None`
    where the generators would not be smaller than the weight. Raises ValueError for values that are not finite.
    """
    return decompose(displaced(weight).astype(np.float32), rank=rank, error=error, ratio=ratio)
