"""The descriptors of clause 6.1: how syntax elements are read from bits, the most significant first."""

from __future__ import annotations

import struct

from .errors import InvalidError

_LONGEST_PREFIX = 32


class BitReader:
    """Reads syntax elements from ``data``; reading beyond its end is an error."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    @property
    def left(self) -> int:
        """How many bits are left."""
        return 8 * len(self.data) - self.position

    def u(self, bits: int) -> int:
        """``u(n)``: an unsigned integer."""
        if bits > self.left:
            raise InvalidError("a syntax element goes beyond the end of its unit")
        first, end = self.position, self.position + bits
        chunk = self.data[first >> 3 : (end + 7) >> 3]
        self.position = end
        return (int.from_bytes(chunk, "big") >> (-end % 8)) & ((1 << bits) - 1)

    def flag(self) -> bool:
        """``u(1)``."""
        return self.u(1) == 1

    def i(self, bits: int) -> int:
        """``i(n)``: a signed integer, two's complement."""
        value = self.u(bits)
        return value - (1 << bits) if value >> (bits - 1) else value

    def ue(self, k: int) -> int:
        """``ue(k)``: an exponential-Golomb code of order k."""
        base, prefix = 0, 0
        while not self.flag():
            base, k, prefix = base + (1 << k), k + 1, prefix + 1
            if prefix > _LONGEST_PREFIX:
                raise InvalidError("an exponential-Golomb code has more than 32 zeros in front")
        return base + self.u(k)

    def ie(self, k: int) -> int:
        """``ie(k)``: a signed integer by ``ue(k)``; 1, -1, 2, -2 ... are coded as 1, 2, 3, 4 ..."""
        value = self.ue(k)
        return (value + 1) // 2 if value % 2 else -(value // 2)

    def flt(self) -> float:
        """``flt(32)``: binary32, the least significant byte first."""
        value: float = struct.unpack("<f", self.u(32).to_bytes(4, "big"))[0]
        return value

    def st(self) -> str:
        """``st(v)``: UTF-8 text and a zero byte, on whole bytes."""
        if self.position % 8:
            raise InvalidError("a text does not begin with a byte")
        start = self.position // 8
        end = self.data.find(b"\0", start)
        if end < 0:
            raise InvalidError("a text has no end")
        self.position = 8 * (end + 1)
        try:
            return self.data[start:end].decode()
        except UnicodeDecodeError:
            raise InvalidError("a text is not UTF-8") from None

    def byte_alignment(self) -> None:
        """``byte_alignment()``: a one, then zeros up to the next byte."""
        if not self.flag() or self.u(-self.position % 8):
            raise InvalidError("byte_alignment() is not a one and zeros")

    def rest(self) -> bytes:
        """``bs(v)``: all bytes that are left."""
        rest = self.data[self.position // 8 :]
        self.position = 8 * len(self.data)
        return rest

    def plausible(self, count: int, bits: int) -> int:
        """``count``, if so many items of at least ``bits`` bits can follow."""
        if count * bits > self.left:
            raise InvalidError("a count is larger than what the unit has room for")
        return count
