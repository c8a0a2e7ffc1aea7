"""Batch normalization folded into a scaling and a bias, and unfolded again (clause 8.3.8)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation, Members, without
from nnc_core.tables.blocks import BATCH_NORM, Member

EPSILON = 1e-5
"""What a layer adds to the variance."""

EPSILON_TENSORFLOW = 1e-3


def fold_bn(block: Members, epsilon: float = EPSILON) -> dict[Member, Approximation]:
    """The block with a scaling and a bias in the place of its batch-norm; as it is where it has none.

    The scaling is gamma / sqrt(var + ``epsilon``), times a scaling that was there; the bias is that of the whole layer.
    All members are values (float32, one per row of the weight).
    """
    if Member.GAMMA not in block:
        return dict(block)
    beta, gamma, mean, var = (block[member].values.astype(np.float64) for member in BATCH_NORM)
    factor = gamma / np.sqrt(var + epsilon)
    scaling = _vector(block, Member.SCALING, 1.0) * factor
    bias = (_vector(block, Member.BIAS, 0.0) - mean) * factor + beta
    return {**without(block, *BATCH_NORM), Member.SCALING: _values(scaling), Member.BIAS: _values(bias)}


def unfold_bn(block: Members, own_bias: bool) -> dict[Member, Approximation]:
    """The block with a batch-norm that does nothing but what folding left for it; members are values.

    The scaling stays, and is to be applied to the weight. The folded bias becomes beta, unless the layer has
    an ``own_bias``, which then keeps it. Where there is a batch-norm, or no bias to unfold, nothing changes.
    """
    if Member.GAMMA in block or Member.BIAS not in block:
        return dict(block)
    bias = block[Member.BIAS].values
    ones, zeros = np.ones_like(bias), np.zeros_like(bias)
    added: Mapping[Member, NDArray[np.float32]] = {
        Member.BETA: zeros if own_bias else bias,
        Member.GAMMA: ones,
        Member.MEAN: zeros,
        Member.VAR: ones,
    }
    kept = dict(block) if own_bias else without(block, Member.BIAS)
    return {**kept, **{member: Approximation(values) for member, values in added.items()}}


def _vector(block: Members, member: Member, default: float) -> NDArray[np.float64] | float:
    return block[member].values.astype(np.float64) if member in block else default


def _values(vector: NDArray[np.float64]) -> Approximation:
    return Approximation(vector.astype(np.float32))
