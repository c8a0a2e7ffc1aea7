"""Tensors that travel in other clothes: bit patterns and further units, told by the names of their units.

NNR has no payload for float16, bfloat16 and float64 values that must not change, for floats that are infinite or not
a number among others that are quantized, and none for unsigned integers around a zero point. Such a tensor is carried
by one or two units that any decoder reads as what they are, integers or raw floats, under names that no parameter has:

============================  ==========================================================================================
``w@uint8.value-128``         the integers of the uint8 tensor ``w``, less 128
``w@bfloat16.none``           the bit patterns of ``w``, mapped to integers that grow with the values
``w@bfloat16.exponent-118``   the biased exponents of ``w``, less 118; it is followed by
``w@bfloat16.rest``           signs and mantissas, packed into raw floats
``w@float32.exponent+1-236``  exponents and the first bit of the mantissa, less 236; also followed by a rest
``w@float32.exponent+1t-236`` the same with the dimensions in the reverse order
``w@float32.index``           places in a list of bit patterns, one for each value of ``w``; it is followed by
``w@float32.palette``         the list, packed into raw floats
``w@float32.places``          after a unit ``w``: what to add to the index of each exceptional value to get the next one
``w@float32.values``          the bytes of these values, packed into raw floats
``w@plain``                   the tensor that is itself called ``w``, where ``w`` looks like one of these names
============================  ==========================================================================================

A bfloat16 tensor is restored as the float32 array with the same values: numpy has no such type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import PayloadError

__all__ = [
    "PLAIN",
    "Mark",
    "bit_patterns",
    "escaped",
    "float_type",
    "mapped",
    "mark_of",
    "marked",
    "numpy_name",
    "packed",
    "restored",
]

PLAIN = "plain"
PATTERNS, EXPONENT, REST, INTEGER = "none", "exponent", "rest", "value"
INDEX, PALETTE, PLACES, VALUES = "index", "palette", "places", "values"

_EXPONENT_BITS = {"float16": 5, "bfloat16": 8, "float32": 8, "float64": 11}
_BITS = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}
_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
_INTEGERS = r"u?int(?:8|16|32|64)"
_FLOATS = "|".join(_BITS)
_NAME = re.compile(
    rf"(?P<name>.*)@(?:{PLAIN}|(?P<integer>{_INTEGERS})\.{INTEGER}(?P<offset>[+-]\d{{1,20}})"
    rf"|(?P<float>{_FLOATS})\.(?:(?P<part>{PATTERNS}|{REST}|{INDEX}|{PALETTE}|{PLACES}|{VALUES})"
    rf"|{EXPONENT}(?:\+(?P<more>[1-7]))?(?P<reversed>t?)-(?P<bias>\d{{1,6}})))",
    re.DOTALL,
)


class Mark(NamedTuple):
    """What the name of a unit says: of which tensor it is a part, and which; ``number`` is what was taken off.

    Exponents may have ``more`` bits of the mantissa behind them, and ``reversed_dimensions``.
    """

    tensor: str
    part: str = PLAIN
    dtype: str = ""
    number: int = 0
    more: int = 0
    reversed_dimensions: bool = False


def mark_of(unit_name: str) -> Mark:
    """Read the name of a unit."""
    found = _NAME.fullmatch(unit_name)
    if not found:
        return Mark(unit_name)
    if found["integer"]:
        return Mark(found["name"], INTEGER, found["integer"], -int(found["offset"]))
    if found["bias"]:
        more, is_reversed = int(found["more"] or 0), bool(found["reversed"])
        return Mark(found["name"], EXPONENT, found["float"], int(found["bias"]), more, is_reversed)
    return Mark(found["name"], found["part"] or PLAIN, found["float"] or "")


def numpy_name(mark: Mark) -> str:
    """The name of the type that numpy gives a restored tensor; empty where the unit's own type counts."""
    return "float32" if mark.dtype == "bfloat16" else mark.dtype


def marked(mark: Mark) -> str:
    """The name of a unit that says so."""
    if mark.part == PLAIN:
        return escaped(mark.tensor)
    number = f"{-mark.number:+d}" if mark.part == INTEGER else _form(mark) if mark.part == EXPONENT else ""
    return f"{mark.tensor}@{mark.dtype}.{mark.part}{number}"


def _form(mark: Mark) -> str:
    more = f"+{mark.more}" if mark.more else ""
    return f"{more}{'t' * mark.reversed_dimensions}-{mark.number}"


def escaped(tensor: str) -> str:
    """The name of a unit that is the tensor itself."""
    return f"{tensor}@{PLAIN}" if _NAME.fullmatch(tensor) else tensor


def float_type(dtype: np.dtype[Any]) -> str | None:
    """The name of a floating-point type whose bit patterns can be carried, `None` for any other type."""
    return dtype.name if dtype.name in _BITS else None


def bit_patterns(array: NDArray[Any]) -> NDArray[Any]:
    """The bits of a floating-point array as unsigned integers, of the same shape."""
    return np.ascontiguousarray(array).view(_UNSIGNED[array.dtype.itemsize])


def mapped(patterns: NDArray[Any]) -> NDArray[np.int32]:
    """Patterns of 8 or 16 bits as integers: of two finite values, the greater has the greater one."""
    bits = 8 * patterns.dtype.itemsize
    magnitude = patterns.astype(np.int32) & ((1 << (bits - 1)) - 1)
    return np.where(patterns >> (bits - 1), ~magnitude, magnitude)


def _unmapped(integers: NDArray[np.int32], bits: int) -> NDArray[Any]:
    most = 1 << (bits - 1)
    if integers.size and not (integers.min() >= -most and integers.max() < most):
        raise PayloadError(f"bit patterns of {bits} bits that have more")
    return np.where(integers < 0, ~integers | most, integers).astype(f"u{bits // 8}")


class Planes(NamedTuple):
    """A floating-point tensor in two parts; the rest is a row of bytes."""

    exponents: NDArray[np.int32]
    rest: bytes


def planes(patterns: NDArray[Any], dtype: str, more: int = 0) -> Planes:
    """Take the exponents out of ``patterns``; what remains of each, sign above mantissa, is packed without gaps.

    The exponents can have ``more`` bits behind them, the first of the mantissa.
    """
    upper = _EXPONENT_BITS[dtype] + more
    mantissa = _BITS[dtype] - 1 - upper
    exponents = (patterns >> mantissa).astype(np.int32) & ((1 << upper) - 1)
    one = patterns.dtype.type(1)
    sign = patterns >> (_BITS[dtype] - 1) << mantissa
    return Planes(exponents, _pack((patterns & ((one << mantissa) - one)) | sign, mantissa + 1))


def _pack(values: NDArray[Any], bits: int) -> bytes:
    """The lower ``bits`` of each value: its whole bytes, the lowest first, then what is left of all values."""
    whole = bits // 8
    octets = values.reshape(-1).astype(f"<u{values.dtype.itemsize}").view(np.uint8).reshape(values.size, -1)
    left = octets[:, whole : whole + 1] if bits % 8 else octets[:, :0]
    loose = np.unpackbits(left, axis=1, bitorder="little")[:, : bits % 8]
    return octets[:, :whole].tobytes() + np.packbits(loose, bitorder="little").tobytes()


def _unpack(data: NDArray[np.uint8], count: int, bits: int, itemsize: int) -> NDArray[Any]:
    whole, loose = bits // 8, count * (bits % 8)
    octets = np.zeros((count, itemsize), np.uint8)
    octets[:, :whole] = data[: count * whole].reshape(count, whole)
    if loose:
        found = np.unpackbits(data[count * whole :], count=loose, bitorder="little").reshape(count, -1)
        octets[:, whole] = np.packbits(found, axis=1, bitorder="little")[:, 0]
    return octets.view(f"<u{itemsize}").reshape(-1).astype(f"u{itemsize}")


def packed(data: bytes) -> NDArray[np.float32]:
    """Bytes as raw floats, with zeros behind them."""
    return np.frombuffer(data + bytes(-len(data) % 4), "<f4")


def _bytes(raw: NDArray[Any], size: int) -> NDArray[np.uint8]:
    if raw.dtype != np.float32:
        raise PayloadError(f"{raw.dtype} values, expected float32")
    data = raw.astype("<f4", copy=False).view(np.uint8)
    if not size <= len(data) < size + 4:
        raise PayloadError(f"{len(data)} bytes, expected {size}")
    return data


def restored(parts: Sequence[tuple[Mark, NDArray[Any]]]) -> NDArray[Any]:
    """The tensor that these units carry; `PayloadError` where they do not fit together."""
    found = {mark.part: (mark, array) for mark, array in parts}
    if len(found) == len(parts):
        if found.keys() == {PLAIN}:
            return found[PLAIN][1]
        if found.keys() == {INTEGER}:
            return _integers(*found[INTEGER])
        if found.keys() == {PATTERNS}:
            mark, array = found[PATTERNS]
            return _floats(_unmapped(_whole(array), _BITS[mark.dtype]), mark.dtype)
        if found.keys() == {EXPONENT, REST}:
            return _joined(*found[EXPONENT], *found[REST])
        if found.keys() == {INDEX, PALETTE}:
            return _looked_up(found[INDEX][1], *found[PALETTE])
        if found.keys() == {PLAIN, PLACES, VALUES}:
            return _with_exceptions(found[PLAIN][1], found[PLACES][1], *found[VALUES])
    raise PayloadError(f"the units {[marked(mark) for mark, _ in parts]} do not make a tensor")


def _whole(array: NDArray[Any]) -> NDArray[np.int32]:
    if array.dtype != np.int32:
        raise PayloadError(f"{array.dtype} values, expected int32")
    return array


def _integers(mark: Mark, array: NDArray[Any]) -> NDArray[Any]:
    values = _whole(array).astype(object if abs(mark.number) >> 62 else np.int64) + mark.number
    bounds = np.iinfo(mark.dtype)
    if values.size and not (values.min() >= bounds.min and values.max() <= bounds.max):
        raise PayloadError(f"integers do not fit {mark.dtype}")
    return values.astype(mark.dtype)


def _floats(patterns: NDArray[Any], dtype: str) -> NDArray[Any]:
    bfloat16 = dtype == "bfloat16"
    floats: NDArray[Any] = (patterns.astype(np.uint32) << 16).view(np.float32) if bfloat16 else patterns.view(dtype)
    return floats


def _joined(mark: Mark, exponents: NDArray[Any], rest_mark: Mark, rest: NDArray[Any]) -> NDArray[Any]:
    bits, dtype = _BITS[mark.dtype], mark.dtype
    if rest_mark.dtype != dtype:
        raise PayloadError(f"exponents of {dtype} beside a rest of {rest_mark.dtype}")
    upper = _EXPONENT_BITS[dtype] + mark.more
    exponents = exponents.T if mark.reversed_dimensions else exponents
    biased = _whole(exponents).astype(np.int64) + mark.number
    if biased.size and not (biased.min() >= 0 and biased.max() < 1 << upper):
        raise PayloadError(f"exponents do not fit {dtype}")
    mantissa = bits - 1 - upper
    count, width = exponents.size, mantissa + 1
    data = _bytes(rest.reshape(-1), count * (width // 8) + (count * (width % 8) + 7) // 8)
    values = _unpack(data, count, width, bits // 8).reshape(exponents.shape)
    one = values.dtype.type(1)
    sign = values >> mantissa << (bits - 1)
    return _floats((values & ((one << mantissa) - one)) | (biased.astype(values.dtype) << mantissa) | sign, dtype)


def _listed(mark: Mark, raw: NDArray[Any], count: int) -> NDArray[Any]:
    """The values whose bytes are packed into raw floats."""
    itemsize = _BITS[mark.dtype] // 8
    patterns = _bytes(raw.reshape(-1), count * itemsize)[: count * itemsize].view(f"<u{itemsize}")
    return _floats(patterns.astype(f"u{itemsize}"), mark.dtype)


def _looked_up(indices: NDArray[Any], mark: Mark, raw: NDArray[Any]) -> NDArray[Any]:
    count = int(_whole(indices).max(initial=-1)) + 1
    if np.any(indices < 0):
        raise PayloadError("a place before the beginning of a list")
    found: NDArray[Any] = _listed(mark, raw, count)[indices]
    return found


def _with_exceptions(array: NDArray[Any], steps: NDArray[Any], mark: Mark, raw: NDArray[Any]) -> NDArray[Any]:
    places = np.cumsum(_whole(steps).reshape(-1), dtype=np.int64)
    if np.any(steps < 0) or np.any(places >= array.size):
        raise PayloadError(f"places of exceptional values outside of a tensor of {array.size} values")
    values = _listed(mark, raw, len(places))
    if values.dtype != array.dtype:
        raise PayloadError(f"{values.dtype} values in a tensor of {array.dtype}")
    result: NDArray[Any] = array.copy()
    result.reshape(-1).view(f"u{result.itemsize}")[places] = values.view(f"u{result.itemsize}")
    return result
