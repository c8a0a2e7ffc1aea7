"""From a block of approximated tensors to its data units: one, or one for each member (clauses 7.3.8 and 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation, Members
from nnc_core.approximator.codebook import Codebook
from nnc_core.coder.history import Histories, History
from nnc_core.coder.payload import CodedTensor, Effort, encode_shortest
from nnc_core.entropy.parameters import TensorParameters
from nnc_core.errors import ModelError
from nnc_core.records import dataclass
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.topology import TopologyElementsIdsList
from nnc_core.tables.blocks import FACTORS, HEADER_ORDER, PAYLOAD_ORDER, WEIGHTS, Member, parameter_types
from nnc_core.tables.code_points import ParentNodeIdType, PayloadType


@dataclass(frozen=True, slots=True)
class Coding:
    """How the blocks of a bitstream are coded; the names are those of the standard's syntax and of Part 18, Table 11.

    ``blocks`` lets the members of a block share a unit, ``out_of_band`` leaves dimensions and unary lengths to be sent
    by other ways. ``temporal_context_modeling_flag`` allows temporal contexts, ``effort`` says what else is tried.
    """

    qp_density: int = 2
    base_qp: int = 0
    general_profile_idc: int = 1
    cabac_unary_length_minus1: int = 10
    effort: Effort = field(default_factory=Effort)
    blocks: bool = True
    out_of_band: bool = False
    temporal_context_modeling_flag: bool = False

    @property
    def qp_bits(self) -> int:
        """The size of a quantization parameter in a payload."""
        return 6 + self.qp_density


@dataclass(frozen=True, slots=True)
class Node:
    """What the units of a block say about their place in the parameter update tree.

    An update has a parent, which is the last unit of the same tensor; its ``depth`` follows from the histories.
    """

    node_id_present_flag: bool = True
    device_id: int = 0
    parameter_id: int = 0
    parent_node_id_present_flag: bool = False
    parent_node_id_type: ParentNodeIdType = ParentNodeIdType.ICNN_NDU_ID
    parent_device_id: int = 0


@dataclass(frozen=True, slots=True)
class CodingBlock:
    """The members of a block, their names, and the shape of the weight, of which factors may take the place.

    ``histories`` has what earlier units left, for an update whose ``node`` says so.
    """

    members: Members
    names: Mapping[Member, str]
    shape: tuple[int, ...]
    node: Node | None = None
    histories: Histories = field(default_factory=dict)

    def history(self, member: Member) -> History:
        """What earlier units left of a member."""
        return self.histories.get(self.names[member], History())

    @property
    def updates(self) -> bool:
        """Whether the block has a parent."""
        return self.node is not None and self.node.parent_node_id_present_flag


class CodedUnit(NamedTuple):
    """A data unit ready to be written, and the levels in it by name (rows x width), as far as they are needed."""

    header: CompressedDataUnitHeader
    payload: NDArray[np.uint8]
    levels: Mapping[str, NDArray[np.int32]] | None = None

    def histories(self, before: Histories) -> dict[str, History]:
        """What the unit leaves for the next update, after what the units ``before`` left."""
        return {
            name: before.get(name, History()).after(self.header, levels, self.payload.data)
            for name, levels in (self.levels or {}).items()
        }


def encode_block(block: CodingBlock, coding: Coding) -> list[CodedUnit]:
    """Code a block: together if its members may share a unit, otherwise each in a unit of its own, in payload order.

    An update has no unit for what is all zero. Raises `ModelError` for what NNR cannot express, by the tensor's name.
    """
    groups = [_payload_order(block)] if _may_share(block, coding) else [[m] for m in _payload_order(block)]
    return [_unit(block, group, coding) for group in groups if not _says_nothing(block, group)]


def _payload_order(block: CodingBlock) -> list[Member]:
    return [member for member in PAYLOAD_ORDER if member in block.members]


def _says_nothing(block: CodingBlock, group: Sequence[Member]) -> bool:
    """Whether the members of an update are all zero; factors that are coded apart need each other."""
    together = FACTORS if group[0] in FACTORS else group
    return block.updates and not any(block.members[member].values.any() for member in together)


def _may_share(block: CodingBlock, coding: Coding) -> bool:
    """Whether the block can be one unit that all known decoders read.

    All members are quantized, alike but for codebooks, which only weights have. What is scanned by blocks has several
    rows and columns, and where H has several rows of blocks, G has them too.
    """
    tensors = block.members
    weights = [tensors[member] for member in WEIGHTS if member in tensors]
    vectors = [tensor for member, tensor in tensors.items() if member not in WEIGHTS]
    return (
        coding.blocks
        and len(tensors) > 1
        and all(tensor.is_quantized for tensor in tensors.values())
        and len({tensor.dq_flag for tensor in tensors.values()}) == 1
        and not any(tensor.codebook for tensor in vectors)
        and len({tensor.codebook is None for tensor in weights}) == 1
        and _scans_agree([tensor.matrix().shape for tensor in weights], [tensor.scan_order for tensor in weights])
        and len({(h.depth, h.base is None) for h in map(block.history, tensors)}) == 1
    )


def _scans_agree(shapes: Sequence[tuple[int, ...]], scans: Sequence[int]) -> bool:
    if len(set(scans)) > 1:
        return False
    bands = [-(-shape[0] // (4 << scans[0])) for shape in shapes]
    return not scans[0] or (min(map(min, shapes)) > 1 and not (bands[0] == 1 and bands[-1] > 1))


def _unit(block: CodingBlock, group: Sequence[Member], coding: Coding) -> CodedUnit:
    header = _header(block, group, coding)
    if header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT:
        return CodedUnit(header, block.members[group[0]].matrix().astype("<f4").reshape(-1).view(np.uint8), {})
    try:
        return _coded(block, group, header, coding)
    except ValueError as error:
        raise ModelError(str(error), tensor=block.names[group[0]]) from None


def _coded(block: CodingBlock, group: Sequence[Member], header: CompressedDataUnitHeader, coding: Coding) -> CodedUnit:
    levels = [block.members[member].matrix() for member in group]
    qps = [block.members[member].qp for member in group]
    tensors = [
        CodedTensor(matrix, None if qp is None else qp - coding.base_qp) for matrix, qp in zip(levels, qps, strict=True)
    ]
    contexts = (False, True) if _may_use_contexts(block, group, coding) else (False,)
    alternatives = [[_parameters(block, m, header.scan_order, with_, coding) for m in group] for with_ in contexts]
    payload, points, number = encode_shortest(tensors, alternatives, coding.qp_bits, coding.effort)
    header.temporal_context_modeling_flag = contexts[number]
    header.entry_points = tuple(point for each in points for point in each)
    names = [block.names[member] for member in group]
    return CodedUnit(header, np.frombuffer(payload, np.uint8), dict(zip(names, levels, strict=True)))


def _may_use_contexts(block: CodingBlock, group: Sequence[Member], coding: Coding) -> bool:
    shapes = [(block.history(member).base, block.members[member].matrix().shape) for member in group]
    possible = all(base is not None and base.shape == shape for base, shape in shapes)
    return coding.temporal_context_modeling_flag and block.updates and possible


def _parameters(
    block: CodingBlock, member: Member, scan_order: int, contexts: bool, coding: Coding
) -> TensorParameters:
    tensor, history = block.members[member], block.history(member)
    return TensorParameters(
        general_profile_idc=coding.general_profile_idc,
        cabac_unary_length_minus1=coding.cabac_unary_length_minus1,
        dq_flag=tensor.dq_flag,
        scan_order=scan_order,
        parent_node_id_present_flag=block.updates,
        codebook_size=len(tensor.codebook.values) if tensor.codebook else 0,
        codebook_zero_offset=tensor.codebook.zero_offset if tensor.codebook else 0,
        base=history.base if contexts else None,
        history=history.marks if block.updates else None,
    )


def _header(block: CodingBlock, group: Sequence[Member], coding: Coding) -> CompressedDataUnitHeader:
    tensors = block.members
    first = next((member for member in WEIGHTS if member in group), group[0])
    tensor = tensors[first]
    header = CompressedDataUnitHeader(
        nnr_compressed_data_unit_payload_type=_payload_type(tensor, group),
        dq_flag=tensor.dq_flag,
        compressed_parameter_types=int(parameter_types(tensors)),
        tensor_dimensions=block.shape if first in WEIGHTS else tensor.values.shape,
        cabac_unary_length_minus1=coding.cabac_unary_length_minus1,
        tensor_dimensions_flag=not coding.out_of_band,
        cabac_unary_length_flag=not coding.out_of_band,
        scan_order=tensor.scan_order if min(tensor.matrix().shape) > 1 else 0,
    )
    if Member.G in tensors:
        header.g_number_of_rows, header.decomposition_rank = tensors[Member.G].values.shape
    _add_codebooks(header, tensor, tensors.get(Member.H) if len(group) > 1 else None)
    _identify(header, [block.names[member] for member in HEADER_ORDER if member in group])
    if block.node is not None and coding.general_profile_idc:
        _place(header, block.node, block.history(first))
    return header


def _add_codebooks(header: CompressedDataUnitHeader, tensor: Approximation, second: Approximation | None) -> None:
    if tensor.codebook:
        header.codebook_present_flag, header.integer_codebook = True, integer_codebook(tensor.codebook)
    if second is not None and second.codebook:
        header.integer_codebook_h = integer_codebook(second.codebook)


def _payload_type(tensor: Approximation, group: Sequence[Member]) -> PayloadType:
    if len(group) > 1:
        return PayloadType.NNR_PT_BLOCK
    if tensor.is_quantized:
        return PayloadType.NNR_PT_FLOAT
    return PayloadType.NNR_PT_INT if tensor.is_integer else PayloadType.NNR_PT_RAW_FLOAT


def integer_codebook(book: Codebook) -> IntegerCodebook:
    """A codebook as the header has it."""
    return IntegerCodebook.from_values([int(value) for value in book.values], book.zero_offset, book.egk)


def _identify(header: CompressedDataUnitHeader, names: Sequence[str]) -> None:
    header.nnr_multiple_topology_elements_present_flag = len(names) > 1
    if len(names) > 1:
        header.topology_elements_ids_list = TopologyElementsIdsList(tuple(names))
    else:
        header.topology_elem_id = names[0]


def _place(header: CompressedDataUnitHeader, node: Node, history: History) -> None:
    """Say where in the parameter update tree the unit is; a parent without a payload is named by its number."""
    header.node_id_present_flag = node.node_id_present_flag
    if node.node_id_present_flag:
        header.device_id = node.device_id
    updates = node.parent_node_id_present_flag
    kind = node.parent_node_id_type if history.sha256 else ParentNodeIdType.ICNN_NDU_ID
    if node.node_id_present_flag or (updates and kind == ParentNodeIdType.ICNN_NDU_ID):
        header.parameter_id, header.put_node_depth = node.parameter_id, history.depth + updates
    if updates:
        _name_parent(header, kind, node, history)


def _name_parent(header: CompressedDataUnitHeader, kind: ParentNodeIdType, node: Node, history: History) -> None:
    header.parent_node_id_present_flag, header.parent_node_id_type = True, kind
    if kind == ParentNodeIdType.ICNN_NDU_ID:
        header.parent_device_id = node.parent_device_id
    elif kind == ParentNodeIdType.ICNN_NDU_PL_SHA256:
        header.parent_node_payload_sha256 = int.from_bytes(history.sha256, "big")
    else:
        header.parent_node_payload_sha512 = int.from_bytes(history.sha512, "big")
