"""The drivers that read: `Reader`, and `Tracer`, which also takes notes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from nnc_core.errors import (
    AlignmentError,
    BitstreamError,
    ElementValueError,
    LimitError,
    TruncatedError,
    UnitSizeError,
)
from nnc_core.limits import Limits
from nnc_core.stored import Bytes, StoredBytes
from nnc_core.syntax.driver import SIGNED, UE_PREFIX, UNSIGNED, Buffer, Syntax, described, unsigned_to_signed

_LONGEST = Limits().name_length
_LONGEST_CODE = 2 * UE_PREFIX + 1 + 15  # bits of an exponential-Golomb code of the highest order in use
_CHUNK = 64  # bytes
_GENERAL_RULES = ("truncated", "unit-size", "byte-alignment", "element-range", "golomb-prefix")
_SMALLEST_UNIT = 3  # a size field and a header
T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=BitstreamError)


class Reader(Syntax):
    """Reads the syntax elements of one NNR unit, which starts at byte ``start`` of ``data`` and ends before ``end``.

    ``unit`` is the unit's index, for error messages; bit offsets in them count from ``start``. Nothing is copied but
    the bytes of the element in hand.
    """

    def __init__(
        self, data: Buffer | StoredBytes, start: int = 0, end: int | None = None, *, unit: int | None = None
    ) -> None:
        self._data: Bytes = data if isinstance(data, StoredBytes) else memoryview(data)
        self._start = start
        self._end = len(self._data) if end is None else end
        self._next = start  # the byte after those in the window
        self._window = 0  # an integer that ends with bytes of the data, the last ``left`` bits of which are unread
        self._left = 0
        self.unit = unit

    @property
    def bit_offset(self) -> int:
        """The number of bits read so far."""
        return 8 * (self._next - self._start) - self._left

    @property
    def byte_position(self) -> int:
        """Where in the data the next byte is; `AlignmentError` inside a byte."""
        return self._aligned("payload")

    def narrow(self, size: int) -> None:
        """Let the unit end after ``size`` bytes; `UnitSizeError` if it has more already, or the data have less."""
        if size * 8 <= self.bit_offset:
            message = f"a unit of {size} bytes cannot hold its own header"
            raise self._error(UnitSizeError, message, "nnr_unit_size", 0)
        if size > self._end - self._start:
            message = f"a unit of {size} bytes, but {self._end - self._start} are left"
            raise self._error(TruncatedError, message, "nnr_unit_size", 0)
        self._end = self._start + size
        beyond = self._next - self._end
        if beyond > 0:
            self._window >>= 8 * beyond
            self._left -= 8 * beyond
            self._next = self._end

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``."""
        value = self._take(bits, name)
        if valid is not None and value not in valid:
            raise self._illegal(name, value, valid, bits)
        return value

    def flag(self, name: str, value: bool = False) -> bool:
        """``u(1)`` as a truth value."""
        return self._take(1, name) == 1

    def i(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``i(bits)``."""
        value = self._take(bits, name)
        value -= (value >> (bits - 1)) << bits
        if valid is not None and value not in valid:
            raise self._illegal(name, value, valid, bits)
        return value

    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = UNSIGNED) -> int:
        """``ue(k)``."""
        value = self._golomb(k, name)
        if value not in valid:
            raise self._illegal(name, value, valid, _golomb_bits(k, value))
        return value

    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = SIGNED) -> int:
        """``ie(k)``."""
        coded = self._golomb(k, name)
        value = unsigned_to_signed(coded)
        if value not in valid:
            raise self._illegal(name, value, valid, _golomb_bits(k, coded))
        return value

    def flt(self, name: str, value: float = 0.0) -> float:
        """``flt(32)``."""
        number: float = struct.unpack("<f", self._take(32, name).to_bytes(4, "big"))[0]
        return number

    def st(self, name: str, value: str = "", longest: int = _LONGEST) -> str:
        """``st(v)``."""
        start = self._aligned(name)
        text = bytes(self._data[start : min(self._end, start + longest + 1)])
        length = text.find(0)
        if length < 0:
            if len(text) > longest:
                raise LimitError("name_length", len(text), longest, self._where(name))
            message, expected = "the text has no end", "a zero byte inside the unit"
            raise self._error(TruncatedError, message, name, self.bit_offset, expected, "text")
        try:
            decoded = text[:length].decode()
        except UnicodeDecodeError as error:
            raise self._error(ElementValueError, str(error), name, self.bit_offset, "UTF-8 text", "text") from None
        self._move_to(start + length + 1)
        return decoded

    def bs(self, name: str, value: Buffer = b"") -> Buffer:
        """``bs(v)``, as a view of the data."""
        start = self._aligned(name)
        self._move_to(self._end)
        return self._data[start : self._end]

    def byte_alignment(self) -> None:
        """``byte_alignment()``; `AlignmentError` if it is anything but a one and zeros."""
        bits = (self._left & 7) or 8
        if self._take(bits, "byte_alignment") != 1 << (bits - 1):
            at = self.bit_offset - bits
            raise self._error(AlignmentError, "wrong bits", "byte_alignment", at, "1" + "0" * (bits - 1))

    def mask(self, count: int, name: str, value: Buffer = b"") -> Buffer:
        """``count`` elements ``u(1)``, packed."""
        self.expect(count, 1, name)
        start, over = self._aligned(name), count & 7
        whole = bytes(self._data[start : start + (count >> 3)])
        self._move_to(start + len(whole))
        return whole + bytes([self._take(over, name) << (8 - over)]) if over else whole

    def first_fit(self, variants: Sequence[T], given: T, run: Callable[[T], None], rule: str, units: int = 0) -> T:
        """Find the first way that fits what follows; if there is none, raise as the first does."""
        problem: BitstreamError | LimitError | None = None
        place = self.bit_offset
        for variant in variants:
            try:
                run(variant)
            except (BitstreamError, LimitError) as error:
                problem = problem or error
            else:
                if self._rest_is(units):
                    return variant
            self._rewind(place)
        message = f"not {units} units to the end" if units else "bytes follow the last element"
        if problem is None:
            raise self._error(UnitSizeError, message, "nnr_unit_size", place, rule=rule)
        if isinstance(problem, BitstreamError) and problem.rule.id in _GENERAL_RULES:
            problem.rule_id = rule
        raise problem

    def illegal(
        self, name: str, message: str, expected: str | None = None, rule: str | None = None
    ) -> ElementValueError:
        """Make the error for values that are legal alone but not together, with the place reached."""
        return self._error(ElementValueError, message, name, self.bit_offset, expected, rule)

    def expect(self, count: int, bits: int, name: str) -> None:
        """Refuse a number of elements that the rest of the unit cannot hold."""
        left = 8 * (self._end - self._start) - self.bit_offset
        if count * bits > left:
            raise self._error(TruncatedError, f"{count} elements cannot follow in {left} bits", name, self.bit_offset)

    def _take(self, bits: int, name: str) -> int:
        left = self._left - bits
        if left < 0:
            left += self._load(bits)
            if left < 0:
                message = f"{bits} bits wanted, {self._left} left"
                raise self._error(TruncatedError, message, name, self.bit_offset)
        self._left = left
        return self._window >> left & ((1 << bits) - 1)

    def _golomb(self, k: int, name: str) -> int:
        if self._left < _LONGEST_CODE and self._next < self._end:
            self._load(_LONGEST_CODE)
        code = self._window & ((1 << self._left) - 1)  # zeros, a one, as many bits as there are zeros, k bits
        zeros = self._left - code.bit_length()
        left = self._left - (2 * zeros + 1 + k)
        if zeros > UE_PREFIX:
            message, expected = "the value is too large", f"at most {UE_PREFIX} zero bits"
            raise self._error(ElementValueError, message, name, self.bit_offset, expected, "golomb-prefix")
        if left < 0:
            raise self._error(TruncatedError, "the value has no end", name, self.bit_offset)
        self._left = left
        return (code >> left) - (1 << k)

    def _load(self, bits: int) -> int:
        """Widen the window to at least ``bits`` unread bits, or all there are; return by how many."""
        chunk = self._data[self._next : min(self._end, self._next + max(_CHUNK, (bits + 7) >> 3))]
        unread = self._window & ((1 << self._left) - 1)
        self._window = unread << 8 * len(chunk) | int.from_bytes(chunk, "big")
        self._left += 8 * len(chunk)
        self._next += len(chunk)
        return 8 * len(chunk)

    def _move_to(self, byte: int) -> None:
        ahead = self._next - byte
        if 0 <= 8 * ahead <= self._left:
            self._left = 8 * ahead
        else:
            self._next = byte
            self._left = 0

    def _rest_is(self, units: int) -> bool:
        """Whether what follows is this number of units, to go by their sizes."""
        if self._left & 7:
            return False
        place = self._aligned("nnr_unit_size")
        for _ in range(units):
            size = _size_of_unit(self._data[place : min(place + 4, self._end)])
            if size < _SMALLEST_UNIT:
                return False
            place += size
        return place == self._end

    def _rewind(self, bit_offset: int) -> None:
        self._move_to(self._start + (bit_offset >> 3))
        if bit_offset & 7:
            self._take(bit_offset & 7, "")

    def _aligned(self, name: str) -> int:
        """The place of the next byte."""
        if self._left & 7:
            raise self._error(AlignmentError, "not at a byte boundary", name, self.bit_offset)
        return self._next - (self._left >> 3)

    def _illegal(self, name: str, value: int, valid: Sequence[int], bits: int) -> ElementValueError:
        message = f"the value {value} is not allowed"
        return self._error(ElementValueError, message, name, self.bit_offset - bits, described(valid))

    def _error(
        self,
        kind: type[ErrorT],
        message: str,
        name: str,
        at: int,
        expected: str | None = None,
        rule: str | None = None,
    ) -> ErrorT:
        return kind(message, unit=self.unit, bit_offset=at, element=name, expected=expected, rule=rule)

    def _where(self, name: str) -> str:
        return name if self.unit is None else f"unit {self.unit}, {name}"


def _size_of_unit(field: memoryview) -> int:
    """The size that the 2 or 4 bytes of a size field tell; 0 if they are not there."""
    long = len(field) > 0 and field[0] >> 7
    size = int.from_bytes(field if long else field[:2], "big")
    return 0 if len(field) < (4 if long else 2) else size & 0x7FFFFFFF if long else size


def _golomb_bits(k: int, value: int) -> int:
    return 2 * ((value >> k) + 1).bit_length() - 1 + k


class TracedElement(NamedTuple):
    """One syntax element as it stands in the bitstream; ``bit_offset`` counts from the start of the unit."""

    name: str
    descriptor: str
    bit_offset: int
    bits: str
    value: object


class Tracer(Reader):
    """A `Reader` that keeps a list of what it read in ``elements``."""

    def __init__(
        self, data: Buffer | StoredBytes, start: int = 0, end: int | None = None, *, unit: int | None = None
    ) -> None:
        super().__init__(data, start, end, unit=unit)
        self.elements: list[TracedElement] = []

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``."""
        return self._noted(name, f"u({bits})", lambda: super(Tracer, self).u(bits, name, value, valid))

    def flag(self, name: str, value: bool = False) -> bool:
        """``u(1)`` as a truth value."""
        return self.u(1, name) == 1

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

    def mask(self, count: int, name: str, value: Buffer = b"") -> Buffer:
        """``count`` elements ``u(1)``, noted as one."""
        return self._noted(name, f"u(1) x {count}", lambda: super(Tracer, self).mask(count, name, value))

    def byte_alignment(self) -> None:
        """``byte_alignment()``."""
        self._noted("byte_alignment()", "f(n)", super().byte_alignment)

    def _rewind(self, bit_offset: int) -> None:
        super()._rewind(bit_offset)
        while self.elements and self.elements[-1].bit_offset >= bit_offset:
            self.elements.pop()

    def _noted(self, name: str, descriptor: str, read: Callable[[], T]) -> T:
        start = self.bit_offset
        value = read()
        first, end = self._start + (start >> 3), self._start + ((self.bit_offset + 7) >> 3)
        bits = _bits(self._data[first:end], start & 7, self.bit_offset - start)
        self.elements.append(TracedElement(name, descriptor, start, bits, value))
        return value


def _bits(data: Buffer, skipped: int, count: int) -> str:
    return format(int.from_bytes(data, "big"), f"0{8 * len(data)}b")[skipped : skipped + count]
