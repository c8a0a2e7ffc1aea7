"""The functions of ISO/IEC 15938-18, module ``coder``: dictionaries to a bitstream, and back.

Names of blocks are not in a bitstream: `decode` takes them from ``model_info``, or calls a block like its weight.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, islice
from typing import Any, NamedTuple, cast

import numpy as np

from nnc_core.approximator.approximation import Approximation, with_codebook
from nnc_core.approximator.codebook import Codebook, codebook_of
from nnc_core.approximator.data import ApproxData, DataBlock, joined, split
from nnc_core.bitstream import Bitstream, BitstreamWriter, DataUnit
from nnc_core.bitstream.division import Division
from nnc_core.coder.block import Part, deliver, parts
from nnc_core.coder.data import EncInfo
from nnc_core.coder.decoder import decode_levels, raw_values
from nnc_core.coder.encoder import CodedUnit, Coding, CodingBlock, Node, encode_block
from nnc_core.coder.history import Histories
from nnc_core.coder.metadata import describe, pruning_of
from nnc_core.coder.payload import CodedTensor, Effort
from nnc_core.coder.performance_maps import parameter_set_fields, performance_maps
from nnc_core.coder.pool import Job, in_order
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.nnr_model.blocks import Block, derived_name
from nnc_core.nnr_model.model_info import ModelInfo, ParameterType, PerformanceMaps, check_model_info
from nnc_core.syntax.context import InputParameters
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.tables.blocks import FACTORS, PAYLOAD_ORDER, WEIGHTS, Member, members, named_members
from nnc_core.tables.code_points import (
    ParentNodeIdType,
    PayloadType,
    QuantizationMethodFlags,
    TopologyStorageFormat,
)

_FEW_LEVELS = 3


class Encoded(NamedTuple):
    """A bitstream, what the next update builds on, and what is to be sent beside it."""

    bitstream: bytes
    histories: Histories
    input_parameters: dict[str, InputParameters]


def encode(
    enc_info: EncInfo,
    model_info: ModelInfo,
    approx_data: ApproxData,
    *,
    histories: Histories | None = None,
    hist_dep_sig_prob: bool = True,
    threads: int | None = None,
    limits: Limits | None = None,
) -> bytes:
    """The bitstream of ``approx_data``; see `encode_all`, which returns more."""
    return encode_all(
        enc_info,
        model_info,
        approx_data,
        histories=histories,
        hist_dep_sig_prob=hist_dep_sig_prob,
        threads=threads,
        limits=limits,
    ).bitstream


def encode_all(
    enc_info: EncInfo,
    model_info: ModelInfo,
    approx_data: ApproxData,
    *,
    histories: Histories | None = None,
    hist_dep_sig_prob: bool = True,
    threads: int | None = None,
    limits: Limits | None = None,
) -> Encoded:
    """Code ``approx_data`` as ``enc_info`` says; the result does not depend on ``threads``.

    ``histories`` are those of the receiver, for an update. Where ``temporal_context_modeling_flag`` allows contexts of
    earlier updates, ``hist_dep_sig_prob`` allows those of all of them. With ``out_of_band_signaling``, the dimensions
    are not in the bitstream. Raises `ModelError` for contradictions in the dictionaries, and for what NNR cannot
    express.
    """
    check_model_info(model_info, approx_data.get("parameters", {}))
    blocks = [] if enc_info.get("encode_tpl_only") else split(model_info, approx_data)
    coding = _coding(enc_info, approx_data, hist_dep_sig_prob)
    before = dict(histories or {})
    index = model_info.get("parameter_index", {})
    numbers = (index.get(block.block.weight, number) for number, block in enumerate(blocks))
    jobs = (_job(number, block, before, enc_info, coding) for number, block in zip(numbers, blocks, strict=True))
    coded = list(in_order(jobs, threads))
    units = [unit for each in coded for unit in each]
    firsts = dict(zip(accumulate(map(len, coded), initial=0), (block.block.weight for block in blocks), strict=False))
    after = before | {name: left for unit in units for name, left in unit.histories(before).items()}
    beside = dict(_beside(units)) if coding.out_of_band else {}
    layers = dict(_layer_parameter_sets(firsts, model_info))
    return Encoded(_written(units, layers, enc_info, model_info, coding, limits), after, beside)


def decode(
    bitstream: Buffer,
    model_info: ModelInfo | None = None,
    *,
    input_parameters: Mapping[str, InputParameters] | None = None,
    histories: Histories | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
) -> ApproxData:
    """The dictionaries that a bitstream was made of, integers not reconstructed; ``model_info`` is filled in.

    Raises `BitstreamError`, `UnsupportedError`, `UpdateError` or `LimitError` as `nnc_core.decode`.
    """
    found = Bitstream(bitstream, limits, (input_parameters or {}).get)
    info: ModelInfo = {} if model_info is None else model_info
    jobs = (Job(partial(_approximations, unit, histories), len(unit.payload)) for unit in found.data_units)
    decoded = list(zip(found.data_units, in_order(jobs, threads), strict=True))
    blocks = list(_blocks(decoded, info))
    _fill(info, blocks)
    describe(found, info)
    for key in ("prune_bit_mask", "sparse_bit_mask"):
        if key in info:
            info[key] = np.asarray(info[key]).tolist()
    if layers := dict(_layer_maps(found, blocks)):
        info["layer_performance_maps"] = layers
    density = found.mps.mps_qp_density if found.mps is not None else None
    return joined(blocks, 0 if density is None else density)


# --- encoding ---------------------------------------------------------------------------------------------------------


def _coding(info: EncInfo, data: ApproxData, history: bool) -> Coding:
    contexts = bool(info.get("temporal_context_modeling_flag", 0))
    return Coding(
        qp_density=data.get("qp_density", 2),
        general_profile_idc=info.get("general_profile_id", 1),
        cabac_unary_length_minus1=info.get("cabac_unary_length_minus1", 10),
        effort=Effort(
            bool(info.get("param_opt_flag", 1)), bool(info.get("row_skip_enabled_flag", 1)), contexts and history
        ),
        blocks=bool(info.get("nnr_pt_block_enabled_flag", 1)),
        out_of_band=bool(info.get("out_of_band_signaling", False)),
        temporal_context_modeling_flag=contexts,
    )


def _job(number: int, block: DataBlock, before: Histories, info: EncInfo, coding: Coding) -> Job[list[CodedUnit]]:
    names = {member: block.name(member) for member in block.members}
    tensors = {member: _for_coding(tensor, info) for member, tensor in block.members.items()}
    known = {name: before[name] for name in names.values() if name in before}
    coded = CodingBlock(tensors, names, block.shape, _node(number, info), known)
    return Job(partial(encode_block, coded, coding), sum(4 * tensor.values.size for tensor in tensors.values()))


def _for_coding(tensor: Approximation, info: EncInfo) -> Approximation:
    """A tensor of two or three levels as one with a codebook, where ``bt_signaling`` is on."""
    binary = info.get("bt_signaling") and tensor.is_quantized and not tensor.codebook and tensor.values.ndim > 1
    if not binary or len(np.unique(tensor.values)) > _FEW_LEVELS:
        return tensor
    return with_codebook(tensor, codebook_of(tensor.values))


def _node(number: int, info: EncInfo) -> Node | None:
    updates = bool(info.get("parent_node_id_present_flag", 0))
    if not (updates or info.get("node_id_present_flag", 0)):
        return None
    return Node(
        node_id_present_flag=bool(info.get("node_id_present_flag", 0)),
        device_id=info.get("device_id", 0),
        parameter_id=number,
        parent_node_id_present_flag=updates,
        parent_node_id_type=ParentNodeIdType(info.get("parent_node_id_type", 0)),
        parent_device_id=info.get("parent_device_id", info.get("device_id", 0)),
    )


def _layer_parameter_sets(firsts: Mapping[int, str], model_info: ModelInfo) -> Iterator[tuple[int, LayerParameterSet]]:
    """The parameter sets in front of some units; ``firsts`` are the numbers of blocks' first ones, and the weights."""
    before = False
    for number, weight in firsts.items():
        maps = model_info.get("layer_performance_maps", {}).get(weight, {})
        if maps or before:  # the one before holds until there is another
            yield number, LayerParameterSet(**parameter_set_fields(maps, layer=True))
        before = bool(maps)


def _written(
    units: Sequence[CodedUnit],
    layers: Mapping[int, LayerParameterSet],
    info: EncInfo,
    model_info: ModelInfo,
    coding: Coding,
    limits: Limits | None,
) -> bytes:
    stream = io.BytesIO()
    names = [name for unit in units for name in _names(unit)]
    indexed = bool(info.get("mps_topology_indexed_reference_flag", False))
    references = list(dict.fromkeys([*model_info.get("topology_elem_id_list", ()), *names])) if indexed else []
    division = Division(info.get("partial_data_counter", 0), info.get("max_ndu_nnr_unit_size", 0))
    mps = _model_parameter_set(units, info, model_info, coding, indexed)
    writer = BitstreamWriter(stream, mps, coding.general_profile_idc, limits, references=references, division=division)
    storage_format = model_info.get("topology_storage_format")
    if storage_format not in (None, TopologyStorageFormat.NNR_TPL_PRUN, TopologyStorageFormat.NNR_TPL_REFLIST):
        writer.topology(Topology(storage_format, b""))
    if (container := pruning_of(model_info, references)) is not None:
        writer.pruning(container)
    for number, unit in enumerate(units):
        if number in layers:
            writer.layer_parameter_set(layers[number])
        writer.data_unit(unit.header, unit.payload.data)
    return stream.getvalue()


def _names(unit: CodedUnit) -> tuple[str, ...]:
    return unit.header.topology_elements_ids_list.topology_elem_id_list or (unit.header.topology_elem_id or "",)


def _model_parameter_set(
    units: Sequence[CodedUnit], info: EncInfo, model_info: ModelInfo, coding: Coding, indexed: bool
) -> ModelParameterSet:
    codebooks = any(unit.header.codebook_present_flag for unit in units)
    updates = info.get("mps_parent_signalling_enabled_flag", info.get("parent_node_id_present_flag", 0))
    return ModelParameterSet(
        topology_carriage_flag=model_info.get("topology_storage_format") is not None,
        mps_quantization_method_flags=QuantizationMethodFlags.NNR_QSU | (codebooks and QuantizationMethodFlags.NNR_QCB),
        mps_topology_indexed_reference_flag=indexed,
        mps_parent_signalling_enabled_flag=bool(updates) and coding.general_profile_idc > 0,
        mps_qp_density=coding.qp_density,
        mps_quantization_parameter=coding.base_qp,
        **parameter_set_fields(model_info.get("performance_maps", {})),
    )


def _beside(units: Iterable[CodedUnit]) -> Iterator[tuple[str, InputParameters]]:
    for unit in units:
        h = unit.header
        yield _names(unit)[0], InputParameters(h.tensor_dimensions, h.cabac_unary_length_minus1)


# --- decoding ---------------------------------------------------------------------------------------------------------


def _layer_maps(found: Bitstream, blocks: Iterable[DataBlock]) -> Iterator[tuple[str, PerformanceMaps]]:
    """The performance maps of the layer parameter sets in force for each block, by its weight."""
    maps: dict[str, PerformanceMaps] = {}
    current: Mapping[str, Any] = {}
    for unit in found.units:
        if isinstance(unit.header, LayerParameterSet):
            current = performance_maps(unit.header)
        elif current:
            maps.update(dict.fromkeys(unit.names, cast(PerformanceMaps, current)))
    for block in (block.block for block in blocks):
        yield from ((block.weight, maps[name]) for name in block.names.values() if name in maps)


def _approximations(unit: DataUnit, histories: Histories | None) -> dict[str, Approximation]:
    """The tensors of a data unit, in the shapes of the model and in header order."""
    coded = _coded(unit, histories)
    arrays = deliver(unit, parts(unit), {name: tensor.values for name, tensor in coded.items()})
    first = coded[next(iter(coded))]
    return {name: replace(coded.get(name, first), values=array) for name, array in arrays.items()}


def _coded(unit: DataUnit, histories: Histories | None) -> dict[str, Approximation]:
    """The coded tensors of a data unit, in the shapes that they are coded in."""
    if unit.header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT:
        return {name: Approximation(values) for name, values in raw_values(unit).items()}
    levels = decode_levels(unit, histories)
    return {part.name: _approximation(unit, part, levels[part.name]) for part in parts(unit)}


def _approximation(unit: DataUnit, part: Part, coded: CodedTensor) -> Approximation:
    h = unit.header
    scan_order = h.scan_order if len(part.shape) > 1 else 0
    values = coded.levels.reshape(part.shape)
    if coded.qp is None:
        return Approximation(values, scan_order=scan_order)
    qp, book = unit.quantization_parameter + coded.qp, part.codebook
    codebook = None if book is None else Codebook(book.values(), book.zero_offset, book.codebook_egk)
    return Approximation(values, qp, h.dq_flag, scan_order, codebook)


_DecodedUnit = tuple[DataUnit, dict[str, Approximation]]


def _blocks(decoded: Iterable[_DecodedUnit], info: ModelInfo) -> Iterator[DataBlock]:
    """The blocks of a bitstream: units with several members, and units that follow each other for each member."""
    queue = deque(decoded)
    while queue:
        unit, tensors = queue.popleft()
        kinds = _kinds(unit, queue)
        for _ in range(len(kinds) - len(tensors)):
            unit, further = queue.popleft()  # in the end the one with the dimensions of the weight
            tensors |= further
        if len(kinds) == len(tensors):
            yield _block(unit, dict(zip(kinds, tensors, strict=True)), tensors, info)
        else:  # tensors that were cut out of a coded one
            for name, tensor in tensors.items():
                yield _block(unit, {Member.WEIGHT: name}, {name: tensor}, info)


def _kinds(unit: DataUnit, following: Sequence[_DecodedUnit]) -> Sequence[Member]:
    """The members whose tensors begin with those of ``unit``."""
    types = unit.header.compressed_parameter_types
    if unit.header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK:
        return named_members(types, len(unit.names))
    kinds = [member for member in PAYLOAD_ORDER if member in members(types)]
    together = [unit, *(other for other, _ in islice(following, len(kinds) - 1))]
    fit = all(_fits(member, other, types) for member, other in zip(kinds, together, strict=False))
    return kinds if fit and len(together) == len(kinds) else [Member.WEIGHT]


def _fits(member: Member, unit: DataUnit, types: int) -> bool:
    h = unit.header
    alone = h.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_BLOCK and len(unit.names) == 1
    return alone and h.compressed_parameter_types == types and (member in WEIGHTS or len(h.tensor_dimensions) == 1)


def _block(unit: DataUnit, names: dict[Member, str], tensors: dict[str, Approximation], info: ModelInfo) -> DataBlock:
    members_ = {member: tensors[name] for member, name in names.items()}
    weight = names.get(Member.WEIGHT) or names[Member.G].removesuffix(derived_name("", Member.G))
    identifier = info.get("block_identifier", {}).get(weight, weight)
    shape = unit.header.tensor_dimensions if Member.G in names else members_[Member.WEIGHT].values.shape
    return DataBlock(Block(identifier, {**names, Member.WEIGHT: weight}), members_, shape, {})


def _fill(info: ModelInfo, blocks: Sequence[DataBlock]) -> None:
    """Say of the tensors what the bitstream says, and ``info`` did not.

    In a block that ``info`` knows, a bias that it does not know comes from folding, and is not part of the model.
    """
    known = set(info.get("block_identifier", {}).values())
    types, identifiers = info.setdefault("parameter_type", {}), info.setdefault("block_identifier", {})
    dimensions, index = info.setdefault("parameter_dimensions", {}), info.setdefault("parameter_index", {})
    for block in blocks:
        for member, name in block.block.names.items():
            folded = member == Member.BIAS and block.block.identifier in known and name not in types
            if member in (Member.SCALING, *FACTORS) or folded:
                continue
            index.setdefault(name, len(index))
            shape = block.shape if member == Member.WEIGHT else block.members[member].values.shape
            dimensions.setdefault(name, list(shape))
            types.setdefault(name, _type(member, block))
            if len(block.members) > 1:
                identifiers.setdefault(name, block.block.identifier)


def _type(member: Member, block: DataBlock) -> ParameterType:
    convolution = len(block.shape) > 2
    if member == Member.WEIGHT:
        integers = member in block.members and block.members[member].is_integer
        plain = len(block.shape) < 2 or (len(block.members) == 1 and integers)
        return "unspecified" if plain else "conv.weight" if convolution else "fc.weight"
    if member == Member.BIAS:
        return "conv.bias" if convolution else "fc.bias"
    return _BATCH_NORM[member]


_BATCH_NORM: dict[Member, ParameterType] = {
    Member.BETA: "bn.beta",
    Member.GAMMA: "bn.gamma",
    Member.MEAN: "bn.mean",
    Member.VAR: "bn.var",
}
