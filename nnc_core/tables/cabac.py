"""The numbers of the arithmetic coder and of dependent quantization (clauses 9 and 10).

The native code holds the same tables; a test compares them one by one.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final, NamedTuple

LPS: Final[tuple[tuple[int, ...], ...]] = (
    (
        128,
        112,
        97,
        84,
        74,
        65,
        57,
        50,
        45,
        39,
        34,
        30,
        27,
        23,
        20,
        18,
        15,
        14,
        12,
        11,
        10,
        9,
        7,
        7,
        5,
        5,
        4,
        4,
        3,
        3,
        2,
        2,
    ),
    (
        142,
        125,
        108,
        93,
        82,
        72,
        63,
        56,
        50,
        43,
        38,
        33,
        30,
        26,
        22,
        20,
        17,
        16,
        13,
        12,
        11,
        10,
        8,
        8,
        6,
        6,
        5,
        5,
        3,
        3,
        2,
        2,
    ),
    (
        156,
        137,
        119,
        103,
        90,
        79,
        70,
        61,
        55,
        48,
        42,
        37,
        33,
        28,
        24,
        22,
        19,
        17,
        15,
        13,
        12,
        11,
        9,
        9,
        6,
        6,
        5,
        5,
        4,
        4,
        2,
        2,
    ),
    (
        171,
        150,
        130,
        112,
        99,
        87,
        76,
        67,
        60,
        52,
        46,
        40,
        36,
        31,
        27,
        24,
        21,
        19,
        16,
        15,
        13,
        12,
        10,
        10,
        7,
        7,
        6,
        6,
        4,
        4,
        3,
        3,
    ),
    (
        185,
        162,
        141,
        121,
        107,
        94,
        82,
        73,
        65,
        56,
        50,
        43,
        39,
        34,
        29,
        26,
        22,
        21,
        17,
        16,
        14,
        13,
        11,
        11,
        8,
        8,
        6,
        6,
        4,
        4,
        3,
        3,
    ),
    (
        199,
        175,
        152,
        131,
        115,
        101,
        89,
        78,
        70,
        61,
        54,
        47,
        42,
        36,
        31,
        28,
        24,
        22,
        19,
        17,
        15,
        14,
        12,
        12,
        8,
        8,
        7,
        7,
        5,
        5,
        3,
        3,
    ),
    (
        213,
        187,
        163,
        140,
        123,
        108,
        95,
        84,
        75,
        65,
        58,
        50,
        45,
        39,
        33,
        30,
        26,
        24,
        20,
        18,
        16,
        15,
        13,
        13,
        9,
        9,
        7,
        7,
        5,
        5,
        3,
        3,
    ),
    (
        228,
        200,
        174,
        150,
        132,
        116,
        102,
        90,
        80,
        70,
        62,
        54,
        48,
        42,
        36,
        32,
        28,
        26,
        22,
        20,
        18,
        16,
        14,
        14,
        10,
        10,
        8,
        8,
        6,
        6,
        4,
        4,
    ),
)
"""Width of the least probable symbol, ``LPS[(range >> 5) & 7][probability index]``."""

STEP: Final[tuple[int, ...]] = (
    2512,
    2288,
    2064,
    1840,
    1616,
    1392,
    1168,
    944,
    720,
    560,
    464,
    368,
    272,
    208,
    144,
    80,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    64,
    0,
)
"""Adaptation of the estimators, indexed by 16 + the scaled state; shifted right by the context's rates."""


class ParameterSet(NamedTuple):
    """How fast a context adapts (shifts of its two estimators) and where it starts."""

    shift0: int
    shift1: int
    initial: int

    @property
    def s0(self) -> int:
        """Initial short-window estimator."""
        return (self.initial + 16) >> 5

    @property
    def s1(self) -> int:
        """Initial long-window estimator; 16 * s0 + s1 is the combined state."""
        return self.initial - 16 * self.s0


PARAMETER_SETS: Final[tuple[ParameterSet, ...]] = (
    ParameterSet(5, 4, 0),
    ParameterSet(5, 4, -1310),
    ParameterSet(5, 4, 3039),
    ParameterSet(4, 5, 0),
    ParameterSet(6, 6, 962),
    ParameterSet(6, 6, 3039),
    ParameterSet(6, 6, -673),
    ParameterSet(7, 5, 0),
    ParameterSet(7, 5, 962),
)
"""Meaning of a shift index: 0 is the default of every context, 1..8 are signalled as ``shift_idx_minus_1`` + 1."""

NEXT_STATE: Final[tuple[tuple[int, int], ...]] = ((0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6))
"""State machine of dependent quantization: ``NEXT_STATE[state][parity of the coded index]``."""

X2_CONTEXTS: Final = 31
"""Contexts of ``abs_level_greater_x2``, that is the longest prefix of a remainder."""

RATE_UNIT_BITS: Final = 15
"""Rates are counted in units of 2**-15 bit."""

SHIFT_INDEX_RATE: Final = 3 << RATE_UNIT_BITS
"""What an encoder charges for signalling a shift index other than 0."""

SHIFT_DOUBT: Final = 64
SHIFT_DOUBT_ELEMENTS: Final = 1024
"""An encoder's estimate of all that a tensor takes errs by less than one part in so many, which can only be worth a
second coding in tensors of at most so many elements."""

BINS_UNTIL_MET: Final = 512
"""How many bins an encoder follows estimators that differ in their start only; see the next two."""

SHORT_WINDOW_MEETS: Final = (0, 0, 0, 3, 4, 4, 4, 7, 8)
LONG_WINDOW_MEETS: Final = (0, 0, 0, 3, 4, 4, 4, 3, 3)
"""Which parameter set's estimator stands for that of each set from then on (7 and 8 keep apart in the short window)."""

BINS_UNTIL_SAMPLED: Final = 24576
BINS_UNTIL_SAMPLED_IN_LARGE: Final = 2048
LARGE: Final = 1 << 17
SAMPLED_RUN: Final = 256
SAMPLED_EVERY: Final = 8
"""Of a context that has met so many bins an encoder follows one run of 256 elements in 8, which then counts for all.

In a tensor of at least ``LARGE`` elements fewer are enough: a worse choice costs as good as nothing there. Where there
are several rows of blocks, at the start of which contexts start anew, a run is one of these."""


@cache
def rates() -> tuple[tuple[int, int], ...]:
    """Cost of coding a 0 and a 1 from combined state q >> 3 = 0..511, in units of 2**-15 bit (encoder only).

    For a negative state take entry ``min(-(q >> 3), 511)`` with the two costs exchanged.
    """
    unit = 1 << RATE_UNIT_BITS
    table = []
    for t in range(512):
        unlikely = unit + 400.79895 * (t + 0.5)
        likely = -unit * math.log2(1 - 2 ** (-unlikely / unit))
        table.append((math.floor(unlikely + 0.5), math.floor(likely + 0.5)))
    return tuple(table)
