"""From data units to tensors: a block, a lone tensor (a block with one member), or a tensor that is cut up.

Decoding goes from the header to the parts of the payload, their levels, and the values of the tensors (clauses 7.3.8,
8.3 and 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.codebook import reconstruct_codebook
from nnc_core.approximator.native import reconstruct
from nnc_core.approximator.step import step_size
from nnc_core.bitstream import DataUnit
from nnc_core.coder.dtypes import converted, output_dtype
from nnc_core.coder.history import Histories, History, check_parent
from nnc_core.coder.payload import CodedTensor, Shape, decode_payload, first_qp
from nnc_core.entropy.parameters import TensorParameters
from nnc_core.errors import BitstreamError, ElementValueError, MissingLinkError, PayloadError, UnsupportedError
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import (
    CompressedDataUnitHeader,
    TensorDimensionMapping,
    coded_shapes,
    is_decomposed,
)
from nnc_core.tables.blocks import FACTORS, PAYLOAD_ORDER, WEIGHTS, Member, named_members
from nnc_core.tables.code_points import PayloadType
from nnc_core.tables.entry_point import EntryPoint

_PAYLOAD = "nnr_compressed_data_unit_payload"
_MOST_AXES = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32


class Part(NamedTuple):
    """One coded tensor of a data unit: its name, its place in the block, and the shape that it is coded in."""

    name: str
    member: Member
    shape: tuple[int, ...]
    codebook: IntegerCodebook | None


class DecodedUnit(NamedTuple):
    """The tensors of a data unit by name, in header order, and what they leave for the next update."""

    tensors: dict[str, NDArray[Any]]
    histories: dict[str, History]


def parts(unit: DataUnit) -> tuple[Part, ...]:
    """The coded tensors of a data unit in payload order."""
    h, shapes = unit.header, coded_shapes(unit.header, unit.context)
    if h.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_BLOCK:
        return (Part(unit.names[0], Member.WEIGHT, shapes[0], h.integer_codebook),)
    names = dict(zip(named_members(h.compressed_parameter_types, len(unit.names)), unit.names, strict=True))
    shape = dict(zip(FACTORS if Member.G in names else (Member.WEIGHT,), shapes, strict=True))
    books = {Member.WEIGHT: h.integer_codebook, Member.G: h.integer_codebook, Member.H: h.integer_codebook_h}
    vector = h.tensor_dimensions[:1]
    return tuple(Part(names[m], m, shape.get(m, vector), books.get(m)) for m in PAYLOAD_ORDER if m in names)


def output_shapes(unit: DataUnit) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that `decode_unit` returns, by name and in header order."""
    h = unit.header
    if (mapping := _cuts(h)) is not None:
        return dict(zip(unit.names, _cut_shapes(h.tensor_dimensions, mapping), strict=True))
    shapes = {part.name: part.shape if _stays(part, h) else h.tensor_dimensions for part in parts(unit)}
    return {name: shapes.get(name, h.tensor_dimensions) for name in unit.names}


def unit_dtype(h: CompressedDataUnitHeader) -> np.dtype[Any]:
    """The data type of the tensors that `decode_unit` returns."""
    return output_dtype(
        h.nnr_decompressed_data_format, h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_INT
    )


def read_qp(unit: DataUnit) -> tuple[str, int] | None:
    """The first tensor in a quantized unit's payload and its quantization parameter; the others lie behind it."""
    if not _is_quantized(unit.header):
        return None
    density, base = unit.qp_density, unit.quantization_parameter
    return parts(unit)[0].name, base + first_qp(unit.payload, 6 + density)


def decode_unit(unit: DataUnit, histories: Histories | None = None) -> DecodedUnit:
    """Decode and reconstruct the tensors of a data unit.

    ``histories`` has what the units before left; where it is None, parents are not checked, and units that need them
    are refused. Raises a `BitstreamError` that names unit and tensor for a damaged payload, an `UpdateError` where the
    parent is missing or another one, `UnsupportedError` for what is not defined.
    """
    try:
        if unit.header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT:
            return DecodedUnit(dict(_delivered(unit, _raw(unit))), {})
        levels = decode_levels(unit, histories)
        values = {part.name: _values(unit, part, levels[part.name]) for part in parts(unit)}
        return DecodedUnit(dict(_delivered(unit, values)), _after(unit, levels, histories))
    except BitstreamError as error:
        error.unit, error.tensor = unit.index, error.tensor or unit.names[0]
        error.element = error.element or _PAYLOAD
        error.bit_offset = unit.place(error.element)
        raise


def decode_levels(unit: DataUnit, histories: Histories | None = None) -> dict[str, CodedTensor]:
    """Decode the integers of an arithmetic-coded data unit, by name and in payload order."""
    h = unit.header
    _check_supported(h)
    tensors = parts(unit)
    found = {part.name: _history(h, part.name, histories) for part in tensors}
    shapes = [_shape(unit, part, found[part.name]) for part in tensors]
    qp_bits = 6 + unit.qp_density if _is_quantized(h) else 0
    try:
        decoded = _named(tensors, decode_payload(unit.payload, shapes, qp_bits))
    except BitstreamError:
        if None in found.values():
            raise _missing(h, unit.names[0]) from None
        raise
    if None in found.values() and any(c.choices.hist_dep_sig_prob_enabled_flag for c in decoded.values()):
        raise _missing(h, unit.names[0])
    _check_entry_points(h, tensors, decoded)
    return decoded


def _named(tensors: tuple[Part, ...], decoded: Iterator[CodedTensor]) -> dict[str, CodedTensor]:
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
        history = History()
    if h.temporal_context_modeling_flag and (history is None or history.base is None):
        raise _missing(h, name)
    return history


def _missing(h: CompressedDataUnitHeader, name: str) -> MissingLinkError:
    message = "cannot be decoded without the history of the updates before"
    need = None if h.put_node_depth is None else h.put_node_depth - 1
    return MissingLinkError(message, tensor=name, need=need)


def _shape(unit: DataUnit, part: Part, history: History | None) -> Shape:
    h = unit.header
    rows, width = part.shape[0], prod(part.shape[1:])
    base, marks = (history.base, history.marks) if history else (None, None)
    if not h.temporal_context_modeling_flag:
        base = None
    for known in (base, marks):
        if known is not None and known.shape != (rows, width):
            message = f"{rows} x {width} elements after an update with {known.shape[0]} x {known.shape[1]}"
            raise ElementValueError(message, element="tensor_dimensions", tensor=part.name)
    return Shape(rows, width, _parameters(h, unit.context, part.codebook, base, marks))


def _parameters(
    h: CompressedDataUnitHeader,
    ctx: SyntaxContext,
    book: IntegerCodebook | None,
    base: NDArray[np.int32] | None,
    marks: NDArray[np.uint8] | None,
) -> TensorParameters:
    return TensorParameters(
        general_profile_idc=ctx.general_profile_idc,
        cabac_unary_length_minus1=h.cabac_unary_length_minus1,
        # Integers are not quantized, whatever the flag says.
        dq_flag=h.dq_flag and _is_quantized(h),
        scan_order=h.scan_order,
        parent_node_id_present_flag=h.parent_node_id_present_flag,
        codebook_size=book.codebook_size if book else 0,
        codebook_zero_offset=book.zero_offset if book else 0,
        base=base,
        history=marks,
    )


def _is_quantized(h: CompressedDataUnitHeader) -> bool:
    return h.nnr_compressed_data_unit_payload_type in (PayloadType.NNR_PT_FLOAT, PayloadType.NNR_PT_BLOCK)


def _check_supported(h: CompressedDataUnitHeader) -> None:
    if len(h.tensor_dimensions) > _MOST_AXES:
        raise UnsupportedError(f"{len(h.tensor_dimensions)} dimensions")
    block = h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK
    if h.nnr_multiple_topology_elements_present_flag and not block and _cuts(h) is None:
        raise UnsupportedError("several topology elements without topology_tensor_dimension_mapping")


def _check_entry_points(
    h: CompressedDataUnitHeader, tensors: Iterable[Part], decoded: Mapping[str, CodedTensor]
) -> None:
    """Hold the header's list, which others start from, against what was passed.

    A single row or column has none, whatever the list says. In a block with several block rows of H, but a single one
    of G, a widespread encoder writes a wrong list, so that it is not looked at.
    """
    start, passed = 0, []
    for part in (p for p in tensors if p.member in WEIGHTS and h.scan_order):
        found = decoded[part.name].entry_points
        passed += [(start + j, point) for j, point in enumerate(found)]
        start += -(-part.shape[0] // (4 << h.scan_order)) - 1
        if part.member == Member.G and not found:
            return
    for j, true in passed:
        _check_entry_point(j, h.entry_points[j], true, h.dq_flag and _is_quantized(h))


def _check_entry_point(j: int, told: EntryPoint, true: EntryPoint, dq_flag: bool) -> None:
    if told[:2] != true[:2] or (dq_flag and told.dq_state != true.dq_state):
        raise PayloadError(f"{told} is wrong", element=f"cabac_offset[{j}]", expected=f"{true}")


def _after(unit: DataUnit, levels: Mapping[str, CodedTensor], histories: Histories | None) -> dict[str, History]:
    if histories is None:
        return {}
    h, payload = unit.header, unit.payload
    return {name: histories.get(name, History()).after(h, coded.levels, payload) for name, coded in levels.items()}


def _raw(unit: DataUnit) -> dict[str, NDArray[Any]]:
    _check_supported(unit.header)
    values = np.frombuffer(unit.payload, "<f4").astype(np.float32)
    return {unit.names[0]: values.reshape(parts(unit)[0].shape)}


def _values(unit: DataUnit, part: Part, coded: CodedTensor) -> NDArray[Any]:
    """The values of a coded tensor, in the shape that it is coded in."""
    if coded.qp is None:
        return coded.levels.reshape(part.shape)
    density, base = unit.qp_density, unit.quantization_parameter
    step = _step(base + coded.qp, density)
    if part.codebook is None:
        return reconstruct(coded.levels, step).reshape(part.shape)
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


def _delivered(unit: DataUnit, values: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors of a unit as the model has them, in header order."""
    h = unit.header
    dtype = unit_dtype(h)
    restored = {part.name: _restored(values[part.name], part, h) for part in parts(unit)}
    mapping, names = _cuts(h), unit.names
    pieces = (restored[name] for name in names) if mapping is None else _cut(restored[names[0]], mapping)
    for name, array in zip(names, pieces, strict=True):
        yield name, converted(array, dtype)


def _stays(part: Part, h: CompressedDataUnitHeader) -> bool:
    """Whether a tensor is returned in the shape that it is coded in."""
    return not h.first_tensor_dimension_shift or part.member != Member.WEIGHT or is_decomposed(h)


def _restored(values: NDArray[Any], part: Part, h: CompressedDataUnitHeader) -> NDArray[Any]:
    return values if _stays(part, h) else np.moveaxis(values, 0, h.first_tensor_dimension_shift)


def _cuts(h: CompressedDataUnitHeader) -> TensorDimensionMapping | None:
    """How the one coded tensor of a unit is cut up into several tensors of the model."""
    return None if is_decomposed(h) else h.topology_tensor_dimension_mapping


def _cut(tensor: NDArray[Any], mapping: TensorDimensionMapping) -> Iterator[NDArray[Any]]:
    """The tensors that lie side by side in a coded one: cut, then axes exchanged (TensorSplit, AxisSwap)."""
    pieces = np.split(tensor, mapping.split_index, mapping.concatenation_axis_index)
    for piece, shifts in zip(pieces, mapping.shifts, strict=True):
        yield reduce(lambda array, s: np.swapaxes(array, s[0], s[0] + s[1]), shifts, piece)


def _cut_shapes(dimensions: tuple[int, ...], mapping: TensorDimensionMapping) -> Iterator[tuple[int, ...]]:
    axis = mapping.concatenation_axis_index
    ends = pairwise((0, *mapping.split_index, dimensions[axis]))
    for (start, end), shifts in zip(ends, mapping.shifts, strict=True):
        shape = [*dimensions[:axis], end - start, *dimensions[axis + 1 :]]
        for i, shift in shifts:
            shape[i], shape[i + shift] = shape[i + shift], shape[i]
        yield tuple(shape)
