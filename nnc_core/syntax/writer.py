"""The drivers that are given values: `Sizer` counts bits, `Writer` makes bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import index

from nnc_core.errors import ElementValueError, LimitError
from nnc_core.limits import Limits
from nnc_core.syntax.driver import SIGNED, UNSIGNED, Buffer, Syntax, described, signed_to_unsigned

_LONGEST = Limits().name_length
_HELD = 2048  # bits; longer integers make shifting slow


class Sizer(Syntax):
    """Counts the bits that the values take; a value that an element cannot hold is an `ElementValueError`."""

    def __init__(self) -> None:
        self.bits = 0

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``."""
        number = value if type(value) is int else _whole(name, value)
        if number >> bits if valid is None else number not in valid:
            raise _misfit(name, number, range(1 << bits) if valid is None else valid)
        self._put(number, bits)
        return number

    def flag(self, name: str, value: bool = False) -> bool:
        """``u(1)`` as a truth value."""
        bit: object = value
        if bit is not True and bit is not False:
            return super().flag(name, value)
        self._put(bit, 1)
        return bit

    def i(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``i(bits)``."""
        number, half = _whole(name, value), 1 << (bits - 1)
        if number not in (valid or range(-half, half)):
            raise _misfit(name, number, valid or range(-half, half))
        self._put(number & (2 * half - 1), bits)
        return number

    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = UNSIGNED) -> int:
        """``ue(k)``."""
        number = value if type(value) is int else _whole(name, value)
        if number not in valid:
            raise _misfit(name, number, valid)
        self._golomb(k, number)
        return number

    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = SIGNED) -> int:
        """``ie(k)``."""
        number = value if type(value) is int else _whole(name, value)
        if number not in valid:
            raise _misfit(name, number, valid)
        self._golomb(k, signed_to_unsigned(number))
        return number

    def flt(self, name: str, value: float = 0.0) -> float:
        """``flt(32)``; rounds to binary32."""
        try:
            number = struct.pack("<f", value)
        except (OverflowError, struct.error):
            raise ElementValueError(f"the value {value} does not fit", element=name, expected="binary32") from None
        self._put(int.from_bytes(number, "big"), 32)
        return value

    def st(self, name: str, value: str = "", longest: int = _LONGEST) -> str:
        """``st(v)``."""
        self._require_alignment(name)
        try:
            text = value.encode()
        except (UnicodeEncodeError, AttributeError) as error:
            raise ElementValueError(str(error), element=name, expected="UTF-8 text") from None
        if 0 in text:
            raise ElementValueError(f"the text {value!r} has a zero byte", element=name, expected="text without it")
        if len(text) > longest:
            raise LimitError("name_length", len(text), longest, name)
        self._append(text + b"\0")
        return value

    def bs(self, name: str, value: Buffer = b"") -> Buffer:
        """``bs(v)``."""
        self._require_alignment(name)
        self._append(value)
        return value

    def mask(self, count: int, name: str, value: Buffer = b"") -> Buffer:
        """``count`` elements ``u(1)``; ``value`` has them packed."""
        self._require_alignment(name)
        if len(value) != (count + 7) >> 3:
            message, expected = f"{len(value)} bytes for {count} bits", f"{(count + 7) >> 3} bytes"
            raise ElementValueError(message, element=name, expected=expected)
        whole, over = count >> 3, count & 7
        self._append(value[:whole])
        if over:
            self._put(value[whole] >> (8 - over), over)
        return value

    def byte_alignment(self) -> None:
        """``byte_alignment()``."""
        bits = 8 - (self.bits & 7)
        self._put(1 << (bits - 1), bits)

    def _golomb(self, k: int, value: int) -> None:
        # With 2**k added, the value starts with a one, and each doubling beyond k + 1 bits is one step of the prefix.
        value += 1 << k
        self._put(value, 2 * value.bit_length() - 1 - k)

    def _put(self, value: int, bits: int) -> None:
        self.bits += bits

    def _append(self, data: Buffer) -> None:
        self.bits += 8 * len(data)

    def _require_alignment(self, name: str) -> None:
        if self.bits & 7:
            raise ElementValueError("not at a byte boundary", element=name)


class Writer(Sizer):
    """Writes syntax elements; `data` gives the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = bytearray()
        self._tail = 0  # the bits that are not among the bytes yet
        self._held = 0  # how many they are

    def data(self) -> bytes:
        """The bytes written so far; they must be whole ones."""
        self._require_alignment("the end")
        self._flush()
        return bytes(self._bytes)

    def _put(self, value: int, bits: int) -> None:
        self.bits += bits
        self._tail = self._tail << bits | value
        self._held += bits
        if self._held > _HELD:
            self._flush()

    def _append(self, data: Buffer) -> None:
        if 8 * len(data) <= _HELD:
            self._put(int.from_bytes(data, "big"), 8 * len(data))
        else:
            super()._append(data)
            self._flush()
            self._bytes += data

    def _flush(self) -> None:
        """Move whole bytes out of the integer that collects bits."""
        whole, over = divmod(self._held, 8)
        self._bytes += (self._tail >> over).to_bytes(whole, "big")
        self._tail &= (1 << over) - 1
        self._held = over


def _whole(name: str, value: int) -> int:
    # A range answers at once for a true int only; for an enumeration or a NumPy integer it would search.
    try:
        return index(value)
    except TypeError:
        raise ElementValueError(f"the value {value!r} is not an integer", element=name) from None


def _misfit(name: str, value: int, valid: Sequence[int]) -> ElementValueError:
    return ElementValueError(f"the value {value} does not fit", element=name, expected=described(valid))
