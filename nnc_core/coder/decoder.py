"""From data units to tensors: levels out of the payload, values out of the levels (clauses 8.3 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.codebook import reconstruct_codebook
from nnc_core.approximator.native import reconstruct, reconstruct_in_place
from nnc_core.approximator.step import step_size
from nnc_core.bitstream import DataUnit
from nnc_core.coder.block import Part, cuts, deliver, is_quantized, parts, unit_dtype
from nnc_core.coder.dtypes import converted
from nnc_core.coder.history import Histories, History, check_parent
from nnc_core.coder.payload import CodedTensor, Shape, decode_payload, first_qp
from nnc_core.entropy.parameters import TensorParameters, parameters_of
from nnc_core.errors import (
    BitstreamError,
    ElementValueError,
    MissingLinkError,
    PayloadError,
    TruncatedError,
    UnsupportedError,
)
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.blocks import WEIGHTS, Member
from nnc_core.tables.code_points import PayloadType
from nnc_core.tables.entry_point import EntryPoint

_NO_HISTORY = History()
_PAYLOAD = "nnr_compressed_data_unit_payload"
_MOST_AXES = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32


class DecodedUnit(NamedTuple):
    """The tensors of a data unit by name, in header order, and what they leave for the next update."""

    tensors: dict[str, NDArray[Any]]
    histories: dict[str, History]


def read_qp(unit: DataUnit) -> tuple[str, int] | None:
    """The first tensor in a quantized unit's payload and its quantization parameter; the others lie behind it.

    `None` where there is none, or the payload is damaged from the start.
    """
    if not is_quantized(unit.header):
        return None
    density, base = unit.qp_density, unit.quantization_parameter
    with suppress(PayloadError, TruncatedError):
        return parts(unit)[0].name, base + first_qp(unit.payload, 6 + density)
    return None


def decode_unit(unit: DataUnit, histories: Histories | None = None, threads: int = 1) -> DecodedUnit:
    """Decode and reconstruct the tensors of a data unit.

    ``histories`` has what the units before left; where it is None, parents are not checked, and units that need them
    are refused. Several ``threads`` share a large tensor that has entry points. Raises a `BitstreamError` that names
    unit and tensor for a damaged payload, an `UpdateError` where the parent is missing or another one,
    `UnsupportedError` for what is not defined.
    """
    try:
        if unit.header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT:
            return DecodedUnit(_converted(unit, parts(unit), raw_values(unit)), {})
        tensors = parts(unit)
        levels = _decode(unit, tensors, histories, threads)
        # Levels that no update will ask for can make room for the values.
        scaled = reconstruct_in_place if histories is None else reconstruct
        values = {part.name: _values(unit, part, levels[part.name], scaled) for part in tensors}
        return DecodedUnit(_converted(unit, tensors, values), _after(unit, levels, histories))
    except BitstreamError as error:
        error.unit, error.tensor = unit.index, error.tensor or unit.names[0]
        error.element = error.element or _PAYLOAD
        error.bit_offset = unit.place(error.element)
        raise


def decode_levels(unit: DataUnit, histories: Histories | None = None) -> dict[str, CodedTensor]:
    """Decode the integers of an arithmetic-coded data unit, by name and in payload order."""
    return _decode(unit, parts(unit), histories)


def _decode(
    unit: DataUnit, tensors: Sequence[Part], histories: Histories | None, threads: int = 1
) -> dict[str, CodedTensor]:
    h = unit.header
    _check_supported(h)
    found = {part.name: _history(h, part.name, histories) for part in tensors}
    points = h.entry_points if len(tensors) == 1 else ()
    matrices = [_shape(h, unit.context, part, found[part.name], points) for part in tensors]
    try:
        decoded = _named(tensors, decode_payload(unit.payload, matrices, qp_bits(unit), threads))
    except BitstreamError:
        if None in found.values():
            raise _missing(h, unit.names[0]) from None
        raise
    if None in found.values() and any(c.choices.hist_dep_sig_prob_enabled_flag for c in decoded.values()):
        raise _missing(h, unit.names[0])
    _check_entry_points(h, tensors, decoded)
    return decoded


def shapes(unit: DataUnit, histories: Histories | None = None) -> list[Shape]:
    """What the payload coder is told about each coded tensor of a data unit, in payload order."""
    h = unit.header
    return [_shape(h, unit.context, part, _history(h, part.name, histories)) for part in parts(unit)]


def qp_bits(unit: DataUnit) -> int:
    """How many bins the quantization parameter in front of each tensor has; 0 where there is none."""
    return 6 + unit.qp_density if is_quantized(unit.header) else 0


def _named(tensors: Sequence[Part], decoded: Iterator[CodedTensor]) -> dict[str, CodedTensor]:
    """The decoded tensors by name; an error names the one that it is in, or the last."""
    found: dict[str, CodedTensor] = {}
    try:
        found.update((part.name, tensor) for part, tensor in zip(tensors, decoded, strict=True))
    except BitstreamError as error:
        error.tensor = tensors[min(len(found), len(tensors) - 1)].name
        raise
    return found


def _history(h: CompressedDataUnitHeader, name: str, histories: Histories | None) -> History | None:
    """What is known of the unit's parent; None where there ought to be something and nothing is known."""
    if histories is not None:
        history = histories.get(name, History())
        check_parent(h, name, history)
    elif h.parent_node_id_present_flag and h.put_node_depth != 1:
        history = None
    else:
        history = _NO_HISTORY
    if h.temporal_context_modeling_flag and (history is None or history.base is None):
        raise _missing(h, name)
    return history


def _missing(h: CompressedDataUnitHeader, name: str) -> MissingLinkError:
    message = "cannot be decoded without the history of the updates before"
    need = None if h.put_node_depth is None else h.put_node_depth - 1
    return MissingLinkError(message, tensor=name, need=need)


def _shape(
    h: CompressedDataUnitHeader,
    ctx: SyntaxContext,
    part: Part,
    history: History | None,
    entry_points: Sequence[EntryPoint] = (),
) -> Shape:
    rows, width = part.shape[0], prod(part.shape[1:])
    base, marks = (history.base, history.marks) if history else (None, None)
    if not h.temporal_context_modeling_flag:
        base = None
    for known in (base, marks):
        if known is not None and known.shape != (rows, width):
            message = f"{rows} x {width} elements after an update with {known.shape[0]} x {known.shape[1]}"
            raise ElementValueError(message, element="tensor_dimensions", tensor=part.name)
    return Shape(rows, width, _parameters(h, ctx, part.codebook, base, marks), entry_points)


def _parameters(
    h: CompressedDataUnitHeader,
    ctx: SyntaxContext,
    book: IntegerCodebook | None,
    base: NDArray[np.int32] | None,
    marks: NDArray[np.uint8] | None,
) -> TensorParameters:
    parameters = parameters_of(
        ctx.general_profile_idc,
        h.cabac_unary_length_minus1,
        # Integers are not quantized, whatever the flag says.
        h.dq_flag and is_quantized(h),
        h.scan_order,
        h.parent_node_id_present_flag,
        book.codebook_size if book else 0,
        book.zero_offset if book else 0,
    )
    return parameters if base is None and marks is None else replace(parameters, base=base, history=marks)


def _check_supported(h: CompressedDataUnitHeader) -> None:
    if len(h.tensor_dimensions) > _MOST_AXES:
        raise UnsupportedError(f"{len(h.tensor_dimensions)} dimensions")
    block = h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK
    if h.nnr_multiple_topology_elements_present_flag and not block and cuts(h) is None:
        raise UnsupportedError("several topology elements without topology_tensor_dimension_mapping")


def _check_entry_points(
    h: CompressedDataUnitHeader, tensors: Iterable[Part], decoded: Mapping[str, CodedTensor]
) -> None:
    """Hold the header's list, which others start from, against what was passed.

    A single row or column has none, whatever the list says. In a block with several block rows of H, but a single one
    of G, a widespread encoder writes a wrong list, so that it is not looked at.
    """
    start, passed = 0, []
    for part in (p for p in tensors if p.member in WEIGHTS) if h.scan_order else ():
        found = decoded[part.name].entry_points
        passed += [(start + j, point) for j, point in enumerate(found)]
        start += -(-part.shape[0] // (4 << h.scan_order)) - 1
        if part.member == Member.G and not found:
            return
    for j, true in passed:
        _check_entry_point(j, h.entry_points[j], true, h.dq_flag and is_quantized(h))


def _check_entry_point(j: int, told: EntryPoint, true: EntryPoint, dq_flag: bool) -> None:
    if told[:2] != true[:2] or (dq_flag and told.dq_state != true.dq_state):
        raise PayloadError(f"{told} is wrong", element=f"cabac_offset[{j}]", expected=f"{true}")


def _after(unit: DataUnit, levels: Mapping[str, CodedTensor], histories: Histories | None) -> dict[str, History]:
    if histories is None:
        return {}
    h, payload = unit.header, unit.payload
    return {name: histories.get(name, History()).after(h, coded.levels, payload) for name, coded in levels.items()}


def raw_values(unit: DataUnit) -> dict[str, NDArray[Any]]:
    """The values of a data unit that has them as they are, in the shape that they are sent in."""
    _check_supported(unit.header)
    values = np.frombuffer(unit.payload, "<f4").astype(np.float32)
    return {unit.names[0]: values.reshape(parts(unit)[0].shape)}


def _values(unit: DataUnit, part: Part, coded: CodedTensor, scaled: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    """The values of a coded tensor, in the shape that it is coded in."""
    if coded.qp is None:
        return coded.levels.reshape(part.shape)
    density, base = unit.qp_density, unit.quantization_parameter
    step = _step(base + coded.qp, density)
    if part.codebook is None:
        return scaled(coded.levels, step).reshape(part.shape)
    try:
        values = reconstruct_codebook(coded.levels, part.codebook.values(), part.codebook.zero_offset, step)
    except ValueError as error:
        raise PayloadError(str(error), tensor=part.name) from None
    return values.reshape(part.shape)


def _step(qp: int, qp_density: int) -> float:
    try:
        return step_size(qp, qp_density)
    except ValueError as error:
        raise ElementValueError(str(error), element="qp") from None


def _converted(unit: DataUnit, tensors: Sequence[Part], values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The tensors of the model, in header order and of the type that the header asks for."""
    dtype = unit_dtype(unit.header)
    return {name: converted(array, dtype) for name, array in deliver(unit, tensors, values).items()}
