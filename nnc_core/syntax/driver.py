"""What a syntax table asks of a driver: the descriptors of ISO/IEC 15938-17 (clause 6.1), and a record's elements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import IntEnum
from functools import cache
from itertools import chain, islice, repeat
from typing import Any, Final, TypeVar

from nnc_core.errors import ElementValueError

Buffer = bytes | bytearray | memoryview

UE_PREFIX: Final = 32
"""The longest run of zero bits in front of an exponential-Golomb value."""
UNSIGNED: Final = range(1 << 32)
"""What ``ue(k)`` may hold where the semantics say nothing narrower."""
SIGNED: Final = range(-(1 << 31), 1 << 31)
"""What ``ie(k)`` may hold where the semantics say nothing narrower."""
POSITIVE: Final = range(1, 1 << 32)
"""What a size may be."""

T = TypeVar("T")


class Syntax(ABC):
    """One pass over syntax elements, in bitstream order.

    Every method takes the value that a writing driver shall write, and returns the value that the element has: the
    same one when writing, the one found when reading. ``valid`` holds the legal values; anything else is an
    `ElementValueError`. A syntax table is a function that calls these methods in the order of the standard's table,
    mostly through `Elements`.
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
        """``byte_alignment()`` (clause 6.3.5): a one, then zeros up to the next byte boundary; never empty."""

    def flag(self, name: str, value: bool = False) -> bool:
        """``u(1)`` as a truth value."""
        return self.u(1, name, value) != 0

    def reserved(self, bits: int, name: str) -> None:
        """``nnr_reserved_zero_...``: written as zero, ignored on reading."""
        self.u(bits, name)

    def array(
        self, one: Callable[[str, T], T], name: str, values: Iterable[T], count: int, default: T
    ) -> tuple[T, ...]:
        """``count`` elements called ``name[0]``, ``name[1]``, ..., each handed to ``one`` with its name and value."""
        return tuple([one(f"{name}[{j}]", value) for j, value in enumerate(padded(values, count, default))])

    def mask(self, count: int, name: str, value: Buffer = b"") -> Buffer:
        """``count`` elements ``u(1)`` from a byte boundary on, packed as they stand in the bitstream."""
        whole = count >> 3
        packed = bytes([self.u(8, f"{name}[{8 * j}]", octet) for j, octet in enumerate(padded(value, whole, 0))])
        over = count & 7
        if not over:
            return packed
        last = value[whole] >> (8 - over) if len(value) > whole else 0
        return packed + bytes([self.u(over, f"{name}[{8 * whole}]", last) << (8 - over)])

    def first_fit(self, variants: Sequence[T], given: T, run: Callable[[T], None], rule: str, units: int = 0) -> T:
        """Run the end of a header in a way of several that are in use, and return which one it was.

        A driver that is given values takes the ``given`` way; one that reads finds the first of ``variants`` with which
        the unit ends there, or as many ``units`` fill the rest of it. If none fits, ``rule`` is broken.
        """
        run(given)
        return given

    def illegal(
        self, name: str, message: str, expected: str | None = None, rule: str | None = None
    ) -> ElementValueError:
        """Make the error for values that are legal alone but not together; the caller raises it."""
        return ElementValueError(message, element=name, expected=expected, rule=rule)

    def expect(self, count: int, bits: int, name: str) -> None:  # noqa: B027
        """Announce ``count`` elements of at least ``bits`` bits, so that a reader can refuse what cannot follow."""


class Indexed(Syntax):
    """A driver that names each element as the one of a list entry, ``name[i]``, and otherwise is as that within."""

    def __init__(self, within: Syntax, index: int) -> None:
        self._within = within
        self._index = f"[{index}]"

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``."""
        return self._within.u(bits, self._named(name), value, valid)

    def i(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``i(bits)``."""
        return self._within.i(bits, self._named(name), value, valid)

    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = UNSIGNED) -> int:
        """``ue(k)``."""
        return self._within.ue(k, self._named(name), value, valid)

    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = SIGNED) -> int:
        """``ie(k)``."""
        return self._within.ie(k, self._named(name), value, valid)

    def flt(self, name: str, value: float = 0.0) -> float:
        """``flt(32)``."""
        return self._within.flt(self._named(name), value)

    def st(self, name: str, value: str = "", longest: int = 4096) -> str:
        """``st(v)``."""
        return self._within.st(self._named(name), value, longest)

    def bs(self, name: str, value: Buffer = b"") -> Buffer:
        """``bs(v)``."""
        return self._within.bs(self._named(name), value)

    def byte_alignment(self) -> None:
        """``byte_alignment()``."""
        self._within.byte_alignment()

    def illegal(
        self, name: str, message: str, expected: str | None = None, rule: str | None = None
    ) -> ElementValueError:
        """Make the error for values that are legal alone but not together."""
        return self._within.illegal(self._named(name), message, expected, rule)

    def expect(self, count: int, bits: int, name: str) -> None:
        """Announce ``count`` elements of at least ``bits`` bits."""
        self._within.expect(count, bits, self._named(name))

    def _named(self, name: str) -> str:
        """The name with the entry's index in front of one of its own: ``name[i][j]``."""
        stem, bracket, rest = name.partition("[")
        return f"{stem}{self._index}{bracket}{rest}"


class Elements:
    """The syntax elements that have a field of their own name in ``record``, one call each.

    A method hands the field's value to the driver ``s`` and keeps what comes back in the field. An element that is
    absent (``when`` is false) takes the field's default, which is the value that the standard infers.
    """

    __slots__ = ("_defaults", "_record", "_s")

    def __init__(self, s: Syntax, record: Any) -> None:
        self._s = s
        self._record = record
        self._defaults = _DEFAULTS[type(record)]

    def flag(self, name: str, when: bool = True) -> bool:
        """``u(1)`` as a truth value."""
        record = self._record
        value: bool = self._s.flag(name, getattr(record, name)) if when else self._defaults[name]
        setattr(record, name, value)
        return value

    def u(self, bits: int, name: str, valid: Sequence[int] | None = None, when: bool = True) -> int:
        """``u(bits)``."""
        record = self._record
        value: int = self._s.u(bits, name, getattr(record, name), valid) if when else self._defaults[name]
        setattr(record, name, value)
        return value

    def code(self, bits: int, name: str, kind: type[IntEnum], when: bool = True) -> Any:
        """``u(bits)`` as a code point of ``kind``, which counts from 0; others are illegal."""
        record, value = self._record, self._defaults[name]
        if when:
            members = _members(kind)
            value = members[self._s.u(bits, name, getattr(record, name), range(len(members)))]
        setattr(record, name, value)
        return value

    def i(self, bits: int, name: str, when: bool = True) -> None:
        """``i(bits)``."""
        record = self._record
        setattr(record, name, self._s.i(bits, name, getattr(record, name)) if when else self._defaults[name])

    def ue(self, k: int, name: str, valid: Sequence[int] = UNSIGNED, when: bool = True) -> int:
        """``ue(k)``."""
        record = self._record
        value: int = self._s.ue(k, name, getattr(record, name), valid) if when else self._defaults[name]
        setattr(record, name, value)
        return value

    def ie(self, k: int, name: str, valid: Sequence[int] = SIGNED) -> None:
        """``ie(k)``."""
        record = self._record
        setattr(record, name, self._s.ie(k, name, getattr(record, name), valid))

    def flt(self, name: str, when: bool = True) -> None:
        """``flt(32)``."""
        record = self._record
        setattr(record, name, self._s.flt(name, getattr(record, name)) if when else self._defaults[name])

    def st(self, name: str, longest: int, when: bool = True) -> None:
        """``st(v)``."""
        record = self._record
        setattr(record, name, self._s.st(name, getattr(record, name), longest) if when else self._defaults[name])

    def bs(self, name: str) -> None:
        """``bs(v)``."""
        record = self._record
        setattr(record, name, self._s.bs(name, getattr(record, name)))

    def array(self, name: str, count: int, one: Callable[[str, Any], Any], default: Any) -> None:
        """``count`` elements in one field; see `Syntax.array`."""
        record = self._record
        setattr(record, name, self._s.array(one, name, getattr(record, name), count, default))

    def nested(self, name: str, table: Callable[..., Any], *arguments: Any, when: bool = True) -> None:
        """A field that another table fills: it takes driver, value and ``arguments``, and gives the new value."""
        record = self._record
        value = table(self._s, getattr(record, name), *arguments) if when else self._defaults[name]
        setattr(record, name, value)

    def absent(self, *names: str) -> None:
        """Elements that are not there."""
        for name in names:
            setattr(self._record, name, self._defaults[name])


class _Defaults(dict[type, Mapping[str, Any]]):
    """By record, the default of each field, which is what an absent element is inferred to be."""

    def __missing__(self, record: type) -> Mapping[str, Any]:
        self[record] = {f.name: f.default for f in fields(record) if f.default is not MISSING}
        return self[record]


_DEFAULTS = _Defaults()


@cache
def _members(kind: type[IntEnum]) -> tuple[IntEnum, ...]:
    return tuple(kind)


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
