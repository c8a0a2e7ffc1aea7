"""A weight as the product of two thin factors, G and H (clause 8.3.4)."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation, Members, without
from nnc_core.tables.blocks import FACTORS, Member

Floats = NDArray[np.float32]


def decompose(
    weight: Floats, *, rank: int | None = None, error: float | None = None, ratio: float | None = None
) -> tuple[Floats, Floats] | None:
    """Factors G (rows x rank) and H (rank x width) of a weight with two or more dimensions, both float32.

    The rank is ``rank``, or else the smallest with a relative squared error of at most ``error``, or the largest with
    which the factors have at most ``ratio`` times as many elements as the weight; of several given, the smallest rank.
    `None` where the factors would not be smaller than the weight. Raises ValueError for values that are not finite.
    """
    matrix = weight.reshape(len(weight), -1).astype(np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError("a weight that is not finite has no decomposition")
    left, scales, right = np.linalg.svd(matrix, full_matrices=False)
    chosen = min(_ranks(scales, matrix.shape, rank, error, ratio))
    if chosen < 1 or chosen * sum(matrix.shape) >= matrix.size:
        return None
    roots = np.sqrt(scales[:chosen])
    return (left[:, :chosen] * roots).astype(np.float32), (right[:chosen].T * roots).T.astype(np.float32)


def _ranks(
    scales: NDArray[np.float64], shape: tuple[int, int], rank: int | None, error: float | None, ratio: float | None
) -> list[int]:
    found = [len(scales)]
    if rank is not None:
        found.append(rank)
    if error is not None:
        left = np.append(np.cumsum((scales**2)[::-1])[::-1], 0.0)
        found.append(int(np.argmax(left <= error * left[0])))
    if ratio is not None:
        found.append(int(ratio * prod(shape) / sum(shape)))
    return found


def recompose(block: Members, shape: tuple[int, ...]) -> dict[Member, Approximation]:
    """The block with the product of its factors as a weight of ``shape``; members are values.

    The product is summed in binary64. A scaling of the rows of G should be applied before.
    """
    if Member.G not in block:
        return dict(block)
    g, h = (block[member].values.astype(np.float64) for member in FACTORS)
    with np.errstate(over="ignore", invalid="ignore"):  # what exceeds binary32 becomes infinite
        weight = Approximation((g @ h).astype(np.float32).reshape(shape))
    return {Member.WEIGHT: weight, **without(block, *FACTORS)}
