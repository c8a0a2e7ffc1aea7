"""Numbers of our encoder, not the standard's: how it estimates bits, and chooses parameters of contexts by them."""

from __future__ import annotations

import math
from functools import cache
from typing import Final

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

In a tensor of at least ``LARGE`` elements fewer are enough: a worse choice costs as good as nothing there. At the start
of a row of blocks contexts start anew, and have met no bins."""

BANDS_FOLLOWED: Final = 64
BAND_FOLLOWED_EVERY: Final = 8
"""Of the rows of blocks of a large tensor an encoder follows one in 8, at least 64, which then count for all."""


@cache
def rates() -> tuple[tuple[int, int], ...]:
    """Cost of coding a 0 and a 1 from combined state q >> 3 = 0..511, in units of 2**-15 bit.

    For a negative state take entry ``min(-(q >> 3), 511)`` with the two costs exchanged.
    """
    unit = 1 << RATE_UNIT_BITS
    table = []
    for t in range(512):
        unlikely = unit + 400.79895 * (t + 0.5)
        likely = -unit * math.log2(1 - 2 ** (-unlikely / unit))
        table.append((math.floor(unlikely + 0.5), math.floor(likely + 0.5)))
    return tuple(table)
