"""The syntax tables of clauses 6.3.3 and 6.3.4: unit headers, parameter sets, topology, and the data unit header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import prod
from typing import Any

from .bits import BitReader
from .errors import InvalidError

NNR_STR, NNR_MPS, NNR_LPS, NNR_TPL, NNR_QNT, NNR_NDU, NNR_AGG = range(7)
NNR_PT_INT, NNR_PT_FLOAT, NNR_PT_RAW_FLOAT, NNR_PT_BLOCK = range(4)
CPT_DC, CPT_LS, CPT_BN, CPT_BI = 1, 2, 4, 8
TPL_PRUN, TPL_REFLIST = 5, 6

Beside = Mapping[str, Mapping[str, Any]]
"""What is known of tensors by other ways than the bitstream: by name, and by syntax element."""


@dataclass
class Parameters:
    """What is in force for the data units that follow."""

    general_profile_idc: int = 0
    topology_indexed_reference_flag: bool = False
    parent_signalling_enabled_flag: bool = False
    nnr_pre_flag: bool = False
    qp_density: int | None = None
    quantization_parameter: int = 0
    topology_elements: list[str] = field(default_factory=list)
    performance_maps: dict[str, Any] = field(default_factory=dict)
    unification: bool = False


# --- NNR_MPS and NNR_LPS ----------------------------------------------------------------------------------------------


def nnr_model_parameter_set_payload(r: BitReader, p: Parameters) -> None:
    """``nnr_model_parameter_set_unit_payload()``."""
    r.flag()  # topology_carriage_flag
    sparsification, pruning, p.unification, decomposition = r.flag(), r.flag(), r.flag(), r.flag()
    quantization_method_flags = r.u(3)
    p.topology_indexed_reference_flag = r.flag()
    performance = False
    if p.general_profile_idc == 1:
        base_model, performance, maps_valid = r.flag(), r.flag(), r.flag()
        p.parent_signalling_enabled_flag = r.flag()
        p.nnr_pre_flag = r.flag() and p.parent_signalling_enabled_flag
        r.u(2)
        if base_model:
            r.st()  # base_model_id
        if performance or maps_valid:
            r.st()  # performance_metric_type
    else:
        r.u(7)
    if quantization_method_flags & 3:
        p.qp_density, p.quantization_parameter = r.u(3), r.i(13)
    present = {"sparsification": sparsification, "pruning": pruning, "unification": p.unification}
    p.performance_maps = _maps_to_end(r, present | {"decomposition": decomposition}, performance)


def nnr_layer_parameter_set_payload(r: BitReader, p: Parameters) -> Parameters:
    """``nnr_layer_parameter_set_unit_payload()``: what is in force after it; ``p`` is what the model has."""
    r.u(1)
    present = {name: r.flag() for name in ("sparsification", "pruning", "unification")}
    quantization_method_flags = r.u(3)
    r.u(1)
    changes: dict[str, Any] = {}
    if quantization_method_flags & 3:
        changes = {"qp_density": r.u(3), "quantization_parameter": r.i(13)}
    _maps_to_end(r, present, False)
    return Parameters(**{**vars(p), **changes})


def _maps_to_end(r: BitReader, present: Mapping[str, bool], performance: bool) -> dict[str, Any]:
    """The performance maps, and what follows them up to the end of the unit.

    Whether a count says how many entries there are, or one more, is not certain: the first reading that fits counts.
    """
    start = r.position
    for outer, inner, dimensions in product((1, 0), (0, 1), (1, 0)):
        r.position = start
        try:
            found = {name: _MAPS[name](r, outer, inner, dimensions) for name, there in present.items() if there}
            if performance:
                r.flt()  # validation_set_performance
            r.byte_alignment()
        except InvalidError:
            continue
        if r.left == 0:
            return found
    raise InvalidError("a parameter set does not end with its last syntax element")


def _sparsification_performance_map(r: BitReader, outer: int, inner: int, _: int) -> dict[str, Any]:
    entries = []
    for _ in range(r.u(8) - outer):
        entry = {"sparsification_threshold": r.flt(), "non_zero_ratio": r.flt(), "nn_accuracy": r.flt()}
        entries.append(entry | _class_accuracies(r, inner))
    return _as_lists("count_thresholds", entries)


def _pruning_performance_map(r: BitReader, outer: int, inner: int, _: int) -> dict[str, Any]:
    entries = []
    for _ in range(r.u(8) - outer):
        entry = {"pruning_ratio": r.flt(), "nn_accuracy": r.flt()}
        entries.append(entry | _class_accuracies(r, inner))
    return _as_lists("count_pruning_ratios", entries)


def _unification_performance_map(r: BitReader, outer: int, inner: int, dimensions: int) -> dict[str, Any]:
    entries = []
    for _ in range(r.u(8) - outer):
        entry: dict[str, Any] = {"reshaped_tensor_dimensions": [r.ue(7) for _ in range(r.ue(1) - dimensions)]}
        r.byte_alignment()
        entry["super_block_dimensions"] = [r.u(8) for _ in range(r.u(8) - dimensions)]
        entry["block_dimensions"] = [r.u(8) for _ in range(r.u(8) - dimensions)]
        entry |= {"unification_threshold": r.flt(), "nn_accuracy": r.flt()}
        entries.append(entry | _class_accuracies(r, inner))
    return _as_lists("count_thresholds", entries)


def _decomposition_performance_map(r: BitReader, outer: int, inner: int, _: int) -> dict[str, Any]:
    entries = []
    for _ in range(r.u(8) - outer):
        entry = {"mse_threshold": r.flt(), "nn_accuracy": r.flt(), "nn_reduction_ratio": r.flt()}
        classes = r.u(16)
        entries.append(entry | {"count_classes": classes, "nn_class_accuracy": _floats(r, classes - inner)})
    return _as_lists("count_thresholds", entries)


def _class_accuracies(r: BitReader, inner: int) -> dict[str, Any]:
    count, bitmask = r.u(8), r.ue(7)
    accuracies = _floats(r, count - inner)
    return {"count_classes": len(accuracies), "class_bitmask": bitmask, "nn_class_accuracy": accuracies}


def _floats(r: BitReader, count: int) -> list[float]:
    return [r.flt() for _ in range(count)]


def _as_lists(counter: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {counter: len(entries)} | {key: [entry[key] for entry in entries] for key in (entries or [{}])[0]}


_MAPS: dict[str, Callable[[BitReader, int, int, int], dict[str, Any]]] = {
    "sparsification": _sparsification_performance_map,
    "pruning": _pruning_performance_map,
    "unification": _unification_performance_map,
    "decomposition": _decomposition_performance_map,
}


# --- NNR_TPL ----------------------------------------------------------------------------------------------------------


def topology_elements_ids_list(r: BitReader, p: Parameters, indexed: bool) -> list[str]:
    """``topology_elements_ids_list()``: names, or their places in the reference list."""
    count = r.ue(7) + 2
    if indexed:
        names = [_reference(p, r.ue(7)) for _ in range(_plausible(r, count, 8))]
        r.byte_alignment()
        return names
    r.byte_alignment()
    return [r.st() for _ in range(_plausible(r, count, 8))]


def _plausible(r: BitReader, count: int, bits: int) -> int:
    if count * bits > r.left:
        raise InvalidError("a count is larger than what the unit has room for")
    return count


def _reference(p: Parameters, index: int) -> str:
    if index >= len(p.topology_elements):
        raise InvalidError("an index lies beyond the reference list")
    return p.topology_elements[index]


def nnr_pruning_topology_container(data: bytes, p: Parameters) -> dict[str, Any]:
    """``nnr_pruning_topology_container()``; where a dictionary is aligned is not certain: what fits counts."""
    for each_aligned, names_first in ((True, False), (False, False), (False, True)):
        r = BitReader(data)
        try:
            found = _pruning(r, p, each_aligned, names_first)
        except InvalidError:
            continue
        if r.left == 0:
            return found
    raise InvalidError("a pruning topology container does not fill its unit")


def _pruning(r: BitReader, p: Parameters, each_aligned: bool, names_first: bool) -> dict[str, Any]:
    rep_type, prune, order, sparse = r.u(2), r.flag(), r.flag(), r.flag()
    r.u(3)
    found: dict[str, Any] = {"bit_mask_order_flag": order}
    if prune and rep_type > 1:
        raise InvalidError("nnr_rep_type is reserved")
    if prune:
        found["prune_rep_type"] = rep_type
        found |= _dictionary(r, p, each_aligned, names_first) if rep_type else {"prune_bit_mask": _bit_mask(r)}
    if sparse:
        found["sparse_bit_mask"] = _bit_mask(r)
    return found


def _dictionary(r: BitReader, p: Parameters, each_aligned: bool, names_first: bool) -> dict[str, Any]:
    def name() -> str:
        return _reference(p, r.ue(7)) if p.topology_indexed_reference_flag else r.st()

    def dims() -> list[int]:
        return [r.ue(7) for _ in range(_plausible(r, r.ue(1), 8))]

    count = r.u(8)
    names = [name() for _ in range(count)] if names_first else []
    shapes = []
    for _ in range(count):
        if not names_first:
            names.append(name())
        shapes.append(dims())
        if each_aligned:
            r.byte_alignment()
    if not each_aligned:
        r.byte_alignment()
    if any(size == 0 for shape in shapes for size in shape):
        raise InvalidError("a dimension in a pruning dictionary is 0")
    return {
        "prune_tpl_elem_ids": names,
        "prune_tpl_count_dims": [len(shape) for shape in shapes],
        "prune_tpl_dims": [size for shape in shapes for size in shape],
    }


def _bit_mask(r: BitReader) -> list[int]:
    count = _plausible(r, r.u(32), 1)
    mask = [int(bit) for bit in format(r.u(count), f"0{count}b")] if count else []
    r.byte_alignment()
    return mask


# --- NNR_NDU ----------------------------------------------------------------------------------------------------------


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
        names = [_reference(p, r.ue(7)) if p.topology_indexed_reference_flag else r.st()]
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
    _plausible(r, size - 1, egk + 1)
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
        h.tensor_dimensions = [r.ue(7) for _ in range(_plausible(r, r.ue(1), 8))]
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
        h.shifts.append([(r.ue(7), r.ie(1)) for _ in range(_plausible(r, r.ue(1), 10))])
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
    for j in range(_plausible(r, count, 16)):
        r.u(8)  # cabac_offset
        if h.dq_flag:
            r.u(3)  # dq_state
        offset += r.ie(7) if j else r.ue(11)  # bit_offset_delta2, bit_offset_delta1
        if offset < 0:
            raise InvalidError("the bit offset of an entry point is negative")
        h.entry_points.append(offset)
