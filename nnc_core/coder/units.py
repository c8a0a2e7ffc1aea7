"""From one tensor or block to its data units, as its plan says: approximate and code (clauses 7.3.8, 9 and 10)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation, quantized
from nnc_core.approximator.calibrated import LayerInputs
from nnc_core.approximator.native import reconstruct
from nnc_core.approximator.step import step_size
from nnc_core.coder.encoder import CodedUnit, Coding, CodingBlock, encode_block
from nnc_core.coder.levels import as_floats, beyond_levels, calibration_of, known, levels_of
from nnc_core.coder.methods import CODERS, quantized_units
from nnc_core.coder.plan import Method, TensorPlan
from nnc_core.coder.single import Format, ask_for, coded_unit, effort_of, header_of
from nnc_core.errors import ModelError
from nnc_core.nnr_model.blocks import Block
from nnc_core.tables.code_points import PayloadType

__all__ = ["Probe", "block_units", "coded_size", "data_units", "probe", "squared_error"]

_HEADER, _ENTRY_POINT = 24, 4  # about what a data unit takes besides name and payload, and each point to enter there


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
            return tuple(quantized_units(name, array, plan, form, calibration_of(name, array.shape, inputs)))
        return tuple(CODERS[plan.method](name, array, plan, form))
    except ValueError as error:
        raise ModelError(f"cannot be coded as planned: {error}", tensor=name) from None


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise ModelError(f"has the name {name!r}, expected text")
    try:
        zero = b"\0" in name.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"has a name that is not UTF-8: {error}", tensor=name) from None
    if zero:
        raise ModelError("has a zero byte in its name, which NNR cannot express", tensor=name)


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
        ask_for(unit.header, weight.dtype, form)
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
    found = levels_of(values, step, plan)
    if found is None:
        return Probe(math.inf, 0.0)
    levels, unary = found
    header = header_of("", values.shape, PayloadType.NNR_PT_FLOAT)
    header.dq_flag = plan.dq_flag
    unit = coded_unit(header, levels, plan, form, unary)
    error = np.square(values.astype(np.float64) - reconstruct(levels, step)).sum()
    return Probe(len(unit.payload) + _ENTRY_POINT * len(unit.header.entry_points), float(error))


def squared_error(
    name: str, array: NDArray[Any], plan: TensorPlan, form: Format, inputs: LayerInputs | None = None
) -> float:
    """The sum of squared errors of a quantized tensor; values that are sent beside the others have none."""
    values, step = as_floats(name, known(array)).reshape(array.shape or (1,)), step_size(plan.qp, form.qp_density)
    regular = np.where(beyond_levels(values, step), np.float32(0), values)
    found = levels_of(regular, step, plan, calibration_of(name, regular.shape, inputs) if inputs else None)
    if found is None:
        raise ModelError("has values beyond the reach of its qp", tensor=name)
    return float(
        np.square(regular.reshape(found.levels.shape) - reconstruct(found.levels, step), dtype=np.float64).sum()
    )


def coded_size(units: tuple[CodedUnit, ...]) -> int:
    """About how many bytes the units take."""
    return sum(len(unit.payload) + len(unit.header.topology_elem_id or "") + _HEADER for unit in units)
