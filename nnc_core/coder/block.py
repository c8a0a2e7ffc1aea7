"""A data unit as its tensors: a block, a lone tensor (a block with one member), or a tensor that is cut up.

What the header says of each coded tensor (clause 7.3.8), and how coded tensors become those of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream import DataUnit
from nnc_core.coder.dtypes import output_dtype
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.data_unit import (
    CompressedDataUnitHeader,
    TensorDimensionMapping,
    coded_shapes,
    is_decomposed,
)
from nnc_core.tables.blocks import FACTORS, PAYLOAD_ORDER, Member, named_members
from nnc_core.tables.code_points import PayloadType


class Part(NamedTuple):
    """One coded tensor of a data unit: its name, its place in the block, and the shape that it is coded in."""

    name: str
    member: Member
    shape: tuple[int, ...]
    codebook: IntegerCodebook | None


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
    if (mapping := cuts(h)) is not None:
        return dict(zip(unit.names, _cut_shapes(h.tensor_dimensions, mapping), strict=True))
    shapes = {part.name: part.shape if _stays(part, h) else h.tensor_dimensions for part in parts(unit)}
    return {name: shapes.get(name, h.tensor_dimensions) for name in unit.names}


def unit_dtype(h: CompressedDataUnitHeader) -> np.dtype[Any]:
    """The data type of the tensors that `decode_unit` returns."""
    return output_dtype(
        h.nnr_decompressed_data_format, h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_INT
    )


def is_quantized(h: CompressedDataUnitHeader) -> bool:
    """Whether a quantization parameter precedes each tensor of the payload."""
    return h.nnr_compressed_data_unit_payload_type in (PayloadType.NNR_PT_FLOAT, PayloadType.NNR_PT_BLOCK)


def output_elements(unit: DataUnit) -> int:
    """How many elements the tensors have that `decode_unit` returns."""
    h = unit.header
    if len(unit.names) == 1 and not is_decomposed(h):
        return prod(h.tensor_dimensions)
    return sum(map(prod, output_shapes(unit).values()))


def deliver(unit: DataUnit, tensors: Iterable[Part], values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The tensors of a unit as the model has them, in header order; ``values`` are those of its coded ``tensors``."""
    h, names = unit.header, unit.names
    restored = {part.name: _restored(values[part.name], part, h) for part in tensors}
    mapping = cuts(h)
    if mapping is None:
        return {name: restored[name] for name in names}
    return dict(zip(names, _cut(restored[names[0]], mapping), strict=True))


def _stays(part: Part, h: CompressedDataUnitHeader) -> bool:
    """Whether a tensor is returned in the shape that it is coded in."""
    return not h.first_tensor_dimension_shift or part.member != Member.WEIGHT or is_decomposed(h)


def _restored(values: NDArray[Any], part: Part, h: CompressedDataUnitHeader) -> NDArray[Any]:
    return values if _stays(part, h) else np.moveaxis(values, 0, h.first_tensor_dimension_shift)


def cuts(h: CompressedDataUnitHeader) -> TensorDimensionMapping | None:
    """How the one coded tensor of a unit is cut up into several tensors of the model."""
    mapping = h.topology_tensor_dimension_mapping
    return None if mapping is None or is_decomposed(h) else mapping


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
