"""Which values must survive as they are, and how they do so in the fewest bytes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream import marks
from nnc_core.coder.levels import as_floats, known
from nnc_core.coder.plan import Method, TensorPlan, varied
from nnc_core.coder.single import Format
from nnc_core.coder.units import coded_size, data_units
from nnc_core.entropy.unary_length import estimated_bits
from nnc_core.errors import ModelError
from nnc_core.planner.statistics import is_vector

__all__ = ["exact_by_value", "exact_plan", "integer_plan", "sample_of", "worth_coding"]

_FEW: Final = 256
"""How many different values are few, if each is there this often on average:"""
_REPEATED: Final = 16
_SMALL: Final = 1024
"""Values that are told apart faster one by one than as an array, up to this number."""

_PIECES, _PIECE = 4, 1 << 14
"""The elements of a sample: evenly spread, in pieces that keep their neighbours together."""

_HANDFUL, _OFFSET_BITS = 8, 128
_DOUBT: Final = 1.25
"""By how much estimates of bits must differ to be trusted, for more than a handful of values."""

_STEP_EXPONENTS = range(-32, 32)
_FINE: Final = 1 << 24
"""The most steps that a value on a lattice has: float32 tells no more of them apart."""
_MOST = (1 << 31) - 1
_ONE_BLOCK = 1 << 18
_UNITS_OF_FLOATS: Final = 12
"""Bytes that exact floats take for their units beside the payloads, at least; small ones are often in doubt."""


def exact_by_value(array: NDArray[Any]) -> str:
    """Why the values of a floating-point tensor are exact: the reason in a few words, empty if they are not.

    They are integers, possibly in units of a power of two, or few different ones.
    """
    values = as_floats("", array)
    if _clearly_free(values.reshape(-1)):
        return ""
    if _few(values):
        return "few different values"
    found = _lattice(values)
    if found is None:
        return ""
    exponent, most = found
    vector = is_vector(values.shape)
    if exponent >= 0 and most << exponent <= (1 << (24 if vector else 16)):
        return "whole numbers"
    return "multiples of a power of two" if most <= (1 << (15 if vector else 8)) else ""


def _clearly_free(flat: NDArray[np.float32]) -> bool:
    """Whether a handful of the values show that these are neither few different ones nor have a lattice."""
    some = [value for value in flat[:: max(1, flat.size >> 3)].tolist() if -math.inf < value < math.inf]
    return len(set(some)) > _most_of_few(flat.size) and _scattered(some, _FINE)


def _most_of_few(size: int) -> int:
    """How many different values among so many are few at most."""
    return min(_FEW, max(2, size // _REPEATED))


def _few(values: NDArray[Any]) -> bool:
    """Whether the values have few different bit patterns."""
    patterns = marks.bit_patterns(values).reshape(-1)
    if not patterns.size:
        return False
    most = _most_of_few(patterns.size)
    if len(set(patterns[:: max(1, patterns.size // (2 * most))].tolist())) > most:
        return False
    if patterns.size <= _SMALL:
        return len(set(patterns.tolist())) <= min(most, (patterns.size + 1) // 2 + 1)
    found = _different(patterns[:: max(1, patterns.size >> 10)])
    for at in range(0, patterns.size, _ONE_BLOCK):
        if found.size > most:
            return False
        found = _different(np.concatenate((found, patterns[at : at + _ONE_BLOCK])))
    return found.size <= min(most, (patterns.size + 1) // 2 + 1)


def _different(values: NDArray[Any]) -> NDArray[Any]:
    """What ``np.unique`` gives, without the modules that it imports."""
    ordered = np.sort(values)
    different: NDArray[Any] = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    return different


def _lattice(values: NDArray[np.float32], limit: int = _FINE) -> tuple[int, int] | None:
    """The exponent of the largest power of two that divides all values, and the largest quotient.

    `None` where that is beyond the ``limit``, or a value is infinite or not a number.
    """
    flat = values.reshape(-1)
    if _scattered(flat[:: max(1, flat.size >> 2)].tolist(), limit):
        return None
    exponent, peak = 255, 0.0
    for at in (slice(None, None, max(1, flat.size >> 8)), *_blocks(flat.size)):
        part = flat[at]
        if not np.isfinite(part).all():
            return None
        exponent = min(exponent, _lowest_bit(part[part != 0]))
        peak = max(peak, float(np.abs(part).max()))
        if peak and math.ldexp(peak, -exponent) > limit:
            return None
    return (exponent, int(math.ldexp(peak, -exponent))) if peak else (0, 0)


def _scattered(some: list[float], limit: int) -> bool:
    """Whether these few values alone show that there is no lattice."""
    peak, divisor = 0.0, 1
    for value in filter(math.isfinite, some):
        peak, divisor = max(peak, abs(value)), max(divisor, value.as_integer_ratio()[1])
        if peak * divisor > limit:
            return True
    return False


def _blocks(size: int) -> Iterator[slice]:
    return (slice(at, at + _ONE_BLOCK) for at in range(0, size, _ONE_BLOCK))


def _lowest_bit(nonzeros: NDArray[np.float32]) -> int:
    """The exponent of the lowest bit that is set in any of the values."""
    if not nonzeros.size:
        return 255
    mantissas, exponents = np.frexp(nonzeros)
    integers = np.abs(np.ldexp(mantissas, 24)).astype(np.int64)
    lowest = np.frexp((integers & -integers).astype(np.float64))[1] - 1
    return int((exponents - 24 + lowest).min())


# --- the smallest way ------------------------------------------------------------------------------------------------


def exact_plan(name: str, array: NDArray[Any], plan: TensorPlan, form: Format, *, readable: bool = False) -> TensorPlan:
    """The way to send a floating-point tensor as it is that takes the fewest bytes.

    What every decoder gives back as the tensor itself is preferred, unless it takes 3 % more; where it is to be
    ``readable``, so are steps and codebooks, whatever they take. `ModelError` for a tensor that NNR cannot express.
    """
    array = known(array).reshape(array.shape or (1,))
    found = list(_candidates(array, as_floats(name, array), plan, form))
    if array.size <= _LEARNT:
        found += [varied(each, cabac_unary_length_minus1=0) for each in found if each.method in _LARGE_LEVELS]
    plans = [each for each in found if not readable or each.method in _READABLE] or found
    if not plans:
        raise ModelError(f"must be exact, which NNR cannot express for {array.dtype}", tensor=name)
    if len(plans) == 1:
        return plans[0]
    sample = sample_of(array)
    return min(plans, key=lambda each: _size(name, sample, each, form) * _PREFERENCE[each.method])


_LARGE_LEVELS, _LEARNT = (Method.QUANTIZED, Method.PATTERNS), 4096
"""What is coded with fewer contexts as well, where there are too few values to learn from."""

_FEW_IN_PLANES: Final = 48
"""So few values take less as they are than the names and headers of two units do."""

_READABLE = (Method.QUANTIZED, Method.CODEBOOK)
_MARKED = (Method.PATTERNS, Method.PALETTE, Method.PLANES)
_PREFERENCE = dict.fromkeys(Method, 1.0) | dict.fromkeys(_MARKED, 1.03)


def _candidates(
    array: NDArray[Any], values: NDArray[np.float32], plan: TensorPlan, form: Format
) -> Iterator[TensorPlan]:
    single = np.array_equal(values, array) if array.dtype.itemsize > 4 else True
    if single and (found := _lattice(values, _MOST)) is not None and found[0] in _STEP_EXPONENTS:
        qp = found[0] << form.qp_density
        if found[1] <= 1 << 24:
            yield varied(plan, method=Method.QUANTIZED, qp=qp, dq_flag=False)
        if _few(values) and not np.any(np.signbit(values) & (values == 0)):
            yield varied(plan, method=Method.CODEBOOK, qp=qp)
    if array.dtype.name == "float32" or (array.dtype.itemsize > 4 and single):
        yield varied(plan, method=Method.RAW)
    if marks.float_type(array.dtype) is not None:
        if _few(array):
            yield varied(plan, method=Method.PALETTE)
        if array.dtype.itemsize <= 2:
            yield varied(plan, method=Method.PATTERNS)
        if array.dtype.name != "float32" or array.size > _FEW_IN_PLANES:
            yield varied(plan, method=Method.PLANES)


def integer_plan(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> TensorPlan:
    """The way to send integers that takes the fewest bytes: as they are, or without what most have in common."""
    plan = varied(plan, method=Method.INTEGERS, exact=True, reason=plan.reason or "integers")
    sample = sample_of(known(array).reshape(array.shape or (1,)))
    unary_lengths = dict.fromkeys((plan.cabac_unary_length_minus1, 0))
    ways = list(product(_offsets(array, sample), unary_lengths))
    bits = [_integer_bits(sample, *way) for way in ways]
    least = min(bits, default=0) * (1 if array.size == 1 else _DOUBT + _HANDFUL / array.size)
    plans = [
        varied(plan, offset=offset, cabac_unary_length_minus1=unary)
        for (offset, unary), each in zip(ways, bits, strict=True)
        if each <= least
    ]
    return min(plans, key=lambda each: _size(name, sample, each, form)) if plans[1:] else next(iter(plans), plan)


def _offsets(array: NDArray[Any], sample: NDArray[Any]) -> Iterator[int]:
    """0 and, where there are enough values to pay for it, the one in the middle, if they bring all within reach."""
    least, most = int(array.min()), int(array.max())
    offsets = (
        [0] if array.size == 1 and max(-least, most) <= _MOST else [0, int(np.sort(sample, None)[sample.size // 2])]
    )
    yield from (each for each in dict.fromkeys(offsets) if least - each >= -_MOST and most - each <= _MOST)


def _integer_bits(sample: NDArray[Any], offset: int, cabac_unary_length_minus1: int) -> float:
    """About what they take, and the longer name of a unit that has an ``offset``."""
    name, flags = _OFFSET_BITS * (offset != 0), cabac_unary_length_minus1 + 1
    if sample.size > _HANDFUL:
        wide = sample.astype(object) if offset >> 31 else sample.astype(np.int64)
        return name + estimated_bits((wide - offset).astype(np.int64), cabac_unary_length_minus1)
    values: list[int] = sample.reshape(-1).tolist()
    beyond = (abs(value - offset) - flags for value in values)
    return name + sum(2 * each.bit_length() if each > 0 else each for each in beyond) + flags * sample.size


def sample_of(array: NDArray[Any]) -> NDArray[Any]:
    """The tensor itself if it is small, or else pieces of it as a matrix with rows of the same length."""
    if array.size <= _PIECES * _PIECE:
        return array
    width = array.size // len(array)
    rows, width = (max(1, _PIECE // width), width) if width <= _PIECE else (1, _PIECE)
    flat = array.reshape(-1)
    starts = [(array.size - rows * width) * piece // (_PIECES - 1) // width * width for piece in range(_PIECES)]
    return np.concatenate([flat[at : at + rows * width] for at in starts]).reshape(-1, width)


def _size(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> int:
    return coded_size(data_units(name, array, plan, form))


def worth_coding(array: NDArray[Any]) -> bool:
    """Whether an array that must not change takes fewer bytes as a tensor of NNR than deflated in a topology unit.

    For arrays of integers and floats; large ones are judged by samples. False for what NNR cannot express.

    >>> import numpy as np
    >>> worth_coding(np.random.default_rng(0).normal(0, 3, 10000).astype(np.int8))
    True
    >>> worth_coding(np.arange(100000))
    False
    """
    if not array.size:
        return False
    form = Format(2)
    sample = sample_of(np.ascontiguousarray(array))
    whole = known(array).dtype.kind in "iu"
    try:
        plan = integer_plan if whole else exact_plan
        size = _size("", sample, plan("", sample, TensorPlan(), form), form)
    except ModelError:
        return False
    return size + (0 if whole else _UNITS_OF_FLOATS) < len(zlib.compress(sample.tobytes(), 6))
