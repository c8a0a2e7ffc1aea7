"""Local scaling: one factor for each row of a weight (clause 8.3.9)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation, Members, without
from nnc_core.tables.blocks import Member


def with_scaling(block: Members, scaling: NDArray[np.float32]) -> dict[Member, Approximation]:
    """The block with a scaling (float32, one per row of the weight); ValueError for another shape."""
    rows = block.get(Member.WEIGHT, block.get(Member.G))
    if rows is None or scaling.shape != rows.values.shape[:1]:
        raise ValueError(f"a scaling of shape {scaling.shape}, expected one value for each row of the weight")
    return {**block, Member.SCALING: Approximation(scaling)}


def apply_scaling(block: Members) -> dict[Member, Approximation]:
    """The block with its scaling multiplied into the weight, or into its factor G; members are values.

    Raises ValueError where G has not as many rows as there are factors.
    """
    if Member.SCALING not in block:
        return dict(block)
    scaling = block[Member.SCALING].values
    target = Member.WEIGHT if Member.WEIGHT in block else Member.G
    weight = block[target]
    if weight.values.shape[0] != scaling.size:
        raise ValueError(f"{scaling.size} factors for {weight.values.shape[0]} rows")
    scaled = weight.values * scaling.reshape(-1, *(1,) * (weight.values.ndim - 1))
    return {**without(block, Member.SCALING), target: replace(weight, values=scaled.astype(np.float32, copy=False))}
