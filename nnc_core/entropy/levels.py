"""The integers of one tensor as bins (clause 10): scan, dependent quantization, binarization.

Written once for both directions, see `Bins`: what is given is coded, what comes back counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnc_core.entropy.contexts import Layout, index_range, uses_base
from nnc_core.entropy.engine import Bins
from nnc_core.entropy.parameters import TensorParameters
from nnc_core.entropy.scan import segments
from nnc_core.errors import PayloadError
from nnc_core.tables.cabac import NEXT_STATE, X2_CONTEXTS

MAX_MAGNITUDE = 2**31 - 1


def sign(value: int) -> int:
    """-1, 0 or 1."""
    return (value > 0) - (value < 0)


def expand(index: int, dq_state: int) -> int:
    """The multiple of the step size that a coded index stands for in a state of dependent quantization."""
    return 2 * index - sign(index) * (dq_state & 1)


def collapse(level: int, dq_state: int) -> int:
    """The inverse of `expand`. Raises ValueError for a multiple that the state's quantizer does not have."""
    doubled = level + sign(level) * (dq_state & 1)
    if doubled % 2:
        raise ValueError(f"{level} is not a level of dependent quantization in state {dq_state}")
    return doubled // 2


class LevelCoder:
    """Codes the integers of one tensor, after everything that precedes them."""

    def __init__(
        self,
        bins: Bins,
        parameters: TensorParameters,
        *,
        hist_flag: bool,
        row_skip_list: Sequence[bool],
        shift_indices: Sequence[int],
    ) -> None:
        self._bins = bins
        self._dq_flag = parameters.dq_flag
        self._scan_order = parameters.scan_order
        self._base = parameters.base if uses_base(parameters) else None
        self._history = parameters.history if hist_flag else None
        self._layout = Layout(parameters.cabac_unary_length_minus1 + 1)
        self._lowest, self._highest = index_range(parameters)
        self._row_skip_list = row_skip_list
        self._shift_indices = shift_indices
        self._dq_state = 0
        self._neighbour = 0

    def code(self, levels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Code all `levels` (rows x width) and return them; a decoder looks only at the shape it is given."""
        coded = np.zeros_like(levels)
        rows, width = levels.shape
        for row, columns, band in segments(rows, width, self._scan_order):
            self._bins.check()
            if band is not None:
                self._start_band(band)
            if self._row_skip_list[row]:
                self._skip(len(columns))
            else:
                for column in columns:
                    coded[row, column] = self._element(int(levels[row, column]), row, column)
        self._bins.check()
        return coded

    def _start_band(self, band: int) -> None:
        if band > 0:
            self._bins.start_contexts(self._shift_indices)
            self._neighbour = 0
        self._bins.start_band(self._dq_state)

    def _skip(self, count: int) -> None:
        # Each skipped zero moves the state; four of them lead back to where they started, from every state.
        for _ in range(count % 4):
            self._advance(0)

    def _advance(self, index: int) -> None:
        if self._dq_flag:
            self._dq_state = NEXT_STATE[self._dq_state][index & 1]

    def _element(self, level: int, row: int, column: int) -> int:
        self._bins.start_element()
        base = int(self._base[row, column]) if self._base is not None else 0
        marked = bool(self._history[row, column]) if self._history is not None else False
        index = collapse(level, self._dq_state) if self._dq_flag else level
        index = self._index(index, base, marked)
        level = expand(index, self._dq_state) if self._dq_flag else index
        if abs(level) > MAX_MAGNITUDE:
            raise PayloadError(f"a level of {level} in row {row}, column {column}", expected="31 bits at most")
        self._neighbour = index
        self._advance(index)
        return level

    def _index(self, index: int, base: int, marked: bool) -> int:
        """Code one index, which must lie in the codebook if there is one."""
        if not self._lowest <= index <= self._highest:
            raise ValueError(f"index {index} is outside the codebook, {self._lowest}..{self._highest}")
        index = self._sig_flag_and_more(index, base, marked)
        if not self._lowest <= index <= self._highest:
            raise PayloadError(f"index {index} is outside the codebook", expected=f"{self._lowest}..{self._highest}")
        return index

    def _sig_flag_and_more(self, index: int, base: int, marked: bool) -> int:
        if self._lowest == self._highest:
            return 0
        context = self._layout.sig_flag(self._dq_state, self._neighbour, base, marked)
        if not self._bins.bin(context, index != 0):
            return 0
        negative = self._sign_flag(index < 0, base)
        magnitude = self._magnitude(abs(index), negative, base)
        return -magnitude if negative else magnitude

    def _sign_flag(self, negative: bool, base: int) -> bool:
        if self._lowest == 0 or self._highest == 0:
            return self._highest == 0
        return self._bins.bin(self._layout.sign_flag(self._neighbour, base), negative)

    def _magnitude(self, target: int, negative: bool, base: int) -> int:
        """abs_level_greater_x for as long as they can be 1, then the remainder."""
        maximum = -self._lowest if negative else self._highest
        magnitude = 1
        for j in range(self._layout.unary_length):
            if magnitude == maximum:
                return magnitude
            if not self._bins.bin(self._layout.greater_x(j, negative, base), target > magnitude):
                return magnitude
            magnitude += 1
        return magnitude + self._remainder(target - magnitude, maximum - magnitude)

    def _remainder(self, target: int, maximum: int) -> int:
        """Exp-Golomb code of order 0; its prefix has contexts and ends early where a longer one cannot occur."""
        start = bits = 0
        while bits < X2_CONTEXTS and start + (1 << bits) <= maximum:
            if not self._bins.bin(self._layout.greater_x2(bits), target >= start + (1 << bits)):
                break
            start += 1 << bits
            bits += 1
        return start + self._bins.bypass(target - start, bits)
