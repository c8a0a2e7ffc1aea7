"""The methods by which a plan sends a tensor, each a way from values to data units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation, with_codebook
from nnc_core.approximator.codebook import codebook_of
from nnc_core.approximator.native import quantize_uniform
from nnc_core.approximator.step import step_size
from nnc_core.bitstream import marks
from nnc_core.bitstream.marks import Mark
from nnc_core.coder.dtypes import data_format
from nnc_core.coder.encoder import CodedUnit, integer_codebook
from nnc_core.coder.levels import MAX_LEVEL, Calibrated, as_floats, beyond_levels, levels_of
from nnc_core.coder.plan import Method, TensorPlan
from nnc_core.coder.single import Format, ask_for, coded_unit, header_of, integer_unit, raw_unit
from nnc_core.errors import ModelError
from nnc_core.tables.code_points import GeneralProfileIdc, PayloadType

__all__ = ["CODERS", "quantized_units"]

_MORE, _SAMPLE = 1, 1 << 16


def quantized_units(
    name: str, array: NDArray[Any], plan: TensorPlan, form: Format, calibration: Calibrated | None = None
) -> Iterator[CodedUnit]:
    """Multiples of the step; values that have none, or too large a one, are sent beside them."""
    values = as_floats(name, array)
    step = step_size(plan.qp, form.qp_density)
    strange = None
    found = levels_of(values, step, plan, calibration)
    if found is None or (plan.exact and _negative_zeros(values).any()):
        strange = beyond_levels(values, step) | (_negative_zeros(values) & plan.exact)
        if 16 * np.count_nonzero(strange) > strange.size and (raw := _as_raw(array, values)) is not None:
            yield raw_unit(marks.escaped(name), raw)
            return
        found = levels_of(np.where(strange, np.float32(0), values), step, plan, calibration)
    if found is None:
        raise ModelError("has values beyond the reach of its qp", tensor=name)
    header = header_of(marks.escaped(name), array.shape, PayloadType.NNR_PT_FLOAT)
    ask_for(header, array.dtype, form)
    header.dq_flag = plan.dq_flag
    yield coded_unit(header, found.levels, plan, form, found.cabac_unary_length_minus1)
    if strange is not None:
        yield from _exceptions(name, array, values, strange, plan, form)


def _negative_zeros(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    zeros: NDArray[np.bool_] = np.signbit(values) & (values == 0)
    return zeros


def _exceptions(
    name: str,
    array: NDArray[Any],
    values: NDArray[np.float32],
    strange: NDArray[np.bool_],
    plan: TensorPlan,
    form: Format,
) -> Iterator[CodedUnit]:
    places = np.flatnonzero(strange)
    given = array if _returned(array.dtype, form) == array.dtype else values
    wider = given is values and array.dtype.itemsize > values.itemsize
    if wider and not np.array_equal(np.isfinite(values[strange]), np.isfinite(array[strange])):
        raise ModelError("has finite values beyond float32, which NNR cannot express", tensor=name)
    dtype = given.dtype.name
    steps = np.diff(places, prepend=0).astype(np.int32)
    yield integer_unit(marks.marked(Mark(name, marks.PLACES, dtype)), steps, plan, form)
    yield raw_unit(marks.marked(Mark(name, marks.VALUES, dtype)), marks.packed(_little(given.reshape(-1)[places])))


def _returned(dtype: np.dtype[Any], form: Format) -> np.dtype[Any]:
    """The type in which a quantized tensor of this type is decoded."""
    extended = form.general_profile_idc == GeneralProfileIdc.EXTENDED
    return dtype if data_format(dtype) is not None and extended else np.dtype(np.float32)


def _little(values: NDArray[Any]) -> bytes:
    patterns = marks.bit_patterns(values)
    return patterns.astype(patterns.dtype.newbyteorder("<"), copy=False).tobytes()


def _codebook(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    """Multiples of the step as indices into the list of all that occur."""
    values = as_floats(name, array)
    try:
        levels = quantize_uniform(values.reshape(len(values), -1), step_size(plan.qp, form.qp_density))
    except ValueError:
        raise ModelError("has values beyond the reach of a codebook with this qp", tensor=name) from None
    book = codebook_of(levels, plan.cabac_unary_length_minus1)
    tensor = with_codebook(Approximation(levels, plan.qp), book)
    header = header_of(marks.escaped(name), array.shape, PayloadType.NNR_PT_FLOAT)
    ask_for(header, array.dtype, form)
    header.codebook_present_flag = True
    header.integer_codebook = integer_codebook(book)
    yield coded_unit(header, tensor.matrix(), plan, form)


def _raw_floats(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    raw = _as_raw(array, as_floats(name, array))
    if raw is None:
        raise ModelError("has values that are not in float32", tensor=name)
    unit = raw_unit(marks.escaped(name), raw)
    ask_for(unit.header, array.dtype, form)
    yield unit


def _as_raw(array: NDArray[Any], values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    narrow = array.dtype.itemsize <= values.itemsize
    return values if narrow or np.array_equal(values, array, equal_nan=True) else None


def _patterns(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    unit = marks.marked(Mark(name, marks.PATTERNS, _float_type(name, array)))
    yield integer_unit(unit, marks.mapped(marks.bit_patterns(array)), plan, form)


def _palette(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    """Indices into the list of all bit patterns, the most frequent first."""
    dtype = _float_type(name, array)
    entries, indices, counts = np.unique(marks.bit_patterns(array), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    places = np.argsort(order, kind="stable").astype(np.int32)[indices].reshape(array.shape)
    yield integer_unit(marks.marked(Mark(name, marks.INDEX, dtype)), places, plan, form)
    yield raw_unit(marks.marked(Mark(name, marks.PALETTE, dtype)), marks.packed(_little(entries[order])))


def _planes(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    """Exponents with the first bit of the mantissa, which is not evenly spread, in the better of two orders."""
    dtype = _float_type(name, array)
    exponents, rest = marks.planes(marks.bit_patterns(array), dtype, _MORE)
    usual = int(np.bincount(exponents.reshape(-1)).argmax())
    exponents -= usual
    turned = _better_turned(exponents, plan, form)
    unit = marks.marked(Mark(name, marks.EXPONENT, dtype, usual, _MORE, turned))
    yield integer_unit(unit, exponents.T if turned else exponents, plan, form)
    yield raw_unit(marks.marked(Mark(name, marks.REST, dtype)), marks.packed(rest))


def _better_turned(integers: NDArray[np.int32], plan: TensorPlan, form: Format) -> bool:
    """Whether what stands in a column is more alike than what stands in a row, by some of the rows."""
    if min(len(integers), integers.size // len(integers)) <= 1:
        return False
    some = integers[:: max(1, integers.size // _SAMPLE)]
    as_it_is, turned = (len(integer_unit("", each, plan, form).payload) for each in (some, some.T))
    return turned < as_it_is


def _float_type(name: str, array: NDArray[Any]) -> str:
    dtype = marks.float_type(array.dtype)
    if dtype is None:
        raise ModelError(f"has dtype {array.dtype}, which NNR cannot express", tensor=name)
    return dtype


def _integers(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    least, most = int(array.min()) - plan.offset, int(array.max()) - plan.offset
    if least < -MAX_LEVEL or most > MAX_LEVEL:
        raise ModelError("has integers beyond +-(2**31 - 1), which NNR cannot express", tensor=name)
    if plan.offset:
        unit = marks.marked(Mark(name, marks.INTEGER, array.dtype.name, plan.offset))
        wide = array.astype(object) if abs(plan.offset) >> 31 else array.astype(np.int64)
        yield integer_unit(unit, (wide - plan.offset).astype(np.int32), plan, form)
    else:
        yield integer_unit(marks.escaped(name), array.astype(np.int32), plan, form, array.dtype)


CODERS: dict[Method, Callable[[str, NDArray[Any], TensorPlan, Format], Iterator[CodedUnit]]] = {
    Method.QUANTIZED: quantized_units,
    Method.CODEBOOK: _codebook,
    Method.RAW: _raw_floats,
    Method.PATTERNS: _patterns,
    Method.PALETTE: _palette,
    Method.PLANES: _planes,
    Method.INTEGERS: _integers,
}
