"""Adaptive probability models: how one learns, which one a bin uses, which ones have a signalled start (clause 10)."""

from __future__ import annotations

from collections.abc import Iterator

from nnc_core.entropy.parameters import TensorParameters
from nnc_core.records import dataclass
from nnc_core.tables.cabac import LPS, PARAMETER_SETS, STEP, X2_CONTEXTS
from nnc_core.tables.estimates import rates


class Context:
    """One adaptive model: a fast and a slow estimate of how likely a 1 is."""

    __slots__ = ("s0", "s1", "shift0", "shift1")

    def __init__(self, shift_index: int = 0) -> None:
        start = PARAMETER_SETS[shift_index]
        self.s0, self.s1 = start.s0, start.s1
        self.shift0, self.shift1 = start.shift0, start.shift1

    @property
    def state(self) -> int:
        """Both estimates in one number; positive where a 1 is likely."""
        return 16 * self.s0 + self.s1

    @property
    def mps(self) -> bool:
        """The most probable symbol."""
        return self.state >= 0

    def lps_width(self, interval: int) -> int:
        """Share of the coding interval that belongs to the least probable symbol."""
        return LPS[(interval >> 5) & 7][abs(self.state >> 7)]

    def bits(self, value: bool) -> int:
        """About how much coding a bin takes, in units of 2**-15 bit."""
        t = self.state >> 3
        return rates()[t][value] if t >= 0 else rates()[min(-t, 511)][not value]

    def update(self, value: bool) -> None:
        """Learn from a coded bin."""
        sign = 1 if value else -1
        self.s0 += sign * (STEP[16 + ((sign * self.s0) >> 3)] >> self.shift0)
        self.s1 += sign * (STEP[16 + ((sign * self.s1) >> 7)] >> self.shift1)


SIG = 0
SIG_TCA = 24
SIG_HIST = 40
SIGN = 48
SIGN_TCA = 51
GTX = 53


@dataclass(frozen=True, slots=True)
class Layout:
    """The contexts of one tensor in flat order, with ``unary_length`` flags of the kind greater_x."""

    unary_length: int

    @property
    def gtx_tca(self) -> int:
        """First context of abs_level_greater_x next to a base value."""
        return GTX + 2 * self.unary_length

    @property
    def x2(self) -> int:
        """First context of abs_level_greater_x2."""
        return GTX + 4 * self.unary_length

    @property
    def size(self) -> int:
        """How many contexts can have a shift index."""
        return self.x2 + X2_CONTEXTS

    @property
    def shift(self) -> int:
        """The context of shift_idx_minus_1_present_flag."""
        return self.size

    @property
    def row_skip(self) -> int:
        """The context of row_skip_list."""
        return self.size + 1

    def sig_flag(self, dq_state: int, neighbour: int, base: int, marked: bool) -> int:
        """Context of sig_flag; `marked` says that the history has a 1 here."""
        if marked:
            return SIG_HIST + dq_state
        if base != 0:
            return SIG_TCA + 2 * dq_state + (abs(base) > 1)
        return SIG + 3 * dq_state + _sign_class(neighbour)

    def sign_flag(self, neighbour: int, base: int) -> int:
        """Context of sign_flag."""
        if base != 0:
            return SIGN_TCA + (base > 0)
        return SIGN + _sign_class(neighbour)

    def greater_x(self, j: int, negative: bool, base: int) -> int:
        """Context of abs_level_greater_x[j]."""
        if base != 0:
            return self.gtx_tca + 2 * j + (abs(base) < j)
        return GTX + 2 * j + negative

    def greater_x2(self, j: int) -> int:
        """Context of abs_level_greater_x2[j]."""
        return self.x2 + j


def _sign_class(neighbour: int) -> int:
    return 0 if neighbour == 0 else 1 if neighbour < 0 else 2


@dataclass(frozen=True, slots=True)
class Codebook:
    """The range of indices of a codebook, relative to its zero; they are binarized within it."""

    size: int
    zero_offset: int

    @property
    def lowest(self) -> int:
        """The most negative index."""
        return -self.zero_offset

    @property
    def highest(self) -> int:
        """The largest index."""
        return self.size - 1 - self.zero_offset

    @property
    def largest_magnitude(self) -> int:
        """The largest absolute value of an index."""
        return max(self.zero_offset, self.highest)

    @property
    def one_sided(self) -> bool:
        """Whether all indices other than zero have the same sign."""
        return self.lowest == 0 or self.highest == 0


def effective_codebook(parameters: TensorParameters) -> Codebook | None:
    """The codebook that limits the binarization; the base tool set has none."""
    if parameters.general_profile_idc == 0 or parameters.codebook_size == 0:
        return None
    return Codebook(parameters.codebook_size, parameters.codebook_zero_offset)


UNLIMITED = 1 << 40


def index_range(parameters: TensorParameters) -> tuple[int, int]:
    """The lowest and highest index that the binarization provides for; without a codebook it has no limit."""
    book = effective_codebook(parameters)
    return (book.lowest, book.highest) if book else (-UNLIMITED, UNLIMITED)


def uses_base(parameters: TensorParameters) -> bool:
    """Whether temporal contexts are in use."""
    return parameters.general_profile_idc == 1 and parameters.base is not None


def signalled(parameters: TensorParameters, hist_flag: bool) -> Iterator[int]:
    """The contexts whose shift index is transmitted, in the order of the syntax."""
    book = effective_codebook(parameters)
    for first, count, limit in _groups(parameters, hist_flag, book):
        yield from range(first, first + min(count, limit))
    layout = Layout(parameters.cabac_unary_length_minus1 + 1)
    for j in range(X2_CONTEXTS):
        if book is None or layout.unary_length + (2 << j) - 2 < book.largest_magnitude:
            yield layout.greater_x2(j)


def _groups(parameters: TensorParameters, hist_flag: bool, book: Codebook | None) -> Iterator[tuple[int, int, int]]:
    """First context, size and number of transmitted indices of every group before greater_x2."""
    layout = Layout(parameters.cabac_unary_length_minus1 + 1)
    states = 8 if parameters.dq_flag else 1
    tca = uses_base(parameters)
    sig = 0 if book and book.size == 1 else 24
    sign = 0 if book and (book.size == 1 or book.one_sided) else 3
    gtx = 2 * book.largest_magnitude if book else 2 * layout.unary_length
    # The standard is not symmetric here: temporal contexts get one pair less than the others.
    gtx_tca = max(0, 2 * (book.largest_magnitude - 1)) if book else 2 * layout.unary_length

    yield SIG, 3 * states, sig
    if tca:
        yield SIG_TCA, 2 * states, sig
    if hist_flag:
        yield SIG_HIST, states, sig
    yield SIGN, 3, sign
    if tca:
        yield SIGN_TCA, 2, sign
    yield GTX, 2 * layout.unary_length, gtx
    if tca:
        yield layout.gtx_tca, 2 * layout.unary_length, gtx_tca
