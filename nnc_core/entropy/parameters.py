"""What the payload coder is told about a tensor, what it may choose, and what it gives back (clause 10)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.records import dataclass
from nnc_core.tables.entry_point import EntryPoint

MAX_SCAN_ORDER = 4
MAX_UNARY_LENGTH_MINUS1 = 255


@dataclass(frozen=True, slots=True)
class TensorParameters:
    """What the headers say about one tensor of `rows` x `width` integers.

    ``base`` (int32, rows x width) holds the co-located integers of the parent and switches the temporal contexts on;
    ``history`` (uint8, rows x width) is 1 where an earlier update was not zero, None meaning 0 everywhere. Both, and
    the codebook, are used with ``general_profile_idc`` 1 only.

    Raises ValueError for values outside the ranges of the standard.
    """

    general_profile_idc: int = 1
    cabac_unary_length_minus1: int = 10
    dq_flag: bool = False
    scan_order: int = 0
    parent_node_id_present_flag: bool = False
    codebook_size: int = 0
    codebook_zero_offset: int = 0
    base: NDArray[np.int32] | None = None
    history: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.cabac_unary_length_minus1 <= MAX_UNARY_LENGTH_MINUS1:
            raise ValueError(f"cabac_unary_length_minus1 is {self.cabac_unary_length_minus1}, expected 0..255")
        if not 0 <= self.scan_order <= MAX_SCAN_ORDER:
            raise ValueError(f"scan_order is {self.scan_order}, expected 0..4")
        if not 0 <= self.codebook_zero_offset <= max(0, self.codebook_size - 1):
            raise ValueError(f"a codebook of {self.codebook_size} has no entry {self.codebook_zero_offset}")


@lru_cache(maxsize=256, typed=True)
def parameters_of(
    general_profile_idc: int,
    cabac_unary_length_minus1: int,
    dq_flag: bool,
    scan_order: int,
    parent_node_id_present_flag: bool = False,
    codebook_size: int = 0,
    codebook_zero_offset: int = 0,
) -> TensorParameters:
    """Parameters without arrays, which many tensors have in common. Raises ValueError as `TensorParameters`."""
    return TensorParameters(
        general_profile_idc,
        cabac_unary_length_minus1,
        dq_flag,
        scan_order,
        parent_node_id_present_flag,
        codebook_size,
        codebook_zero_offset,
    )


@dataclass(frozen=True, slots=True)
class TensorChoices:
    """What an encoder is free to choose for one tensor, and a decoder finds in the payload.

    A flag counts only where the syntax has it: ``row_skip_enabled_flag`` with ``general_profile_idc`` 1 and more than
    one row, column and codebook entry, ``hist_dep_sig_prob_enabled_flag`` with a parent in addition.

    ``shift_indices`` names the parameter set (0..8) of every context in flat order, 53 + 4 N + 31 of them with
    N = ``cabac_unary_length_minus1`` + 1; None stands for 0 everywhere. Those of contexts whose
    index the syntax does not transmit are ignored.
    """

    row_skip_enabled_flag: bool = False
    hist_dep_sig_prob_enabled_flag: bool = False
    shift_indices: tuple[int, ...] | None = None


class DecodedTensor(NamedTuple):
    """The integers of one tensor (int32, rows x width) and what its encoder chose."""

    levels: NDArray[np.int32]
    choices: TensorChoices
    entry_points: list[EntryPoint]
