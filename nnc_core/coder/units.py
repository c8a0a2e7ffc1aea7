"""From one tensor to its data units, as its plan says: approximate and code (clauses 7.3.8, 9 and 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.native import quantize_dependent, quantize_uniform
from nnc_core.approximator.step import step_size
from nnc_core.bitstream import marks
from nnc_core.bitstream.marks import Mark
from nnc_core.coder.dtypes import data_format
from nnc_core.entropy.native import Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import ModelError
from nnc_core.planner.plan import Method, TensorPlan
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.code_points import GeneralProfileIdc, PayloadType
from nnc_core.tables.entry_point import EntryPoint

__all__ = ["Format", "Unit", "as_floats", "coded_size", "data_units", "known"]

_MAX_LEVEL = (1 << 31) - 1
_FEW = 1024
_HEADER = 24  # about what a data unit takes besides name and payload


class Format(NamedTuple):
    """What the parameter sets of the bitstream say about all tensors."""

    qp_density: int
    general_profile_idc: int = GeneralProfileIdc.EXTENDED


class Unit(NamedTuple):
    """One data unit, ready to be written."""

    header: CompressedDataUnitHeader
    payload: NDArray[np.uint8]


def data_units(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> tuple[Unit, ...]:
    """Code one tensor; most take one unit.

    Raises `ModelError` for a tensor that NNR cannot express, or not in the way that is planned.
    """
    _check_name(name)
    if array.size == 0:
        raise ModelError(f"has no elements (shape {array.shape}), which NNR cannot express", tensor=name)
    array = known(array)
    if (array.dtype.kind in "iu") != (plan.method == Method.INTEGERS):
        raise ModelError(f"has dtype {array.dtype}, and is planned as {plan.method.value}", tensor=name)
    return tuple(_CODERS[plan.method](name, array.reshape(array.shape or (1,)), plan, form))


def coded_size(units: tuple[Unit, ...]) -> int:
    """About how many bytes the units take."""
    return sum(len(unit.payload) + len(unit.header.topology_elem_id or "") + _HEADER for unit in units)


def known(array: NDArray[Any]) -> NDArray[Any]:
    """The array with integers of at least 8 bits, in the byte order of this machine."""
    if array.dtype.kind == "V" and array.dtype.name.startswith(("int", "uint")):
        return array.astype(np.int8)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise ModelError(f"has the name {name!r}, expected text")
    try:
        zero = b"\0" in name.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"has a name that is not UTF-8: {error}", tensor=name) from None
    if zero:
        raise ModelError("has a zero byte in its name, which NNR cannot express", tensor=name)


def as_floats(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """The values as float32; `ModelError` for what has none."""
    # bfloat16 and other types from outside numpy have kind 'V' too, and know how to become float32.
    if array.dtype.kind not in "fV" or issubclass(array.dtype.type, np.void):
        raise ModelError(f"has dtype {array.dtype}, which NNR cannot express", tensor=name)
    if array.dtype.name == "bfloat16":  # with the bits of what is not a number
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, np.float32)


# --- the methods -----------------------------------------------------------------------------------------------------


def _quantized(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[Unit]:
    """Multiples of the step; values that have none, or too large a one, are sent beside them."""
    values = as_floats(name, array)
    step = step_size(plan.qp, form.qp_density)
    strange = _beyond(values, step)
    if plan.exact:
        strange = _or_negative_zeros(strange, values)
    if strange is not None and 16 * strange.sum() > strange.size and (raw := _as_raw(array, values)) is not None:
        yield _raw(marks.escaped(name), raw)
        return
    regular = values if strange is None else np.where(strange, np.float32(0), values)
    levels = _levels(regular.reshape(len(values), -1), step, plan)
    header = _header(marks.escaped(name), array.shape, PayloadType.NNR_PT_FLOAT)
    _ask_for(header, array.dtype, form)
    header.dq_flag = plan.dq_flag
    yield _coded(header, levels, plan, form)
    if strange is not None:
        yield from _exceptions(name, array, values, strange, plan, form)


def _beyond(values: NDArray[np.float32], step: float) -> NDArray[np.bool_] | None:
    """Which values cannot be quantized; `None` if there are none."""
    bound = np.float32(min(step * (_MAX_LEVEL - 8), np.finfo(np.float32).max))
    if -bound < values.min() and values.max() < bound:
        return None
    strange: NDArray[np.bool_] = ~(np.abs(values) < bound)
    return strange


def _or_negative_zeros(strange: NDArray[np.bool_] | None, values: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    zeros: NDArray[np.bool_] = np.signbit(values) & (values == 0)
    if not zeros.any():
        return strange
    return zeros if strange is None else strange | zeros


def _levels(matrix: NDArray[np.float32], step: float, plan: TensorPlan) -> NDArray[np.int32]:
    return quantize_dependent(matrix, step, plan.scan_order) if plan.dq_flag else quantize_uniform(matrix, step)


def _exceptions(
    name: str,
    array: NDArray[Any],
    values: NDArray[np.float32],
    strange: NDArray[np.bool_],
    plan: TensorPlan,
    form: Format,
) -> Iterator[Unit]:
    places = np.flatnonzero(strange)
    given = array if _returned(array.dtype, form) == array.dtype else values
    wider = given is values and array.dtype.itemsize > values.itemsize
    if wider and not np.array_equal(np.isfinite(values[strange]), np.isfinite(array[strange])):
        raise ModelError("has finite values beyond float32, which NNR cannot express", tensor=name)
    dtype = given.dtype.name
    steps = np.diff(places, prepend=0).astype(np.int32)
    yield _integer_unit(marks.marked(Mark(name, marks.PLACES, dtype)), steps, plan, form)
    yield _raw(marks.marked(Mark(name, marks.VALUES, dtype)), marks.packed(_little(given.reshape(-1)[places])))


def _returned(dtype: np.dtype[Any], form: Format) -> np.dtype[Any]:
    """The type in which a quantized tensor of this type is decoded."""
    extended = form.general_profile_idc == GeneralProfileIdc.EXTENDED
    return dtype if data_format(dtype) is not None and extended else np.dtype(np.float32)


def _little(values: NDArray[Any]) -> bytes:
    patterns = marks.bit_patterns(values)
    return patterns.astype(patterns.dtype.newbyteorder("<"), copy=False).tobytes()


def _codebook(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[Unit]:
    """Indices into the list of all values, the most frequent of which has the index 0."""
    values = as_floats(name, array)
    entries, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    zero = int(counts.argmax())
    multiples = np.round(entries.astype(np.float64) / step_size(plan.qp, form.qp_density))
    if not np.all(np.abs(multiples) <= _MAX_LEVEL):
        raise ModelError("has values beyond the reach of a codebook with this qp", tensor=name)
    header = _header(marks.escaped(name), array.shape, PayloadType.NNR_PT_FLOAT)
    _ask_for(header, array.dtype, form)
    header.codebook_present_flag = True
    header.integer_codebook = IntegerCodebook.from_values([int(multiple) for multiple in multiples], zero)
    levels = (indices.reshape(len(array), -1) - zero).astype(np.int32)
    yield _coded(header, levels, plan, form)


def _raw_floats(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[Unit]:
    raw = _as_raw(array, as_floats(name, array))
    if raw is None:
        raise ModelError("has values that are not in float32", tensor=name)
    unit = _raw(marks.escaped(name), raw)
    _ask_for(unit.header, array.dtype, form)
    yield unit


def _as_raw(array: NDArray[Any], values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    narrow = array.dtype.itemsize <= values.itemsize
    return values if narrow or np.array_equal(values, array, equal_nan=True) else None


def _patterns(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[Unit]:
    unit = marks.marked(Mark(name, marks.PATTERNS, _float_type(name, array)))
    yield _integer_unit(unit, marks.mapped(marks.bit_patterns(array)), plan, form)


def _palette(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[Unit]:
    """Indices into the list of all bit patterns, the most frequent first."""
    dtype = _float_type(name, array)
    entries, indices, counts = np.unique(marks.bit_patterns(array), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    places = np.argsort(order, kind="stable").astype(np.int32)[indices].reshape(array.shape)
    yield _integer_unit(marks.marked(Mark(name, marks.INDEX, dtype)), places, plan, form)
    yield _raw(marks.marked(Mark(name, marks.PALETTE, dtype)), marks.packed(_little(entries[order])))


def _planes(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[Unit]:
    dtype = _float_type(name, array)
    exponents, rest = marks.planes(marks.bit_patterns(array), dtype)
    usual = int(np.bincount(exponents.reshape(-1)).argmax())
    yield _integer_unit(marks.marked(Mark(name, marks.EXPONENT, dtype, usual)), exponents - usual, plan, form)
    yield _raw(marks.marked(Mark(name, marks.REST, dtype)), marks.packed(rest))


def _float_type(name: str, array: NDArray[Any]) -> str:
    dtype = marks.float_type(array.dtype)
    if dtype is None:
        raise ModelError(f"has dtype {array.dtype}, which NNR cannot express", tensor=name)
    return dtype


def _integers(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[Unit]:
    least, most = int(array.min()) - plan.offset, int(array.max()) - plan.offset
    if least < -_MAX_LEVEL or most > _MAX_LEVEL:
        raise ModelError("has integers beyond +-(2**31 - 1), which NNR cannot express", tensor=name)
    if plan.offset:
        unit = marks.marked(Mark(name, marks.INTEGER, array.dtype.name, plan.offset))
        wide = array.astype(object) if abs(plan.offset) >> 31 else array.astype(np.int64)
        yield _integer_unit(unit, (wide - plan.offset).astype(np.int32), plan, form)
    else:
        yield _integer_unit(marks.escaped(name), array.astype(np.int32), plan, form, array.dtype)


_CODERS: dict[Method, Callable[[str, NDArray[Any], TensorPlan, Format], Iterator[Unit]]] = {
    Method.QUANTIZED: _quantized,
    Method.CODEBOOK: _codebook,
    Method.RAW: _raw_floats,
    Method.PATTERNS: _patterns,
    Method.PALETTE: _palette,
    Method.PLANES: _planes,
    Method.INTEGERS: _integers,
}


# --- units -----------------------------------------------------------------------------------------------------------


def _header(unit: str, shape: tuple[int, ...], payload_type: PayloadType) -> CompressedDataUnitHeader:
    return CompressedDataUnitHeader(payload_type, topology_elem_id=unit, tensor_dimensions=shape)


def _ask_for(header: CompressedDataUnitHeader, dtype: np.dtype[Any], form: Format) -> None:
    wanted = data_format(dtype)
    if wanted is not None and form.general_profile_idc == GeneralProfileIdc.EXTENDED:
        header.nnr_decompressed_data_format_present_flag = True
        header.nnr_decompressed_data_format = wanted


def _raw(unit: str, values: NDArray[np.float32]) -> Unit:
    header = _header(unit, values.shape, PayloadType.NNR_PT_RAW_FLOAT)
    return Unit(header, np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8))


def _integer_unit(
    unit: str, integers: NDArray[np.int32], plan: TensorPlan, form: Format, dtype: np.dtype[Any] | None = None
) -> Unit:
    header = _header(unit, integers.shape, PayloadType.NNR_PT_INT)
    if dtype is not None:
        _ask_for(header, dtype, form)
    return _coded(header, np.ascontiguousarray(integers.reshape(len(integers), -1)), plan, form)


def _coded(header: CompressedDataUnitHeader, levels: NDArray[np.int32], plan: TensorPlan, form: Format) -> Unit:
    book = header.integer_codebook
    parameters = TensorParameters(
        general_profile_idc=form.general_profile_idc,
        cabac_unary_length_minus1=plan.cabac_unary_length_minus1,
        dq_flag=header.dq_flag,
        scan_order=plan.scan_order if min(levels.shape) > 1 else 0,
        codebook_size=book.codebook_size if book else 0,
        codebook_zero_offset=book.zero_offset if book else 0,
    )
    quantized = header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_FLOAT
    qp = (plan.qp, 6 + form.qp_density) if quantized else None
    header.cabac_unary_length_minus1 = parameters.cabac_unary_length_minus1
    header.scan_order = parameters.scan_order
    payload, header.entry_points = _shortest(levels, qp, parameters, plan)
    return Unit(header, np.frombuffer(payload, np.uint8))


def _shortest(
    levels: NDArray[np.int32], qp: tuple[int, int] | None, parameters: TensorParameters, plan: TensorPlan
) -> tuple[bytes, tuple[EntryPoint, ...]]:
    """Code in every way that is worth a try and keep what is shortest."""
    coded = (_payload(levels, qp, parameters, choices) for choices in _choices(levels, parameters, plan))
    return min(coded, key=lambda each: len(each[0]))


def _choices(levels: NDArray[np.int32], parameters: TensorParameters, plan: TensorPlan) -> Iterator[TensorChoices]:
    """Without and, where there is a row to be skipped, with row skipping.

    The shift indices are chosen by an estimate that can err by a few bytes, which count where there are few.
    """
    may_skip = plan.row_skip_enabled_flag and _can_skip_rows(levels.shape, parameters)
    for skipping in (False, True) if may_skip and not levels.any(axis=1).all() else (False,):
        choices = TensorChoices(row_skip_enabled_flag=skipping)
        if plan.param_opt_flag:
            yield replace(choices, shift_indices=shift_indices(levels, parameters, choices))
        if not plan.param_opt_flag or levels.size <= _FEW:
            yield choices


def _can_skip_rows(shape: tuple[int, ...], p: TensorParameters) -> bool:
    """Whether the syntax has skipped rows, and all decoders understand them alike.

    With dependent quantization, some take the part of a skipped row that lies in one block to be as wide as the tensor,
    when they step the state. As four zeros lead back to the same state, that shows unless the widths agree modulo 4.
    """
    rows, width = shape
    disputed = p.dq_flag and p.scan_order > 0 and width > 4 << p.scan_order and width % 4 != 0
    extended = p.general_profile_idc == GeneralProfileIdc.EXTENDED
    return extended and rows > 1 and width > 1 and p.codebook_size != 1 and not disputed


def _payload(
    levels: NDArray[np.int32], qp: tuple[int, int] | None, parameters: TensorParameters, choices: TensorChoices
) -> tuple[bytes, tuple[EntryPoint, ...]]:
    encoder = Encoder()
    if qp is not None:
        encoder.iae(*qp)
    encoder.tensor(levels, parameters, choices)
    payload = encoder.finish()
    return payload, tuple(encoder.entry_points[0])
