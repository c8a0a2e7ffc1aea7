"""The arithmetic decoder of clause 10.3: bins with adaptive contexts, and bins of equal chances."""

from __future__ import annotations

from .errors import InvalidError
from .tables import LPS, PARAMETER_SETS, STEP

Context = list[int]
"""s0, s1, and the shifts of both: the fast and the slow estimate of how likely a one is."""


def new_context(shift_index: int = 0) -> Context:
    """``init_prob_est_param()``: a context as its parameter set has it at the start."""
    a, c, s0, s1 = PARAMETER_SETS[shift_index]
    return [s0, s1, a + 4, c]


class ArithmeticDecoder:
    """``ivl_curr_range`` and ``ivl_offset`` are the registers of the standard; ``position`` counts the bits read."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.size = 8 * len(payload)
        self.ivl_curr_range = 510
        self.ivl_offset = 0
        self.position = 0
        for _ in range(9):
            self.ivl_offset = 2 * self.ivl_offset + self.next_bit()
        if self.ivl_offset >= self.ivl_curr_range:
            raise InvalidError("the codeword begins with an offset that no encoder writes")

    def next_bit(self) -> int:
        """The next bit of the payload."""
        position = self.position
        if position >= self.size:
            raise InvalidError("the codeword goes beyond the end of the unit")
        self.position = position + 1
        return (self.payload[position >> 3] >> (7 - (position & 7))) & 1

    def ae(self, context: Context) -> int:
        """``ae(v)``: a bin that is coded with a context, which learns from it."""
        s0, s1, shift0, shift1 = context
        state = 16 * s0 + s1
        lps = LPS[(self.ivl_curr_range >> 5) & 7][abs(state >> 7)]
        mps = self.ivl_curr_range - lps
        if self.ivl_offset < mps:
            value = state >= 0
            self.ivl_curr_range = mps
        else:
            value = state < 0
            self.ivl_offset -= mps
            self.ivl_curr_range = lps
        while self.ivl_curr_range < 256:
            self.ivl_curr_range *= 2
            self.ivl_offset = 2 * self.ivl_offset + self.next_bit()
        if value:
            context[0] = s0 + (STEP[16 + (s0 >> 3)] >> shift0)
            context[1] = s1 + (STEP[16 + (s1 >> 7)] >> shift1)
            return 1
        context[0] = s0 - (STEP[16 + (-s0 >> 3)] >> shift0)
        context[1] = s1 - (STEP[16 + (-s1 >> 7)] >> shift1)
        return 0

    def bypass(self) -> int:
        """A bin whose values have equal chances."""
        self.ivl_offset = 2 * self.ivl_offset + self.next_bit()
        if self.ivl_offset < self.ivl_curr_range:
            return 0
        self.ivl_offset -= self.ivl_curr_range
        return 1

    def uae(self, bits: int) -> int:
        """``uae(n)``: an unsigned integer of n bypass bins."""
        value = 0
        for _ in range(bits):
            value = 2 * value + self.bypass()
        return value

    def iae(self, bits: int) -> int:
        """``iae(n)``: a signed integer of n bypass bins, two's complement."""
        value = self.uae(bits)
        return value - (1 << bits) if value >> (bits - 1) else value

    def terminate(self) -> None:
        """The terminating bin, the stop bit, and zeros that fill the last byte of the payload."""
        self.ivl_curr_range -= 2
        if self.ivl_offset < self.ivl_curr_range:
            raise InvalidError("the codeword does not end with the last tensor")
        last = self.position - 1
        tail = self.payload[last >> 3 :]
        if len(tail) != 1 or (tail[0] << (last & 7)) & 0xFF != 0x80:
            raise InvalidError("the codeword does not end with a stop bit and zeros at the end of the unit")
