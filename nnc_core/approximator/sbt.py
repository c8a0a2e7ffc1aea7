"""Stochastic binary-ternary quantization of updates (clause 9.1.5, Part 18, Table 10).

A tensor keeps two or three different values, 0 and the mean of what it stands for, with one sign or both. Uniform
quantization follows, so that a decoder needs nothing special. The standard leaves the choices open; ours are: a value
counts if it is at least 0.7 times the mean magnitude; ``binary`` keeps the sign with the larger sum; ``combined`` draws
between the two for each tensor, with equal chances (``random``) or, with ``random_round``, for ternary with a chance
that grows from round to round. The draw depends on name and round only.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.data import SbtArgs

_THRESHOLD: Final = 0.7


def binary_or_ternary(name: str, values: NDArray[np.float32], arguments: SbtArgs) -> NDArray[np.float32]:
    """The values with 0 and one magnitude in their place; float32 of any shape, finite.

    ``sbt_quantization_approach`` (by default ``combined``), ``sbt_subquantization_approach``, ``epoch`` and ``n_epoch``
    count.
    """
    magnitudes = np.abs(values.astype(np.float64))
    kept = magnitudes >= _THRESHOLD * magnitudes.mean()
    if not _is_ternary(name, arguments):
        positive = values > 0
        kept &= positive == (values[positive].sum(dtype=np.float64) >= -values[~positive].sum(dtype=np.float64))
    kept &= values != 0
    mean = float(magnitudes[kept].mean()) if kept.any() else 0.0
    few: NDArray[np.float32] = np.where(kept, np.copysign(np.float32(mean), values), np.float32(0))
    return few


def _is_ternary(name: str, arguments: SbtArgs) -> bool:
    approach = arguments.get("sbt_quantization_approach", "combined")
    if approach != "combined":
        return approach == "ternary"
    epoch = arguments.get("epoch", 0)
    by_round = arguments.get("sbt_subquantization_approach") == "random_round"
    chance = (epoch + 1) / (arguments.get("n_epoch", epoch) + 1) if by_round else 0.5
    return bool(np.random.default_rng([crc32(name.encode()), epoch]).random() < chance)
