"""From one tensor to its data units, as its plan says: approximate and code (clauses 7.3.8, 9 and 10)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator import rate_aware
from nnc_core.approximator.approximation import Approximation, quantized, with_codebook
from nnc_core.approximator.calibrated import Calibration, LayerInputs
from nnc_core.approximator.codebook import codebook_of
from nnc_core.approximator.native import quantize_uniform, reconstruct
from nnc_core.approximator.rate_aware import RateAware
from nnc_core.approximator.step import step_size
from nnc_core.bitstream import marks
from nnc_core.bitstream.marks import Mark
from nnc_core.coder.dtypes import data_format
from nnc_core.coder.encoder import CodedUnit, Coding, CodingBlock, encode_block, integer_codebook
from nnc_core.coder.payload import CodedTensor, Effort, encode_shortest
from nnc_core.coder.plan import Method, TensorPlan
from nnc_core.entropy.parameters import parameters_of
from nnc_core.entropy.unary_length import USUAL_UNARY_LENGTH_MINUS1
from nnc_core.errors import ModelError
from nnc_core.nnr_model.blocks import Block
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.code_points import GeneralProfileIdc, PayloadType

__all__ = [
    "Format",
    "Probe",
    "as_floats",
    "block_units",
    "coded_size",
    "data_units",
    "known",
    "probe",
    "squared_error",
]

_MAX_LEVEL = (1 << 31) - 1
_MORE, _SAMPLE = 1, 1 << 16
_HEADER, _ENTRY_POINT = 24, 4  # about what a data unit takes besides name and payload, and each point to enter there


class Format(NamedTuple):
    """What the parameter sets of the bitstream say about all tensors, and how many threads may share one of them."""

    qp_density: int
    general_profile_idc: int = GeneralProfileIdc.EXTENDED
    threads: int = 1


def data_units(
    name: str, array: NDArray[Any], plan: TensorPlan, form: Format, inputs: LayerInputs | None = None
) -> tuple[CodedUnit, ...]:
    """Code one tensor; most take one unit. If it is to be quantized, that is for such ``inputs``, where they are known.

    Raises `ModelError` for a tensor that NNR cannot express, or not in the way that is planned, and for ``inputs`` of
    another width.
    """
    _check_name(name)
    if array.size == 0:
        raise ModelError(f"has no elements (shape {array.shape}), which NNR cannot express", tensor=name)
    array = known(array)
    if (array.dtype.kind in "iu") != (plan.method == Method.INTEGERS):
        raise ModelError(f"has dtype {array.dtype}, and is planned as {plan.method.value}", tensor=name)
    array = array.reshape(array.shape or (1,))
    try:
        if plan.method == Method.QUANTIZED and inputs is not None and not plan.exact:
            return tuple(_quantized(name, array, plan, form, _calibration(name, array.shape, inputs)))
        return tuple(_CODERS[plan.method](name, array, plan, form))
    except ValueError as error:
        raise ModelError(f"cannot be coded as planned: {error}", tensor=name) from None


class _Calibrated(NamedTuple):
    """The matrix that a weight is, and what is known of its inputs."""

    matrix: tuple[int, int]
    known: Calibration


def _calibration(name: str, shape: tuple[int, ...], inputs: LayerInputs) -> _Calibrated:
    matrix = inputs.matrix(shape)
    if matrix is None:
        widths = ", ".join(str(each.width) for each in inputs.covariances)
        raise ModelError(f"has shape {shape}, and is calibrated with inputs of width {widths}", tensor=name)
    try:
        return _Calibrated(matrix, inputs.calibration())
    except ValueError as error:
        raise ModelError(f"cannot be calibrated: {error}", tensor=name) from None


def block_units(
    block: Block, arrays: Mapping[str, NDArray[Any]], plans: Mapping[str, TensorPlan], form: Format
) -> tuple[CodedUnit, ...]:
    """Code the tensors of a block in one unit, if their values allow that, and otherwise each on its own.

    ``plans`` quantize all members alike. Raises `ModelError` as `data_units`.
    """
    plan, weight = plans[block.weight], arrays[block.weight]
    if not all(_goes_with(weight, arrays[name]) for name in block.names.values()):
        return _apart(arrays, plans, form)
    try:
        members = {m: _approximation(name, arrays[name], plans[name], form) for m, name in block.names.items()}
    except ValueError:
        return _apart(arrays, plans, form)
    coding = Coding(
        form.qp_density,
        general_profile_idc=form.general_profile_idc,
        cabac_unary_length_minus1=plan.cabac_unary_length_minus1,
        effort=effort_of(plan, form),
    )
    units = encode_block(CodingBlock(members, block.names, weight.shape), coding)
    for unit in units:
        _ask_for(unit.header, weight.dtype, form)
    return tuple(unit._replace(levels=None) for unit in units)


def _goes_with(weight: NDArray[Any], array: NDArray[Any]) -> bool:
    """Whether a block with this weight can have the tensor: one value for each row, decoded as the weight is."""
    shaped = array is weight or array.shape == weight.shape[:1]
    return weight.ndim > 0 and array.size > 0 and array.dtype == weight.dtype and shaped


def _apart(arrays: Mapping[str, NDArray[Any]], plans: Mapping[str, TensorPlan], form: Format) -> tuple[CodedUnit, ...]:
    return tuple(unit for name, array in arrays.items() for unit in data_units(name, array, plans[name], form))


def _approximation(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Approximation:
    """ValueError for values that have no level."""
    _check_name(name)
    values = as_floats(name, known(array))
    scan_order = plan.scan_order if min(len(values), values.size // len(values)) > 1 else 0
    return quantized(values, plan.qp, form.qp_density, plan.dq_flag, scan_order)


class Probe(NamedTuple):
    """What a tensor would take, in bytes without names (infinite with too fine steps), and the squared errors."""

    size: float
    error: float


def probe(values: NDArray[np.float32], plan: TensorPlan, form: Format) -> Probe:
    """Try a quantized tensor out: finite values, rows x width."""
    step = step_size(plan.qp, form.qp_density)
    found = _levels(values, step, plan)
    if found is None:
        return Probe(math.inf, 0.0)
    levels, unary = found
    header = _header("", values.shape, PayloadType.NNR_PT_FLOAT)
    header.dq_flag = plan.dq_flag
    unit = _coded(header, levels, plan, form, unary)
    error = np.square(values.astype(np.float64) - reconstruct(levels, step)).sum()
    return Probe(len(unit.payload) + _ENTRY_POINT * len(unit.header.entry_points), float(error))


def squared_error(
    name: str, array: NDArray[Any], plan: TensorPlan, form: Format, inputs: LayerInputs | None = None
) -> float:
    """The sum of squared errors of a quantized tensor; values that are sent beside the others have none."""
    values, step = as_floats(name, known(array)).reshape(array.shape or (1,)), step_size(plan.qp, form.qp_density)
    regular = np.where(_beyond(values, step), np.float32(0), values)
    found = _levels(regular, step, plan, _calibration(name, regular.shape, inputs) if inputs else None)
    if found is None:
        raise ModelError("has values beyond the reach of its qp", tensor=name)
    return float(
        np.square(regular.reshape(found.levels.shape) - reconstruct(found.levels, step), dtype=np.float64).sum()
    )


def coded_size(units: tuple[CodedUnit, ...]) -> int:
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
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    # bfloat16 and other types from outside numpy have kind 'V' too, and know how to become float32.
    if array.dtype.kind not in "fV" or issubclass(array.dtype.type, np.void):
        raise ModelError(f"has dtype {array.dtype}, which NNR cannot express", tensor=name)
    if array.dtype.name == "bfloat16":  # with the bits of what is not a number
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, np.float32)


# --- the methods -----------------------------------------------------------------------------------------------------


def _quantized(
    name: str, array: NDArray[Any], plan: TensorPlan, form: Format, calibration: _Calibrated | None = None
) -> Iterator[CodedUnit]:
    """Multiples of the step; values that have none, or too large a one, are sent beside them."""
    values = as_floats(name, array)
    step = step_size(plan.qp, form.qp_density)
    strange = None
    found = _levels(values, step, plan, calibration)
    if found is None or (plan.exact and _negative_zeros(values).any()):
        strange = _beyond(values, step) | (_negative_zeros(values) & plan.exact)
        if 16 * np.count_nonzero(strange) > strange.size and (raw := _as_raw(array, values)) is not None:
            yield _raw(marks.escaped(name), raw)
            return
        found = _levels(np.where(strange, np.float32(0), values), step, plan, calibration)
    if found is None:
        raise ModelError("has values beyond the reach of its qp", tensor=name)
    header = _header(marks.escaped(name), array.shape, PayloadType.NNR_PT_FLOAT)
    _ask_for(header, array.dtype, form)
    header.dq_flag = plan.dq_flag
    yield _coded(header, found.levels, plan, form, found.cabac_unary_length_minus1)
    if strange is not None:
        yield from _exceptions(name, array, values, strange, plan, form)


def _levels(
    values: NDArray[np.float32], step: float, plan: TensorPlan, calibration: _Calibrated | None = None
) -> RateAware | None:
    """The levels as rows x width, and how they are to be binarized; `None` if a value has none."""
    matrix = values.reshape(len(values), -1)
    if calibration is not None and plan.scan_order == 0:
        with suppress(ValueError):  # also where corrections grow too large
            found = _quantize(values.reshape(calibration.matrix), step, plan, calibration.known)
            return found._replace(levels=found.levels.reshape(matrix.shape))
    try:
        return _quantize(matrix, step, plan)
    except ValueError:
        return None


def _quantize(
    matrix: NDArray[np.float32], step: float, plan: TensorPlan, calibration: Calibration | None = None
) -> RateAware:
    unary = plan.cabac_unary_length_minus1
    chosen = plan.lambda_scale > 0 and not plan.exact and unary == USUAL_UNARY_LENGTH_MINUS1
    return rate_aware.quantize(
        matrix,
        step,
        dq_flag=plan.dq_flag,
        scan_order=plan.scan_order,
        lambda_scale=0.0 if plan.exact else plan.lambda_scale,
        cabac_unary_length_minus1=None if chosen else unary,
        calibration=calibration,
    )


def _beyond(values: NDArray[np.float32], step: float) -> NDArray[np.bool_]:
    """Which values have no level."""
    bound = np.float32(min(step * (_MAX_LEVEL - 8), np.finfo(np.float32).max))
    beyond: NDArray[np.bool_] = ~(np.abs(values) < bound)  # and what is not a number
    return beyond


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
    yield _integer_unit(marks.marked(Mark(name, marks.PLACES, dtype)), steps, plan, form)
    yield _raw(marks.marked(Mark(name, marks.VALUES, dtype)), marks.packed(_little(given.reshape(-1)[places])))


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
    header = _header(marks.escaped(name), array.shape, PayloadType.NNR_PT_FLOAT)
    _ask_for(header, array.dtype, form)
    header.codebook_present_flag = True
    header.integer_codebook = integer_codebook(book)
    yield _coded(header, tensor.matrix(), plan, form)


def _raw_floats(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    raw = _as_raw(array, as_floats(name, array))
    if raw is None:
        raise ModelError("has values that are not in float32", tensor=name)
    unit = _raw(marks.escaped(name), raw)
    _ask_for(unit.header, array.dtype, form)
    yield unit


def _as_raw(array: NDArray[Any], values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    narrow = array.dtype.itemsize <= values.itemsize
    return values if narrow or np.array_equal(values, array, equal_nan=True) else None


def _patterns(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    unit = marks.marked(Mark(name, marks.PATTERNS, _float_type(name, array)))
    yield _integer_unit(unit, marks.mapped(marks.bit_patterns(array)), plan, form)


def _palette(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    """Indices into the list of all bit patterns, the most frequent first."""
    dtype = _float_type(name, array)
    entries, indices, counts = np.unique(marks.bit_patterns(array), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    places = np.argsort(order, kind="stable").astype(np.int32)[indices].reshape(array.shape)
    yield _integer_unit(marks.marked(Mark(name, marks.INDEX, dtype)), places, plan, form)
    yield _raw(marks.marked(Mark(name, marks.PALETTE, dtype)), marks.packed(_little(entries[order])))


def _planes(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    """Exponents with the first bit of the mantissa, which is not evenly spread, in the better of two orders."""
    dtype = _float_type(name, array)
    exponents, rest = marks.planes(marks.bit_patterns(array), dtype, _MORE)
    usual = int(np.bincount(exponents.reshape(-1)).argmax())
    exponents -= usual
    turned = _better_turned(exponents, plan, form)
    unit = marks.marked(Mark(name, marks.EXPONENT, dtype, usual, _MORE, turned))
    yield _integer_unit(unit, exponents.T if turned else exponents, plan, form)
    yield _raw(marks.marked(Mark(name, marks.REST, dtype)), marks.packed(rest))


def _better_turned(integers: NDArray[np.int32], plan: TensorPlan, form: Format) -> bool:
    """Whether what stands in a column is more alike than what stands in a row, by some of the rows."""
    if min(len(integers), integers.size // len(integers)) <= 1:
        return False
    some = integers[:: max(1, integers.size // _SAMPLE)]
    as_it_is, turned = (len(_integer_unit("", each, plan, form).payload) for each in (some, some.T))
    return turned < as_it_is


def _float_type(name: str, array: NDArray[Any]) -> str:
    dtype = marks.float_type(array.dtype)
    if dtype is None:
        raise ModelError(f"has dtype {array.dtype}, which NNR cannot express", tensor=name)
    return dtype


def _integers(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Iterator[CodedUnit]:
    least, most = int(array.min()) - plan.offset, int(array.max()) - plan.offset
    if least < -_MAX_LEVEL or most > _MAX_LEVEL:
        raise ModelError("has integers beyond +-(2**31 - 1), which NNR cannot express", tensor=name)
    if plan.offset:
        unit = marks.marked(Mark(name, marks.INTEGER, array.dtype.name, plan.offset))
        wide = array.astype(object) if abs(plan.offset) >> 31 else array.astype(np.int64)
        yield _integer_unit(unit, (wide - plan.offset).astype(np.int32), plan, form)
    else:
        yield _integer_unit(marks.escaped(name), array.astype(np.int32), plan, form, array.dtype)


_CODERS: dict[Method, Callable[[str, NDArray[Any], TensorPlan, Format], Iterator[CodedUnit]]] = {
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


def _raw(unit: str, values: NDArray[np.float32]) -> CodedUnit:
    header = _header(unit, values.shape, PayloadType.NNR_PT_RAW_FLOAT)
    return CodedUnit(header, np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8))


def _integer_unit(
    unit: str, integers: NDArray[np.int32], plan: TensorPlan, form: Format, dtype: np.dtype[Any] | None = None
) -> CodedUnit:
    header = _header(unit, integers.shape, PayloadType.NNR_PT_INT)
    if dtype is not None:
        _ask_for(header, dtype, form)
    return _coded(header, np.ascontiguousarray(integers.reshape(len(integers), -1)), plan, form)


def _coded(
    header: CompressedDataUnitHeader,
    levels: NDArray[np.int32],
    plan: TensorPlan,
    form: Format,
    cabac_unary_length_minus1: int | None = None,
) -> CodedUnit:
    unary = plan.cabac_unary_length_minus1 if cabac_unary_length_minus1 is None else cabac_unary_length_minus1
    book = header.integer_codebook
    parameters = parameters_of(
        form.general_profile_idc,
        unary,
        header.dq_flag,
        plan.scan_order if min(levels.shape) > 1 else 0,
        codebook_size=book.codebook_size if book else 0,
        codebook_zero_offset=book.zero_offset if book else 0,
    )
    quantized = header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_FLOAT
    header.cabac_unary_length_minus1 = unary
    header.scan_order = parameters.scan_order
    tensor = CodedTensor(levels, plan.qp if quantized else None)
    payload, (points,), _ = encode_shortest([tensor], [[parameters]], 6 + form.qp_density, effort_of(plan, form))
    header.entry_points = tuple(points)
    return CodedUnit(header, np.frombuffer(payload, np.uint8))


def effort_of(plan: TensorPlan, form: Format) -> Effort:
    """What is to be tried for a tensor."""
    return Effort(plan.param_opt_flag, plan.row_skip_enabled_flag, threads=form.threads)
