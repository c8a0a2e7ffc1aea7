"""Parameter reduction (ISO/IEC 15938-17, clause 8 and G.1): arrays in, arrays and what the bitstream tells of them out.

Everything is deterministic, and needs no data but where a model is evaluated.
"""

from nnc_core.reduction.combined import importance, prune_and_sparsify
from nnc_core.reduction.low_displacement_rank import low_displacement_rank
from nnc_core.reduction.low_rank import LowRank, low_rank
from nnc_core.reduction.masks import (
    Masks,
    describe_dictionary,
    describe_masks,
    in_full_shape,
    in_pruned_shape,
    masks_of,
    restore,
)
from nnc_core.reduction.micro_structured import prune_blocks
from nnc_core.reduction.performance import decomposition_map, pruning_map, sparsification_map, unification_map
from nnc_core.reduction.reduced import Reduced, applied
from nnc_core.reduction.sparsification import sparsify, sparsify_rows
from nnc_core.reduction.unification import unify

__all__ = [
    "LowRank",
    "Masks",
    "Reduced",
    "applied",
    "decomposition_map",
    "describe_dictionary",
    "describe_masks",
    "importance",
    "in_full_shape",
    "in_pruned_shape",
    "low_displacement_rank",
    "low_rank",
    "masks_of",
    "prune_and_sparsify",
    "prune_blocks",
    "pruning_map",
    "restore",
    "sparsification_map",
    "sparsify",
    "sparsify_rows",
    "unification_map",
    "unify",
]
