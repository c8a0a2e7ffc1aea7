"""Codebooks of integers: reconstruction (clause 9), and their choice by an encoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def reconstruct_codebook(
    levels: NDArray[np.int32], codebook: NDArray[np.int32], zero_offset: int, step: float
) -> NDArray[np.float32]:
    """The values of codebook indices, which count from the entry `zero_offset`; int32 of any shape to float32.

    Raises ValueError for an index outside the codebook.
    """
    indices = levels.astype(np.int64) + zero_offset
    if np.any((indices < 0) | (indices >= len(codebook))):
        raise ValueError(f"indices {indices.min()}..{indices.max()} in a codebook of {len(codebook)} entries")
    with np.errstate(over="ignore"):
        return (step * codebook.astype(np.float64)).astype(np.float32)[indices]
