"""``nnr_compressed_data_unit_header()`` and the tables inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, field, replace
from math import prod

from nnc_core.records import dataclass
from nnc_core.syntax.codebook import IntegerCodebook, integer_codebook
from nnc_core.syntax.context import Decomposition, InputParameters, SyntaxContext
from nnc_core.syntax.driver import POSITIVE, Elements, Syntax, padded
from nnc_core.syntax.topology import TopologyElementsIdsList, topology_elements_ids_list
from nnc_core.tables.blocks import named_members
from nnc_core.tables.code_points import CompressedParameterTypes, GeneralProfileIdc, ParentNodeIdType, PayloadType
from nnc_core.tables.entry_point import EntryPoint

_DC = int(CompressedParameterTypes.NNR_CPT_DC)
_BLOCK = PayloadType.NNR_PT_BLOCK
_QUANTIZED = (PayloadType.NNR_PT_FLOAT, PayloadType.NNR_PT_BLOCK)
_EXTENDED = GeneralProfileIdc.EXTENDED
_ALWAYS = range(1, 2)
_SCAN_ORDERS = range(5)
_OF_PARENT = (
    "parent_node_id_type",
    "temporal_context_modeling_flag",
    "parent_device_id",
    "parent_node_payload_sha256",
    "parent_node_payload_sha512",
)
_NOTHING = InputParameters()


@dataclass(slots=True)
class TensorDimensionMapping:
    """``topology_tensor_dimension_mapping()``; ``shifts`` has pairs (``shift_index``, ``shift_value``) per tensor."""

    concatenation_axis_index: int = 0
    split_index: tuple[int, ...] = ()
    shifts: tuple[tuple[tuple[int, int], ...], ...] = ()


@dataclass(slots=True)
class CompressedDataUnitHeader:
    """``nnr_compressed_data_unit_header()``.

    What may come from outside the bitstream (`InputParameters`) has its value here all the same; the flags tell what
    was sent. ``None`` stands for what is absent. ``integer_codebook_h`` is the second codebook of a decomposed block.
    """

    nnr_compressed_data_unit_payload_type: PayloadType = PayloadType.NNR_PT_FLOAT
    nnr_multiple_topology_elements_present_flag: bool = False
    nnr_decompressed_data_format_present_flag: bool = False
    input_parameters_present_flag: bool = True
    topology_elements_ids_list: TopologyElementsIdsList = field(default_factory=TopologyElementsIdsList)
    topology_elem_id: str | None = None
    topology_elem_id_index: int | None = None
    node_id_present_flag: bool = False
    device_id: int | None = None
    parameter_id: int | None = None
    put_node_depth: int | None = None
    parent_node_id_present_flag: bool = False
    parent_node_id_type: ParentNodeIdType | None = None
    temporal_context_modeling_flag: bool = False
    parent_device_id: int | None = None
    parent_node_payload_sha256: int | None = None
    parent_node_payload_sha512: int | None = None
    codebook_present_flag: bool = False
    integer_codebook: IntegerCodebook | None = None
    dq_flag: bool = False
    nnr_decompressed_data_format: int | None = None
    tensor_dimensions_flag: bool = True
    cabac_unary_length_flag: bool = True
    compressed_parameter_types: int = 0
    decomposition_rank: int | None = None
    g_number_of_rows: int | None = None
    tensor_dimensions: tuple[int, ...] = ()
    topology_tensor_dimension_mapping: TensorDimensionMapping | None = None
    cabac_unary_length_minus1: int = 9
    integer_codebook_h: IntegerCodebook | None = None
    first_tensor_dimension_shift: int = 0
    scan_order: int = 0
    entry_points: tuple[EntryPoint, ...] = ()


def nnr_compressed_data_unit_header(s: Syntax, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    """``nnr_compressed_data_unit_header()`` (clause 6.3.3.7); it ends where the payload starts."""
    e = Elements(s, h)
    e.code(5, "nnr_compressed_data_unit_payload_type", PayloadType)
    _identification(s, e, h, ctx)
    _node(e, h, ctx)
    _quantization(s, e, h, ctx)
    _input_parameters(s, e, h, ctx)
    _scan(s, e, h, ctx)
    s.byte_alignment()


def element_names(h: CompressedDataUnitHeader, ctx: SyntaxContext) -> tuple[str, ...]:
    """The names of the unit's tensors, in header order; `IndexError` for an index beyond the reference list."""
    if not ctx.mps_topology_indexed_reference_flag:
        if not h.nnr_multiple_topology_elements_present_flag:
            return (h.topology_elem_id or "",)
        return h.topology_elements_ids_list.topology_elem_id_list
    indices: tuple[int, ...] = (h.topology_elem_id_index or 0,)
    if h.nnr_multiple_topology_elements_present_flag:
        indices = h.topology_elements_ids_list.topology_elem_id_index_list
    return tuple(ctx.topology_elements[index] for index in indices)


def with_references(h: CompressedDataUnitHeader, indices: Mapping[str, int]) -> CompressedDataUnitHeader:
    """The header with references by index in the place of its names; KeyError for a name without one."""
    if not h.nnr_multiple_topology_elements_present_flag:
        return replace(h, topology_elem_id=None, topology_elem_id_index=indices[h.topology_elem_id or ""])
    names = h.topology_elements_ids_list.topology_elem_id_list
    ids = TopologyElementsIdsList(topology_elem_id_index_list=tuple([indices[name] for name in names]))
    return replace(h, topology_elements_ids_list=ids)


def coded_shapes(h: CompressedDataUnitHeader, ctx: SyntaxContext) -> tuple[tuple[int, ...], ...]:
    """The shapes, as coded, of the tensors that ``tensor_dimensions`` describes: one, or the factors G and H.

    A unit that holds one factor alone holds H if ``ctx.factor_g`` is its other half, else G. The vectors of a block are
    not among the shapes; each is as long as the first dimension.
    """
    shape = h.tensor_dimensions
    if is_decomposed(h):
        rows, rank = h.g_number_of_rows or 1, h.decomposition_rank or 1
        factors = ((rows, rank), (rank, prod(shape) // rows))
        if h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK:
            return factors
        return factors[1:] if _is_factor_h(h, ctx) else factors[:1]
    first = h.first_tensor_dimension_shift
    return ((shape[first], *shape[:first], *shape[first + 1 :]) if first else shape,)


def is_decomposed(h: CompressedDataUnitHeader) -> bool:
    """Whether the unit holds factors of a decomposed tensor; a vector in a unit of its own does not count."""
    if not h.compressed_parameter_types & _DC:
        return False
    return h.nnr_compressed_data_unit_payload_type == _BLOCK or len(h.tensor_dimensions) > 1


def context_after(h: CompressedDataUnitHeader, ctx: SyntaxContext) -> SyntaxContext:
    """What the data unit after the one with header ``h`` needs to know."""
    block = h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK
    factor_g = None if block or not is_decomposed(h) or _is_factor_h(h, ctx) else _decomposition(h)
    return ctx if factor_g is ctx.factor_g else replace(ctx, factor_g=factor_g)


def _is_factor_h(h: CompressedDataUnitHeader, ctx: SyntaxContext) -> bool:
    """Whether the unit before holds the factor G of the same decomposition."""
    return ctx.factor_g == _decomposition(h)


def _decomposition(h: CompressedDataUnitHeader) -> Decomposition:
    return Decomposition(h.tensor_dimensions, h.decomposition_rank, h.g_number_of_rows)


def _identification(s: Syntax, e: Elements, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    block = h.nnr_compressed_data_unit_payload_type == _BLOCK
    several = e.u(1, "nnr_multiple_topology_elements_present_flag", _ALWAYS if block else None) == 1
    e.flag("nnr_decompressed_data_format_present_flag")
    e.flag("input_parameters_present_flag")
    indexed = ctx.mps_topology_indexed_reference_flag
    if several:
        topology_elements_ids_list(s, h.topology_elements_ids_list, indexed, ctx)
    e.st("topology_elem_id", ctx.limits.name_length, when=not several and not indexed)
    e.ue(7, "topology_elem_id_index", when=not several and indexed)


def _node(e: Elements, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    extended = ctx.general_profile_idc == _EXTENDED
    node = e.flag("node_id_present_flag", when=extended)
    parent = ctx.mps_parent_signalling_enabled_flag and extended
    if node:
        e.ue(1, "device_id")
        _place_in_tree(e)
    else:
        e.absent("device_id")
    e.flag("parent_node_id_present_flag", when=parent)
    if h.parent_node_id_present_flag:
        _parent(e, node)
    else:
        e.absent(*_OF_PARENT)
    if not node and h.parent_device_id is None:
        e.absent("parameter_id", "put_node_depth")


def _place_in_tree(e: Elements) -> None:
    e.ue(5, "parameter_id")
    e.ue(4, "put_node_depth")


def _parent(e: Elements, node: bool) -> None:
    kind = e.code(2, "parent_node_id_type", ParentNodeIdType)
    e.flag("temporal_context_modeling_flag")
    e.ue(1, "parent_device_id", when=kind == ParentNodeIdType.ICNN_NDU_ID)
    if kind == ParentNodeIdType.ICNN_NDU_ID and not node:
        _place_in_tree(e)
    e.u(256, "parent_node_payload_sha256", when=kind == ParentNodeIdType.ICNN_NDU_PL_SHA256)
    e.u(512, "parent_node_payload_sha512", when=kind == ParentNodeIdType.ICNN_NDU_PL_SHA512)


def _quantization(s: Syntax, e: Elements, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    payload_type = h.nnr_compressed_data_unit_payload_type
    e.flag("codebook_present_flag", when=payload_type in _QUANTIZED)
    h.integer_codebook = _codebook(s, h.integer_codebook, h.codebook_present_flag, ctx)
    e.flag("dq_flag", when=payload_type != PayloadType.NNR_PT_RAW_FLOAT)
    e.u(7, "nnr_decompressed_data_format", when=h.nnr_decompressed_data_format_present_flag)


def _codebook(s: Syntax, codebook: IntegerCodebook | None, present: bool, ctx: SyntaxContext) -> IntegerCodebook | None:
    if not present:
        return None
    codebook = codebook or IntegerCodebook()
    integer_codebook(s, codebook, ctx.limits)
    return codebook


def _input_parameters(s: Syntax, e: Elements, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    block = h.nnr_compressed_data_unit_payload_type == _BLOCK
    sent = h.input_parameters_present_flag
    h.tensor_dimensions_flag = sent and e.flag("tensor_dimensions_flag")
    h.cabac_unary_length_flag = sent and e.flag("cabac_unary_length_flag")
    known = _NOTHING if h.tensor_dimensions_flag and h.cabac_unary_length_flag else _known(s, h, ctx)
    _parameter_types(s, e, h, known)
    if h.tensor_dimensions_flag:
        tensor_dimensions_list(s, e, h, ctx)
    else:
        h.tensor_dimensions = h.tensor_dimensions or known.tensor_dimensions or ()
    _check_dimensions(s, h, ctx)
    if sent and not block and h.nnr_multiple_topology_elements_present_flag:
        h.topology_tensor_dimension_mapping = h.topology_tensor_dimension_mapping or TensorDimensionMapping()
        topology_tensor_dimension_mapping(s, h.topology_tensor_dimension_mapping, h)
    else:
        e.absent("topology_tensor_dimension_mapping")
    if h.cabac_unary_length_flag:
        e.u(8, "cabac_unary_length_minus1")
    else:
        outside = known.cabac_unary_length_minus1
        h.cabac_unary_length_minus1 = 9 if outside is None else outside
    second = block and h.codebook_present_flag and h.compressed_parameter_types & _DC != 0
    h.integer_codebook_h = _codebook(s, h.integer_codebook_h, second, ctx)


def _parameter_types(s: Syntax, e: Elements, h: CompressedDataUnitHeader, known: InputParameters) -> None:
    sent = h.input_parameters_present_flag
    legal = _legal_parameter_types(h)
    if sent:
        e.u(4, "compressed_parameter_types", legal)
    else:
        h.compressed_parameter_types = known.compressed_parameter_types or 0
        if h.compressed_parameter_types not in legal:
            message = f"the value {h.compressed_parameter_types} does not fit the number of names"
            raise s.illegal("compressed_parameter_types", message)
    decomposed = h.compressed_parameter_types & _DC != 0
    if sent or not decomposed:
        e.ue(3, "decomposition_rank", POSITIVE, when=decomposed)
        e.ue(3, "g_number_of_rows", POSITIVE, when=decomposed)
    else:
        h.decomposition_rank = h.decomposition_rank or known.decomposition_rank
        h.g_number_of_rows = h.g_number_of_rows or known.g_number_of_rows


def _legal_parameter_types(h: CompressedDataUnitHeader) -> Sequence[int]:
    """All, but for a block those whose tensors are as many as the names."""
    if h.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_BLOCK:
        return range(16)
    ids = h.topology_elements_ids_list
    names = len(ids.topology_elem_id_list) or len(ids.topology_elem_id_index_list)
    return tuple(types for types in range(16) if named_members(types, names))


def _known(s: Syntax, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> InputParameters:
    """What is known from outside of the unit's tensors, each parameter under any of their names."""
    try:
        names = element_names(h, ctx)
    except IndexError:
        raise s.illegal("topology_elem_id_index", "the reference list is shorter") from None
    found = [astuple(known) for known in map(ctx.input_parameters, names) if known]
    known = InputParameters(*(next((v for v in values if v is not None), None) for values in zip(*found, strict=True)))
    if known.cabac_unary_length_minus1 not in (None, *range(256)):
        message = f"the value {known.cabac_unary_length_minus1} from outside is not allowed"
        raise s.illegal("cabac_unary_length_minus1", message, "0..255")
    return known


def tensor_dimensions_list(s: Syntax, e: Elements, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    """``tensor_dimensions_list()`` (clause 6.3.3.7)."""
    count = s.ue(1, "count_tensor_dimensions", len(h.tensor_dimensions), POSITIVE)
    ctx.limits.check("dimensions", count, "count_tensor_dimensions")
    e.array("tensor_dimensions", count, lambda name, size: s.ue(7, name, size, POSITIVE), 1)


def _check_dimensions(s: Syntax, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    """Refuse what is not known, too large, or does not go with the decomposition."""
    if not h.tensor_dimensions or min(h.tensor_dimensions) < 1:
        expected = "dimensions in the bitstream or from outside"
        message, rule = f"no usable dimensions: {h.tensor_dimensions}", "dimensions-known"
        raise s.illegal("tensor_dimensions", message, expected, rule)
    elements = ctx.limits.check("tensor_elements", prod(h.tensor_dimensions), "tensor_dimensions")
    if not is_decomposed(h):
        return
    rows, rank = h.g_number_of_rows or 0, h.decomposition_rank or 0
    if rows < 1 or elements % rows:
        raise s.illegal("g_number_of_rows", f"{elements} elements are not {h.g_number_of_rows} rows")
    if rank < 1:
        raise s.illegal("decomposition_rank", f"the value {h.decomposition_rank} is not allowed", "1 or more")
    ctx.limits.check("tensor_elements", max(rows, elements // rows) * rank, "decomposition_rank")


def topology_tensor_dimension_mapping(s: Syntax, m: TensorDimensionMapping, h: CompressedDataUnitHeader) -> None:
    """``topology_tensor_dimension_mapping()``: how one coded tensor is cut into the unit's model tensors."""
    shape = h.tensor_dimensions
    ids = h.topology_elements_ids_list
    tensors = len(ids.topology_elem_id_list) or len(ids.topology_elem_id_index_list)
    m.concatenation_axis_index = s.u(8, "concatenation_axis_index", m.concatenation_axis_index, range(len(shape)))
    split = [0]
    for i, index in enumerate(padded(m.split_index, tensors - 1, 0)):
        places = range(split[-1] + 1, shape[m.concatenation_axis_index])
        split.append(s.ue(7, f"split_index[{i}]", index, places))
    m.split_index = tuple(split[1:])
    m.shifts = tuple([_shifts(s, i, shifts, len(shape)) for i, shifts in enumerate(padded(m.shifts, tensors, ()))])


def _shifts(s: Syntax, i: int, shifts: tuple[tuple[int, int], ...], axes: int) -> tuple[tuple[int, int], ...]:
    count = s.ue(1, f"number_of_shifts[{i}]", len(shifts))
    s.expect(count, 10, f"number_of_shifts[{i}]")
    coded = []
    for k, (index, value) in enumerate(padded(shifts, count, (0, 0))):
        axis = s.ue(7, f"shift_index[{i}][{k}]", index, range(axes))
        coded.append((axis, s.ie(1, f"shift_value[{i}][{k}]", value, range(-axis, axes - axis))))
    return tuple(coded)


def _scan(s: Syntax, e: Elements, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> None:
    axes = len(h.tensor_dimensions)
    shifts = axes > 1 and ctx.general_profile_idc == _EXTENDED
    e.ue(1, "first_tensor_dimension_shift", range(axes), when=shifts)
    if e.u(4, "scan_order", _SCAN_ORDERS, when=axes > 1) == 0:
        e.absent("entry_points")
    else:
        block_rows = [-(-shape[0] // (4 << h.scan_order)) for shape in coded_shapes(h, ctx)]
        count = ctx.limits.check("entry_points", sum(block_rows) - len(block_rows), "scan_order")
        entry_point_list(s, h, count)


def entry_point_list(s: Syntax, h: CompressedDataUnitHeader, count: int) -> None:
    """The entry points of all block rows but the first of each tensor, as one run of differences."""
    s.expect(count, 16, "cabac_offset")
    entries = []
    bit_offset = 0
    for j, entry in enumerate(padded(h.entry_points, count, EntryPoint(0, 0, 0))):
        cabac_offset = s.u(8, f"cabac_offset[{j}]", entry.cabac_offset)
        dq_state = s.u(3, f"dq_state[{j}]", entry.dq_state) if h.dq_flag else 0
        if j == 0:
            bit_offset = s.ue(11, "bit_offset_delta1", entry.bit_offset)
        else:
            delta = entry.bit_offset - bit_offset
            bit_offset += s.ie(7, f"bit_offset_delta2[{j}]", delta, range(-bit_offset, (1 << 32) - bit_offset))
        entries.append(EntryPoint(bit_offset, cabac_offset, dq_state))
    h.entry_points = tuple(entries)
