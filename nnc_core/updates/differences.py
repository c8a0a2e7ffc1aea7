"""Exact differences of two tensors as integers that NNR codes (NNR_PT_INT), and the way back.

The bit patterns of floating-point numbers are mapped to integers that grow with the value; each pattern has its own, so
that -0 and every payload of what is not a number survive. Two patterns of up to 16 bits have a difference of 32 bits at
most; wider ones are subtracted modulo 2**32, those of 64 bits in two halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError

__all__ = ["Difference", "Literal", "applied", "difference", "exponents", "is_float", "parts_of", "patterns_of"]

_LEAST = -(1 << 31)
"""The one 32-bit integer that the arithmetic coder cannot hold."""

_EXPONENTS = {"float16": (10, 5), "bfloat16": (7, 8), "float32": (23, 8), "float64": (52, 11)}


class Literal(NamedTuple):
    """An element whose difference cannot be coded: its flat place in coding order, and the new bit pattern."""

    place: int
    bits: int


class Difference(NamedTuple):
    """What changes a tensor into another: one int32 array, or two (high and low halves) for 64-bit types.

    An element that has a literal has any value in the arrays but 0, so that a unit says that there is a change.
    """

    parts: tuple[NDArray[np.int32], ...]
    literals: tuple[Literal, ...] = ()


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether patterns of this type have a sign bit above a magnitude; types of ``ml_dtypes`` included."""
    return str(dtype.name).startswith(("float", "bfloat"))


def patterns_of(array: NDArray[Any]) -> NDArray[Any]:
    """The bits of each element as unsigned integers of its size; `ModelError` for types that have more than 64."""
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    if contiguous.dtype.itemsize not in (1, 2, 4, 8) or contiguous.dtype.hasobject:
        raise ModelError(f"has dtype {array.dtype}, whose differences cannot be coded")
    little = contiguous if contiguous.dtype.isnative else contiguous.astype(contiguous.dtype.newbyteorder("="))
    return little.view(f"u{little.dtype.itemsize}")


def exponents(array: NDArray[Any]) -> NDArray[Any]:
    """The exponent field of each element, unsigned; zeros for types that have none."""
    field = _EXPONENTS.get(array.dtype.name)
    if field is None:
        return np.zeros(array.shape, np.uint8)
    mantissa, bits = field
    patterns = patterns_of(array) >> mantissa
    return (patterns & ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def difference(new: NDArray[Any], base: NDArray[Any]) -> Difference:
    """What has to be added to ``base`` to get ``new``, two arrays of the same shape and type."""
    change = _mapped(new)
    change -= _mapped(base)  # modulo the size of the type
    return _without_least(parts_of(change) if change.itemsize == 8 else (change,), new)


def parts_of(change: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The upper and the lower half of 64-bit differences; the lower one is signed as well."""
    low = change.astype(np.int32)
    with np.errstate(over="ignore"):
        return ((change - low) >> 32).astype(np.int32), low


def _without_least(parts: tuple[NDArray[np.int32], ...], new: NDArray[Any]) -> Difference:
    strange = np.logical_or.reduce([part == _LEAST for part in parts])
    if not strange.any():
        return Difference(parts)
    places = np.flatnonzero(strange)
    bits = patterns_of(new).reshape(-1)[places]
    literals = tuple(Literal(int(place), int(pattern)) for place, pattern in zip(places, bits, strict=True))
    return Difference(tuple(np.where(strange, np.int32(1), part) for part in parts), literals)


def applied(base: NDArray[Any], parts: Sequence[NDArray[np.int32]], literals: Sequence[Literal] = ()) -> NDArray[Any]:
    """The new tensor: ``base`` with a `Difference` added; of the shape and type of ``base``."""
    signed = _mapped(base)
    with np.errstate(over="ignore"):
        if len(parts) == 1:
            signed = signed + parts[0].astype(signed.dtype)
        else:
            signed = signed + (parts[0].astype(np.int64) << 32) + parts[1]
    patterns = _unmapped(signed, base.dtype)
    for literal in literals:
        patterns.reshape(-1)[literal.place] = literal.bits
    native = base.dtype if base.dtype.isnative else base.dtype.newbyteorder("=")
    new: NDArray[Any] = patterns.view(native).astype(base.dtype, copy=False)
    return new


def _mapped(array: NDArray[Any]) -> NDArray[Any]:
    """The elements as integers that grow with them, a new array: int32 for types of up to 32 bits, else int64."""
    patterns = patterns_of(array)
    if is_float(array.dtype):
        patterns = _turned(patterns)
        patterns = patterns.view(f"i{patterns.itemsize}")
    return patterns.astype(np.int32 if patterns.itemsize <= 4 else np.int64)  # keeps the bits of the widest


def _unmapped(signed: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    patterns = signed.astype(f"u{dtype.itemsize}")
    return _turned(patterns) if is_float(dtype) else patterns


def _turned(patterns: NDArray[Any]) -> NDArray[Any]:
    """Bit patterns of floats with all bits but the sign inverted where that is set; the same again undoes it."""
    bits = 8 * patterns.itemsize - 1
    signed = patterns.view(f"i{patterns.itemsize}")
    turned = signed >> bits
    turned &= signed.dtype.type((1 << bits) - 1)
    turned ^= signed
    return turned.view(patterns.dtype)
