"""``integer_codebook()``: the table, and the way between it and the codebook's values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ElementValueError
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.syntax.driver import SIGNED, Syntax, padded
from nnc_core.syntax.writer import Sizer

EGK = range(16)


@dataclass(slots=True)
class IntegerCodebook:
    """``integer_codebook()``; the differences stand in coded order, from the zero entry outwards."""

    codebook_egk: int = 0
    codebook_size: int = 1
    codebook_centre_offset: int = 0
    codebook_zero_value: int = 0
    codebook_delta_left: tuple[int, ...] = ()
    codebook_delta_right: tuple[int, ...] = ()

    @property
    def zero_offset(self) -> int:
        """CbZeroOffset: the index of the entry that the coded integer 0 selects."""
        return (self.codebook_size >> 1) + self.codebook_centre_offset

    def values(self) -> NDArray[np.int32]:
        """The codebook: strictly increasing integers, int32, shape (codebook_size,)."""
        left = np.cumsum(np.array(self.codebook_delta_left, np.int64) + 1)
        right = np.cumsum(np.array(self.codebook_delta_right, np.int64) + 1)
        zero = self.codebook_zero_value
        return np.concatenate([zero - left[::-1], [zero], zero + right]).astype(np.int32)

    @classmethod
    def from_values(
        cls, values: Sequence[int] | NDArray[np.int32], zero_offset: int, codebook_egk: int | None = None
    ) -> IntegerCodebook:
        """Describe the strictly increasing integers ``values`` in the cheapest order or this one.

        ``zero_offset`` is the index of the entry that the coded integer 0 selects; `ElementValueError` if it is none,
        or if the values are not strictly increasing.
        """
        entries = [int(value) for value in values]
        if not 0 <= zero_offset < len(entries):
            raise ElementValueError(f"no entry {zero_offset}", element="codebook_centre_offset")
        steps = [after - before - 1 for before, after in pairwise(entries)]
        codebook = cls(
            codebook_size=len(entries),
            codebook_centre_offset=zero_offset - (len(entries) >> 1),
            codebook_zero_value=entries[zero_offset],
            codebook_delta_left=tuple(steps[:zero_offset][::-1]),
            codebook_delta_right=tuple(steps[zero_offset:]),
        )
        orders = EGK if codebook_egk is None else (codebook_egk,)
        return min((replace(codebook, codebook_egk=egk) for egk in orders), key=codebook_bits)


def codebook_bits(codebook: IntegerCodebook) -> int:
    """The number of bits that ``integer_codebook()`` takes."""
    sizer = Sizer()
    integer_codebook(sizer, codebook)
    return sizer.bits


def integer_codebook(s: Syntax, c: IntegerCodebook, limits: Limits | None = None) -> None:
    """``integer_codebook()``, with ``limits.codebook_size`` entries at most."""
    c.codebook_egk = s.u(4, "codebook_egk", c.codebook_egk, EGK)
    c.codebook_size = s.ue(2, "codebook_size", c.codebook_size, range(1, 1 << 32))
    (limits or Limits()).check("codebook_size", c.codebook_size, "codebook_size")
    half = c.codebook_size >> 1
    offsets = range(-half, c.codebook_size - half)
    c.codebook_centre_offset = s.ie(2, "codebook_centre_offset", c.codebook_centre_offset, offsets)
    c.codebook_zero_value = s.ie(7, "codebook_zero_value", c.codebook_zero_value, SIGNED)
    s.expect(c.codebook_size - 1, c.codebook_egk + 1, "codebook_size")
    room = c.codebook_zero_value - SIGNED[0]
    left = range(c.zero_offset - 1, -1, -1)
    c.codebook_delta_left = _deltas(s, "codebook_delta_left", c.codebook_egk, c.codebook_delta_left, left, room)
    room = SIGNED[-1] - c.codebook_zero_value
    right = range(c.zero_offset + 1, c.codebook_size)
    c.codebook_delta_right = _deltas(s, "codebook_delta_right", c.codebook_egk, c.codebook_delta_right, right, room)


def _deltas(s: Syntax, name: str, egk: int, given: tuple[int, ...], places: range, room: int) -> tuple[int, ...]:
    """Code the differences at ``places``; all entries stay within int32, from which the first is ``room`` away."""
    deltas = []
    for j, value in zip(places, padded(given, len(places), 0), strict=True):
        deltas.append(s.ue(egk, f"{name}[{j}]", value, range(room)))
        room -= deltas[-1] + 1
    return tuple(deltas)
