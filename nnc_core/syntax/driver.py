"""What a syntax table may ask of a driver: the descriptors of ISO/IEC 15938-17."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Final, TypeVar

from nnc_core.errors import ElementValueError

Buffer = bytes | bytearray | memoryview

UE_PREFIX: Final = 32
"""The longest run of zero bits in front of an exponential-Golomb value."""
UNSIGNED: Final = range(1 << 32)
"""What ``ue(k)`` may hold where the semantics say nothing narrower."""
SIGNED: Final = range(-(1 << 31), 1 << 31)
"""What ``ie(k)`` may hold where the semantics say nothing narrower."""

T = TypeVar("T")


class Syntax(ABC):
    """One pass over syntax elements, in bitstream order.

    Every method takes the value that a writing driver shall write, and returns the value that the element has: the
    same one when writing, the one found when reading. ``valid`` holds the legal values; anything else is an
    `ElementValueError`. A syntax table is a function that calls these methods in the order of the standard's table.
    """

    @abstractmethod
    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``: an unsigned integer, most significant bit first."""

    @abstractmethod
    def i(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``i(bits)``: a two's complement integer, most significant bit first."""

    @abstractmethod
    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = UNSIGNED) -> int:
        """``ue(k)``: an unsigned integer in an exponential-Golomb code of order ``k``."""

    @abstractmethod
    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = SIGNED) -> int:
        """``ie(k)``: a signed integer, mapped onto ``ue(k)``."""

    @abstractmethod
    def flt(self, name: str, value: float = 0.0) -> float:
        """``flt(32)``: a binary32 number, least significant byte first, at any bit position."""

    @abstractmethod
    def st(self, name: str, value: str = "", longest: int = 4096) -> str:
        """``st(v)``: UTF-8 text of at most ``longest`` bytes and a zero byte, from a byte boundary on."""

    @abstractmethod
    def bs(self, name: str, value: Buffer = b"") -> Buffer:
        """``bs(v)``: bytes up to the end of the unit, from a byte boundary on."""

    @abstractmethod
    def byte_alignment(self) -> None:
        """``byte_alignment()``: a one, then zeros up to the next byte boundary; never empty."""

    def flag(self, name: str, value: bool = False) -> bool:
        """``u(1)`` as a truth value."""
        return bool(self.u(1, name, value))

    def reserved(self, bits: int, name: str) -> None:
        """``nnr_reserved_zero_...``: written as zero, ignored on reading."""
        self.u(bits, name)

    def illegal(self, name: str, message: str, expected: str | None = None) -> ElementValueError:
        """Make the error for values that are legal alone but not together; the caller raises it."""
        return ElementValueError(message, element=name, expected=expected)

    def expect(self, count: int, bits: int, name: str) -> None:  # noqa: B027
        """Announce ``count`` elements of at least ``bits`` bits, so that a reader can refuse what cannot follow."""


def padded(values: Iterable[T], count: int, default: T) -> Iterator[T]:
    """Yield ``count`` values to hand to a driver: the given ones when writing, ``default`` when there are none yet."""
    return islice(chain(values, repeat(default)), count)


def signed_to_unsigned(value: int) -> int:
    """Map a signed integer to the non-negative one that ``ie(k)`` codes: 0, 1, -1, 2, -2, ... to 0, 1, 2, 3, 4, ..."""
    return 2 * value - 1 if value > 0 else -2 * value


def unsigned_to_signed(value: int) -> int:
    """Invert `signed_to_unsigned`."""
    return (value + 1) // 2 if value & 1 else -(value // 2)


def described(valid: Sequence[int]) -> str:
    """Say which values are legal, for an error message."""
    if isinstance(valid, range) and len(valid) > 1:
        return f"{valid[0]}..{valid[-1]}"
    return ", ".join(map(str, valid)) or "no value at all"
