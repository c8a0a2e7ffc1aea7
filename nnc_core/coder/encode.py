"""From tensors to units: approximate, code, write (ISO/IEC 15938-18, module `coder`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnc_core.approximator.native import quantize_dependent, quantize_uniform
from nnc_core.approximator.step import step_size
from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.dtypes import data_format
from nnc_core.coder.pool import Job, in_order
from nnc_core.entropy.native import Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.planner.parameters import CodingParameters, TensorPlan
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.tables.code_points import (
    GeneralProfileIdc,
    PayloadType,
    QuantizationMethodFlags,
)
from nnc_core.tables.entry_point import EntryPoint

_MAX_LEVEL = (1 << 31) - 1
_FEW = 1024


class _Unit(NamedTuple):
    """One data unit, ready to be written."""

    header: CompressedDataUnitHeader
    payload: NDArray[np.uint8]


def encode(
    tensors: Mapping[str, ArrayLike],
    *,
    parameters: CodingParameters | None = None,
    topology: Topology | None = None,
    model_info: ModelInfo | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    limits: Limits | None = None,
) -> bytes:
    """Code named tensors into one NNR bitstream.

    Floating-point arrays of any width are quantized as their float32 values; where that is impossible (values that are
    not finite, or too large for the step size) they are sent as they are in float32. Integer arrays are
    coded exactly and must lie within +-(2**31 - 1). A scalar becomes a tensor of shape (1,). The result does not
    depend on ``threads`` (default: one per core) or on the ``executor`` used in their place. Raises `ModelError`
    for tensors that NNR cannot express, `LimitError` for what a decoder with the same ``limits`` would refuse.

    >>> import nnc_core, numpy as np
    >>> data = nnc_core.encode({"w": np.array([[0.5, -0.25], [0.0, 1.0]], np.float32)})
    >>> nnc_core.decode(data)["w"].round(2).tolist()
    [[0.5, -0.25], [0.0, 1.0]]
    """
    stream = io.BytesIO()
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    model = SourceModel(arrays, topology, model_info or ModelInfo())
    write(stream, model, parameters=parameters, threads=threads, executor=executor, limits=limits)
    return stream.getvalue()


def write(
    stream: BinaryIO,
    model: SourceModel,
    *,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits | None = None,
) -> int:
    """Code a model into a binary file object, unit by unit; return the number of bytes.

    Tensors are fetched in model order, one at a time; those in work fit a window of bytes (see `pool`).
    ``progress`` is called with the number of tensors written and their total. Otherwise as `encode`.
    """
    p = parameters or CodingParameters()
    writer = BitstreamWriter(stream, _model_parameter_set(p, model.topology), p.general_profile_idc, limits)
    if model.topology is not None:
        writer.topology(model.topology)
    for done, unit in enumerate(in_order(_jobs(model, p), threads, executor, running=1.5, result_size=_held), 1):
        writer.data_unit(unit.header, unit.payload.data)
        if progress is not None:
            progress(done, len(model.tensors))
    return writer.size


def _model_parameter_set(p: CodingParameters, topology: Topology | None) -> ModelParameterSet:
    return ModelParameterSet(
        topology_carriage_flag=topology is not None,
        mps_quantization_method_flags=QuantizationMethodFlags.NNR_QSU,
        mps_qp_density=p.qp_density,
        mps_quantization_parameter=0,
    )


def _held(unit: _Unit) -> int:
    return len(unit.payload)


def _jobs(model: SourceModel, p: CodingParameters) -> Iterator[Job[_Unit]]:
    """One job for each tensor, in model order."""
    types = model.model_info.get("parameter_type", {})
    for name in model.tensors:
        array = np.asarray(model.tensors[name])
        plan = p.plan(name, types.get(name), array.ndim)
        yield Job(partial(encode_tensor, name, array, plan, p, exact=name in model.exact), 4 * array.size)


def encode_tensor(
    name: str, array: NDArray[Any], plan: TensorPlan, p: CodingParameters, *, exact: bool = False
) -> _Unit:
    """Quantize and code one tensor into a data unit of its own; floats that must be ``exact`` are sent as they are."""
    _check_name(name)
    if array.size == 0:
        raise ModelError(f"has no elements (shape {array.shape}), which NNR cannot express", tensor=name)
    if array.dtype.kind == "V" and array.dtype.name.startswith(("int", "uint")):
        array = array.astype(np.int8)  # integers of less than 8 bits, from outside numpy
    header = CompressedDataUnitHeader(topology_elem_id=name, tensor_dimensions=array.shape or (1,))
    wanted = data_format(array.dtype)
    if wanted is not None and p.general_profile_idc == GeneralProfileIdc.EXTENDED:
        header.nnr_decompressed_data_format_present_flag = True
        header.nnr_decompressed_data_format = wanted
    matrix = array.reshape(header.tensor_dimensions[0], -1)
    if array.dtype.kind in "iu":
        header.nnr_compressed_data_unit_payload_type = PayloadType.NNR_PT_INT
        return _coded(header, _integers(name, matrix), plan, p)
    values = _floats(name, matrix)
    if exact:
        if matrix.dtype.itemsize > values.itemsize and not np.array_equal(values, matrix, equal_nan=True):
            raise ModelError("must be exact, and is not in float32", tensor=name)
        return _raw(header, values)
    try:
        levels = _quantize(values, plan, p.qp_density)
    except ValueError:
        return _raw(header, values)
    header.dq_flag = plan.dq_flag
    return _coded(header, levels, plan, p)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise ModelError(f"has the name {name!r}, expected text")
    try:
        zero = b"\0" in name.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"has a name that is no UTF-8: {error}", tensor=name) from None
    if zero:
        raise ModelError("has a zero byte in its name, which NNR cannot express", tensor=name)


def _raw(header: CompressedDataUnitHeader, values: NDArray[np.float32]) -> _Unit:
    header.nnr_compressed_data_unit_payload_type = PayloadType.NNR_PT_RAW_FLOAT
    return _Unit(header, values.astype("<f4", copy=False).reshape(-1).view(np.uint8))


def _integers(name: str, matrix: NDArray[Any]) -> NDArray[np.int32]:
    if matrix.min() < -_MAX_LEVEL or matrix.max() > _MAX_LEVEL:
        raise ModelError("has integers beyond +-(2**31 - 1), which NNR cannot express", tensor=name)
    return np.ascontiguousarray(matrix, np.int32)


def _floats(name: str, matrix: NDArray[Any]) -> NDArray[np.float32]:
    # bfloat16 and other types from outside numpy have kind 'V' too, and know how to become float32.
    if matrix.dtype.kind not in "fV" or issubclass(matrix.dtype.type, np.void):
        raise ModelError(f"has dtype {matrix.dtype}, which NNR cannot express", tensor=name)
    with np.errstate(over="ignore", invalid="ignore"):  # and signalling NaN
        values = np.ascontiguousarray(matrix, np.float32)
    if matrix.dtype.itemsize > values.itemsize and not np.array_equal(np.isfinite(values), np.isfinite(matrix)):
        raise ModelError("has finite values beyond float32, which NNR cannot express", tensor=name)
    return values


def _quantize(values: NDArray[np.float32], plan: TensorPlan, qp_density: int) -> NDArray[np.int32]:
    step = step_size(plan.qp, qp_density)
    return quantize_dependent(values, step, plan.scan_order) if plan.dq_flag else quantize_uniform(values, step)


def _coded(header: CompressedDataUnitHeader, levels: NDArray[np.int32], plan: TensorPlan, p: CodingParameters) -> _Unit:
    parameters = TensorParameters(
        general_profile_idc=p.general_profile_idc,
        cabac_unary_length_minus1=plan.cabac_unary_length_minus1,
        dq_flag=header.dq_flag,
        scan_order=plan.scan_order if min(levels.shape) > 1 else 0,
    )
    quantized = header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_FLOAT
    qp = (plan.qp, 6 + p.qp_density) if quantized else None
    header.cabac_unary_length_minus1 = parameters.cabac_unary_length_minus1
    header.scan_order = parameters.scan_order
    payload, header.entry_points = _shortest(levels, qp, parameters, plan)
    return _Unit(header, np.frombuffer(payload, np.uint8))


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
    return p.general_profile_idc == GeneralProfileIdc.EXTENDED and rows > 1 and width > 1 and not disputed


def _payload(
    levels: NDArray[np.int32], qp: tuple[int, int] | None, parameters: TensorParameters, choices: TensorChoices
) -> tuple[bytes, tuple[EntryPoint, ...]]:
    encoder = Encoder()
    if qp is not None:
        encoder.iae(*qp)
    encoder.tensor(levels, parameters, choices)
    payload = encoder.finish()
    return payload, tuple(encoder.entry_points[0])
