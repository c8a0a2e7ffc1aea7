"""The syntax table of the header of a data unit, NNR_NDU (clause 6.3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any

from .bits import BitReader
from .code_points import CPT_DC, NNR_PT_BLOCK, NNR_PT_FLOAT, NNR_PT_RAW_FLOAT
from .errors import InvalidError
from .parameter_sets import Parameters
from .topology import reference, topology_elements_ids_list

Beside = Mapping[str, Mapping[str, Any]]
"""What is known of tensors by other ways than the bitstream: by name, and by syntax element."""


@dataclass
class Codebook:
    """``integer_codebook()``: ascending integers, one of which stands for the level 0."""

    values: list[int]
    zero_offset: int


@dataclass
class DataUnitHeader:
    """The elements of ``nnr_compressed_data_unit_header()`` that decoding needs."""

    payload_type: int
    names: list[str]
    device_id: int | None = None
    parameter_id: int | None = None
    put_node_depth: int | None = None
    parent_node_id_present_flag: bool = False
    parent_node_id_type: int = 0
    parent_hash: bytes = b""
    temporal_context_modeling_flag: bool = False
    dq_flag: bool = False
    data_format: int | None = None
    tensor_dimensions: list[int] = field(default_factory=list)
    compressed_parameter_types: int = 0
    decomposition_rank: int = 0
    g_number_of_rows: int = 0
    cabac_unary_length_minus1: int = 9
    concatenation_axis_index: int | None = None
    split_index: list[int] = field(default_factory=list)
    shifts: list[list[tuple[int, int]]] = field(default_factory=list)
    codebook: Codebook | None = None
    codebook_h: Codebook | None = None
    first_tensor_dimension_shift: int = 0
    scan_order: int = 0
    entry_points: list[int] = field(default_factory=list)

    @property
    def decomposed(self) -> bool:
        """Whether the unit has factors in place of a weight."""
        several = self.payload_type == NNR_PT_BLOCK or len(self.tensor_dimensions) > 1
        return bool(self.compressed_parameter_types & CPT_DC) and several

    @property
    def factors(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The shapes of G and H."""
        rows, rank = self.g_number_of_rows, self.decomposition_rank
        return (rows, rank), (rank, prod(self.tensor_dimensions) // rows)


def nnr_compressed_data_unit_header(r: BitReader, p: Parameters, beside: Beside, after_g: bool) -> DataUnitHeader:
    """``nnr_compressed_data_unit_header()``; ``after_g`` says that the unit before holds a factor G."""
    payload_type, several, formatted, inputs = r.u(5), r.flag(), r.flag(), r.flag()
    if payload_type > NNR_PT_BLOCK:
        raise InvalidError("nnr_compressed_data_unit_payload_type is reserved")
    if payload_type == NNR_PT_BLOCK and not several:
        raise InvalidError("a block has a single name")
    if several:
        names = topology_elements_ids_list(r, p, p.topology_indexed_reference_flag)
    else:
        names = [reference(p, r.ue(7)) if p.topology_indexed_reference_flag else r.st()]
    h = DataUnitHeader(payload_type, names)
    if p.general_profile_idc == 1:
        _node(r, h, p)
    _quantization(r, h, formatted)
    _input_parameters(r, h, inputs, several, _known(names, beside))
    _scan(r, h, p, after_g)
    r.byte_alignment()
    return h


def _known(names: list[str], beside: Beside) -> dict[str, Any]:
    return {key: value for name in reversed(names) for key, value in beside.get(name, {}).items()}


def _node(r: BitReader, h: DataUnitHeader, p: Parameters) -> None:
    node = r.flag()
    if node:
        h.device_id, h.parameter_id, h.put_node_depth = r.ue(1), r.ue(5), r.ue(4)
    if not p.parent_signalling_enabled_flag:
        return
    h.parent_node_id_present_flag = r.flag()
    if not h.parent_node_id_present_flag:
        return
    h.parent_node_id_type, h.temporal_context_modeling_flag = r.u(2), r.flag()
    if h.parent_node_id_type == 3:
        raise InvalidError("parent_node_id_type is reserved")
    if h.parent_node_id_type == 0:
        r.ue(1)  # parent_device_id
        if not node:
            h.parameter_id, h.put_node_depth = r.ue(5), r.ue(4)
    else:
        bits = 256 * h.parent_node_id_type
        h.parent_hash = r.u(bits).to_bytes(bits // 8, "big")


def _quantization(r: BitReader, h: DataUnitHeader, formatted: bool) -> None:
    if h.payload_type in (NNR_PT_FLOAT, NNR_PT_BLOCK) and r.flag():
        h.codebook = integer_codebook(r)
    if h.payload_type != NNR_PT_RAW_FLOAT:
        h.dq_flag = r.flag()
    if formatted:
        h.data_format = r.u(7)
        if h.data_format > 9:
            raise InvalidError("nnr_decompressed_data_format is reserved")


def integer_codebook(r: BitReader) -> Codebook:
    """``integer_codebook()``."""
    egk, size, centre, zero = r.u(4), r.ue(2), r.ie(2), r.ie(7)
    offset = (size >> 1) + centre
    if not 0 <= offset < size:
        raise InvalidError("a codebook has no entry for its zero")
    r.plausible(size - 1, egk + 1)
    values = [zero]
    for _ in range(offset):
        values.insert(0, values[0] - r.ue(egk) - 1)
    for _ in range(size - 1 - offset):
        values.append(values[-1] + r.ue(egk) + 1)
    if not -(1 << 31) <= values[0] <= values[-1] < 1 << 31:
        raise InvalidError("an entry of a codebook is beyond 32 bits")
    return Codebook(values, offset)


def _input_parameters(r: BitReader, h: DataUnitHeader, inputs: bool, several: bool, known: Mapping[str, Any]) -> None:
    dimensions = unary = False
    if inputs:
        dimensions, unary, h.compressed_parameter_types = r.flag(), r.flag(), r.u(4)
    else:
        h.compressed_parameter_types = int(known.get("compressed_parameter_types", 0))
        h.decomposition_rank = int(known.get("decomposition_rank", 0))
        h.g_number_of_rows = int(known.get("g_number_of_rows", 0))
    if inputs and h.compressed_parameter_types & CPT_DC:
        h.decomposition_rank, h.g_number_of_rows = r.ue(3), r.ue(3)
    if dimensions:
        h.tensor_dimensions = [r.ue(7) for _ in range(r.plausible(r.ue(1), 8))]
    else:
        h.tensor_dimensions = [int(size) for size in known.get("tensor_dimensions", ())]
    _check_dimensions(h)
    if inputs and h.payload_type != NNR_PT_BLOCK and several:
        _topology_tensor_dimension_mapping(r, h)
    h.cabac_unary_length_minus1 = r.u(8) if unary else int(known.get("cabac_unary_length_minus1", 9))
    if h.cabac_unary_length_minus1 > 255:
        raise InvalidError("cabac_unary_length_minus1 is beyond 255")
    if h.payload_type == NNR_PT_BLOCK and h.compressed_parameter_types & CPT_DC and h.codebook:
        h.codebook_h = integer_codebook(r)


def _check_dimensions(h: DataUnitHeader) -> None:
    if not h.tensor_dimensions or min(h.tensor_dimensions) < 1:
        raise InvalidError("the dimensions of a tensor are not known, or not positive")
    if h.decomposed:
        rows, rank = h.g_number_of_rows, h.decomposition_rank
        if rows < 1 or rank < 1 or prod(h.tensor_dimensions) % rows:
            raise InvalidError("a decomposition does not fit the tensor")


def _topology_tensor_dimension_mapping(r: BitReader, h: DataUnitHeader) -> None:
    """How one coded tensor is cut into the unit's model tensors, and which of their axes are exchanged."""
    shape = h.tensor_dimensions
    h.concatenation_axis_index = r.u(8)
    if h.concatenation_axis_index >= len(shape):
        raise InvalidError("a tensor is cut along an axis that it does not have")
    h.split_index = [r.ue(7) for _ in h.names[1:]]
    cuts = [0, *h.split_index, shape[h.concatenation_axis_index]]
    if any(first >= last for first, last in pairwise(cuts)):
        raise InvalidError("the places where a tensor is cut do not ascend")
    for _ in h.names:
        h.shifts.append([(r.ue(7), r.ie(1)) for _ in range(r.plausible(r.ue(1), 10))])
    for index, value in (shift for shifts in h.shifts for shift in shifts):
        if index >= len(shape) or not 0 <= index + value < len(shape):
            raise InvalidError("axes are exchanged that a tensor does not have")


def _scan(r: BitReader, h: DataUnitHeader, p: Parameters, after_g: bool) -> None:
    if len(h.tensor_dimensions) < 2:
        return
    if p.general_profile_idc == 1:
        h.first_tensor_dimension_shift = r.ue(1)
        if h.first_tensor_dimension_shift >= len(h.tensor_dimensions):
            raise InvalidError("first_tensor_dimension_shift is not an axis of the tensor")
    h.scan_order = r.u(4)
    if h.scan_order > 4:
        raise InvalidError("scan_order is reserved")
    if h.scan_order > 0:
        size = 4 << h.scan_order
        _entry_points(r, h, sum(-(-rows // size) - 1 for rows in _rows(h, after_g)))


def _rows(h: DataUnitHeader, after_g: bool) -> list[int]:
    """The rows of the tensors with entry points."""
    if not h.decomposed:
        return [h.tensor_dimensions[h.first_tensor_dimension_shift]]
    rows = [shape[0] for shape in h.factors]
    return rows if h.payload_type == NNR_PT_BLOCK else [rows[after_g]]


def _entry_points(r: BitReader, h: DataUnitHeader, count: int) -> None:
    """``entry_point_list()``: of no use to a decoder that takes one block row after another."""
    offset = 0
    for j in range(r.plausible(count, 16)):
        r.u(8)  # cabac_offset
        if h.dq_flag:
            r.u(3)  # dq_state
        offset += r.ie(7) if j else r.ue(11)  # bit_offset_delta2, bit_offset_delta1
        if offset < 0:
            raise InvalidError("the bit offset of an entry point is negative")
        h.entry_points.append(offset)
