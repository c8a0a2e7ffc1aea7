"""The drivers that read: `Reader`, and `Tracer`, which also takes notes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from nnc_core.errors import AlignmentError, BitstreamError, ElementValueError, LimitError, TruncatedError, UnitSizeError
from nnc_core.limits import Limits
from nnc_core.syntax.driver import SIGNED, UE_PREFIX, UNSIGNED, Buffer, Syntax, described, unsigned_to_signed

_LONGEST = Limits().name_length
T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=BitstreamError)


class Reader(Syntax):
    """Reads the syntax elements of one NNR unit, which starts at byte ``start`` of ``data`` and ends before ``end``.

    ``unit`` is the unit's index, for error messages; bit offsets in them count from ``start``. Nothing is copied but
    the bytes of the element in hand.
    """

    def __init__(self, data: Buffer, start: int = 0, end: int | None = None, *, unit: int | None = None) -> None:
        self._data = memoryview(data)
        self._start = start * 8
        self._end = (len(self._data) if end is None else end) * 8
        self._bit = self._start
        self.unit = unit

    @property
    def bit_offset(self) -> int:
        """The number of bits read so far."""
        return self._bit - self._start

    @property
    def byte_position(self) -> int:
        """Where in the data the next byte is; `AlignmentError` inside a byte."""
        self._require_alignment("payload")
        return self._bit >> 3

    def narrow(self, size: int) -> None:
        """Let the unit end after ``size`` bytes; `UnitSizeError` if it has more already, or the data have less."""
        if size * 8 <= self.bit_offset:
            message = f"a unit of {size} bytes cannot hold its own header"
            raise self._error(UnitSizeError, message, "nnr_unit_size", self._start)
        if size * 8 > self._end - self._start:
            message = f"a unit of {size} bytes, but {(self._end - self._start) // 8} are left"
            raise self._error(TruncatedError, message, "nnr_unit_size", self._start)
        self._end = self._start + size * 8

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``."""
        at = self._bit
        value = self._take(bits, name)
        if valid is not None and value not in valid:
            raise self._illegal(name, value, valid, at)
        return value

    def i(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``i(bits)``."""
        at = self._bit
        value = self._take(bits, name)
        value -= (value >> (bits - 1)) << bits
        if valid is not None and value not in valid:
            raise self._illegal(name, value, valid, at)
        return value

    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = UNSIGNED) -> int:
        """``ue(k)``."""
        at = self._bit
        value = self._golomb(k, name)
        if value not in valid:
            raise self._illegal(name, value, valid, at)
        return value

    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = SIGNED) -> int:
        """``ie(k)``."""
        at = self._bit
        value = unsigned_to_signed(self._golomb(k, name))
        if value not in valid:
            raise self._illegal(name, value, valid, at)
        return value

    def flt(self, name: str, value: float = 0.0) -> float:
        """``flt(32)``."""
        number: float = struct.unpack("<f", self._take(32, name).to_bytes(4, "big"))[0]
        return number

    def st(self, name: str, value: str = "", longest: int = _LONGEST) -> str:
        """``st(v)``."""
        self._require_alignment(name)
        start, end = self._bit >> 3, self._end >> 3
        text = bytes(self._data[start : min(end, start + longest + 1)])
        length = text.find(0)
        if length < 0:
            if len(text) > longest:
                raise LimitError("name_length", len(text), longest, self._where(name))
            raise self._error(TruncatedError, "the text has no end", name, self._bit, "a zero byte inside the unit")
        try:
            decoded = text[:length].decode()
        except UnicodeDecodeError as error:
            raise self._error(ElementValueError, str(error), name, self._bit, "UTF-8 text") from None
        self._bit += 8 * (length + 1)
        return decoded

    def bs(self, name: str, value: Buffer = b"") -> Buffer:
        """``bs(v)``, as a view of the data."""
        self._require_alignment(name)
        start, self._bit = self._bit, self._end
        return self._data[start >> 3 : self._end >> 3]

    def byte_alignment(self) -> None:
        """``byte_alignment()``; `AlignmentError` if it is anything but a one and zeros."""
        at = self._bit
        bits = 8 - (at & 7)
        if self._take(bits, "byte_alignment") != 1 << (bits - 1):
            raise self._error(AlignmentError, "wrong bits", "byte_alignment", at, "1" + "0" * (bits - 1))

    def illegal(self, name: str, message: str, expected: str | None = None) -> ElementValueError:
        """Make the error for values that are legal alone but not together, with the place reached."""
        return self._error(ElementValueError, message, name, self._bit, expected)

    def expect(self, count: int, bits: int, name: str) -> None:
        """Refuse a number of elements that the rest of the unit cannot hold."""
        if count * bits > self._end - self._bit:
            message = f"{count} elements cannot follow in {self._end - self._bit} bits"
            raise self._error(TruncatedError, message, name, self._bit)

    def _take(self, bits: int, name: str) -> int:
        stop = self._bit + bits
        if stop > self._end:
            message = f"{bits} bits wanted, {self._end - self._bit} left"
            raise self._error(TruncatedError, message, name, self._bit)
        last = (stop + 7) >> 3
        value = int.from_bytes(self._data[self._bit >> 3 : last], "big")
        self._bit = stop
        return (value >> (8 * last - stop)) & ((1 << bits) - 1)

    def _golomb(self, k: int, name: str) -> int:
        zeros = self._zeros(name)
        base = ((1 << zeros) - 1) << k
        return base + self._take(k + zeros, name) if k + zeros else base

    def _zeros(self, name: str) -> int:
        """Read zeros and the one after them; return how many zeros."""
        at = self._bit
        window = min(UE_PREFIX + 1, self._end - at)
        zeros = window - (self._take(window, name).bit_length() if window else 0)
        if zeros < window:
            self._bit = at + zeros + 1
            return zeros
        if window <= UE_PREFIX:
            raise self._error(TruncatedError, "the value has no end", name, at)
        raise self._error(ElementValueError, "the value is too large", name, at, f"at most {UE_PREFIX} zero bits")

    def _require_alignment(self, name: str) -> None:
        if self._bit & 7:
            raise self._error(AlignmentError, "not at a byte boundary", name, self._bit)

    def _illegal(self, name: str, value: int, valid: Sequence[int], at: int) -> ElementValueError:
        return self._error(ElementValueError, f"the value {value} is not allowed", name, at, described(valid))

    def _error(self, kind: type[ErrorT], message: str, name: str, at: int, expected: str | None = None) -> ErrorT:
        return kind(message, unit=self.unit, bit_offset=at - self._start, element=name, expected=expected)

    def _where(self, name: str) -> str:
        return name if self.unit is None else f"unit {self.unit}, {name}"


class TracedElement(NamedTuple):
    """One syntax element as it stands in the bitstream; ``bit_offset`` counts from the start of the unit."""

    name: str
    descriptor: str
    bit_offset: int
    bits: str
    value: object


class Tracer(Reader):
    """A `Reader` that keeps a list of what it read in ``elements``."""

    def __init__(self, data: Buffer, start: int = 0, end: int | None = None, *, unit: int | None = None) -> None:
        super().__init__(data, start, end, unit=unit)
        self.elements: list[TracedElement] = []

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``."""
        return self._noted(name, f"u({bits})", lambda: super(Tracer, self).u(bits, name, value, valid))

    def i(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``i(bits)``."""
        return self._noted(name, f"i({bits})", lambda: super(Tracer, self).i(bits, name, value, valid))

    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = UNSIGNED) -> int:
        """``ue(k)``."""
        return self._noted(name, f"ue({k})", lambda: super(Tracer, self).ue(k, name, value, valid))

    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = SIGNED) -> int:
        """``ie(k)``."""
        return self._noted(name, f"ie({k})", lambda: super(Tracer, self).ie(k, name, value, valid))

    def flt(self, name: str, value: float = 0.0) -> float:
        """``flt(32)``."""
        return self._noted(name, "flt(32)", lambda: super(Tracer, self).flt(name, value))

    def st(self, name: str, value: str = "", longest: int = _LONGEST) -> str:
        """``st(v)``."""
        return self._noted(name, "st(v)", lambda: super(Tracer, self).st(name, value, longest))

    def bs(self, name: str, value: Buffer = b"") -> Buffer:
        """``bs(v)``; the bits of this one are left out, since the value shows them."""
        at = self.bit_offset
        value = super().bs(name, value)
        self.elements.append(TracedElement(name, "bs(v)", at, "", value))
        return value

    def byte_alignment(self) -> None:
        """``byte_alignment()``."""
        self._noted("byte_alignment()", "f(n)", super().byte_alignment)

    def _noted(self, name: str, descriptor: str, read: Callable[[], T]) -> T:
        start = self._bit
        value = read()
        stop, self._bit = self._bit, start
        bits = format(self._take(stop - start, name), f"0{stop - start}b")
        self.elements.append(TracedElement(name, descriptor, start - self._start, bits, value))
        return value
