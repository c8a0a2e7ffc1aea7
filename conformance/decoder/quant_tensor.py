"""``quant_tensor()``, clause 10.2: the integers of one tensor, rows x width, from the arithmetic decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cabac import ArithmeticDecoder, Context, new_context
from .errors import InvalidError
from .tables import STATE_TRANSITIONS

_X2 = 31
_LARGEST = (1 << 31) - 1


@dataclass
class TensorParameters:
    """What the headers say about a tensor, and what the updates before left of it."""

    rows: int
    width: int
    general_profile_idc: int
    dq_flag: bool
    scan_order: int
    cabac_unary_length_minus1: int
    codebook_size: int = 0
    codebook_zero_offset: int = 0
    parent_node_id_present_flag: bool = False
    base: NDArray[np.int32] | None = None
    history: NDArray[np.uint8] | None = None

    @property
    def flags_present(self) -> bool:
        """Whether row skipping, and with a parent the history, can be used."""
        return self.general_profile_idc == 1 and self.rows > 1 and self.width > 1 and self.codebook_size != 1


def quant_tensor(d: ArithmeticDecoder, p: TensorParameters) -> NDArray[np.int32]:
    """The integers; with dependent quantization multiples of the step, with a codebook relative to its zero."""
    shift_context, skip_context = new_context(), new_context()
    hist_dep_sig_prob_enabled_flag = p.flags_present and p.parent_node_id_present_flag and d.bypass() == 1
    row_skip_enabled_flag = p.flags_present and d.bypass() == 1
    row_skip_list = [row_skip_enabled_flag and d.ae(skip_context) == 1 for _ in range(p.rows)]
    contexts = Contexts(d, p, shift_context, hist_dep_sig_prob_enabled_flag)
    return _levels(d, p, contexts, row_skip_list, hist_dep_sig_prob_enabled_flag)


class Contexts:
    """The contexts of a tensor, by the syntax element that they serve; each starts with its ``shift_idx``."""

    def __init__(self, d: ArithmeticDecoder, p: TensorParameters, shift_context: Context, history: bool) -> None:
        n, states = p.cabac_unary_length_minus1 + 1, 8 if p.dq_flag else 1
        size, zero = p.codebook_size, p.codebook_zero_offset
        largest = max(zero, size - 1 - zero) if size else 1 << 40
        one_sided = size > 0 and zero in (0, size - 1)
        temporal = p.base is not None

        def shift_indices(count: int, present: int) -> list[int]:
            """``shift_parameter_ids()``: of ``count`` contexts the first ``present`` have an index in the bitstream."""
            return [_shift_index(d, shift_context) if i < present else 0 for i in range(count)]

        sig = 0 if size == 1 else 1 << 40
        sign = 0 if one_sided else 1 << 40
        self._start = {
            "sig": shift_indices(3 * states, sig),
            "sig_tca": shift_indices(2 * states, sig if temporal else 0),
            "sig_hist": shift_indices(states, sig if history else 0),
            "sign": shift_indices(3, sign),
            "sign_tca": shift_indices(2, sign if temporal else 0),
            "greater_x": shift_indices(2 * n, 2 * largest),
            "greater_x_tca": shift_indices(2 * n, 2 * (largest - 1) if temporal else 0),
            "greater_x2": [_shift_index(d, shift_context) if n + (2 << i) - 2 < largest else 0 for i in range(_X2)],
        }
        self.reset()

    def reset(self) -> None:
        """Start all contexts anew, as at an entry point."""
        contexts = {name: [new_context(index) for index in indices] for name, indices in self._start.items()}
        self.sig, self.sig_tca, self.sig_hist = contexts["sig"], contexts["sig_tca"], contexts["sig_hist"]
        self.sign, self.sign_tca = contexts["sign"], contexts["sign_tca"]
        self.greater_x, self.greater_x_tca = contexts["greater_x"], contexts["greater_x_tca"]
        self.greater_x2 = contexts["greater_x2"]


def _shift_index(d: ArithmeticDecoder, context: Context) -> int:
    """``shift_idx_minus_1_present_flag``, ``shift_idx_minus_1``."""
    return 1 + d.uae(3) if d.ae(context) else 0


def _levels(
    d: ArithmeticDecoder, p: TensorParameters, contexts: Contexts, row_skip_list: list[bool], history: bool
) -> NDArray[np.int32]:
    levels = np.zeros((p.rows, p.width), np.int32)
    base = p.base.tolist() if p.base is not None else None
    marks = p.history.tolist() if history and p.history is not None else None
    state = previous = 0
    for y, first, last in segments(d, p, contexts):
        if first < 0:  # a row of blocks begins
            previous = 0
            continue
        if row_skip_list[y]:
            for _ in range((last - first) % 4 if p.dq_flag else 0):  # four zeros lead back to the same state
                state = STATE_TRANSITIONS[state][0]
            continue
        row = []
        for x in range(first, last):
            neighbour = base[y][x] if base else 0
            marked = marks[y][x] if marks else 0
            k = int_param(d, p, contexts, state, previous, neighbour, marked)
            previous = k
            row.append(2 * k - (state & 1) * ((k > 0) - (k < 0)) if p.dq_flag else k)
            if p.dq_flag:
                state = STATE_TRANSITIONS[state][k & 1]
        if row and not -_LARGEST <= min(row) <= max(row) <= _LARGEST:
            raise InvalidError("a level is beyond 32 bits")
        levels[y, first:last] = row
    return levels


def segments(d: ArithmeticDecoder, p: TensorParameters, contexts: Contexts) -> Iterator[tuple[int, int, int]]:
    """The parts of rows in coding order, as row, first and last column; first is -1 where a row of blocks begins."""
    if p.scan_order == 0 or p.rows == 1 or p.width == 1:
        yield from ((y, 0, p.width) for y in range(p.rows))
        return
    size = 4 << p.scan_order
    for top in range(0, p.rows, size):
        if p.rows > size:
            d.ivl_curr_range = 256
            _check_offset(d)
        if top > 0:
            contexts.reset()
            yield top, -1, -1
        for left in range(0, p.width, size):
            yield from ((y, left, min(left + size, p.width)) for y in range(top, min(top + size, p.rows)))


def _check_offset(d: ArithmeticDecoder) -> None:
    if d.ivl_offset >= 256:
        raise InvalidError("the offset at an entry point is beyond the range")


def int_param(
    d: ArithmeticDecoder,
    p: TensorParameters,
    contexts: Contexts,
    state: int,
    previous: int,
    base: int,
    marked: int,
) -> int:
    """``int_param()``: one integer, as significance, sign, and magnitude."""
    size, zero = p.codebook_size, p.codebook_zero_offset
    if size == 1 or not d.ae(_sig_context(contexts, state, previous, base, marked)):
        return 0
    if size and zero == 0:
        sign_flag = 0
    elif size and zero == size - 1:
        sign_flag = 1
    else:
        sign_flag = d.ae(_sign_context(contexts, previous, base))
    largest = (zero if sign_flag else size - 1 - zero) if size else 1 << 40
    magnitude = _magnitude(d, p.cabac_unary_length_minus1 + 1, contexts, sign_flag, base, largest)
    return -magnitude if sign_flag else magnitude


def _sig_context(contexts: Contexts, state: int, previous: int, base: int, marked: int) -> Context:
    if marked:
        return contexts.sig_hist[state]
    if base:
        return contexts.sig_tca[2 * state + (abs(base) > 1)]
    return contexts.sig[3 * state + _sign_class(previous)]


def _sign_context(contexts: Contexts, previous: int, base: int) -> Context:
    return contexts.sign_tca[base > 0] if base else contexts.sign[_sign_class(previous)]


def _sign_class(value: int) -> int:
    return 0 if value == 0 else 1 if value < 0 else 2


def _magnitude(d: ArithmeticDecoder, n: int, contexts: Contexts, sign_flag: int, base: int, largest: int) -> int:
    """``abs_level_greater_x``, ``abs_level_greater_x2`` and ``abs_remainder``."""
    magnitude, j = 1, 0
    while magnitude < largest and j < n:
        context = contexts.greater_x_tca[2 * j + (abs(base) < j)] if base else contexts.greater_x[2 * j + sign_flag]
        if not d.ae(context):
            return magnitude
        magnitude, j = magnitude + 1, j + 1
    if magnitude >= largest:
        return magnitude
    bits = 0
    while bits == 0 or (bits < _X2 and magnitude + (1 << bits) <= largest):
        if not d.ae(contexts.greater_x2[bits]):
            break
        magnitude, bits = magnitude + (1 << bits), bits + 1
    return magnitude + d.uae(bits)
