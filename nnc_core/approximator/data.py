"""The dictionaries between approximation and coding (ISO/IEC 15938-18, Tables 6 to 10), and the blocks in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation, Members
from nnc_core.approximator.codebook import Codebook
from nnc_core.errors import ModelError
from nnc_core.nnr_model.blocks import ADDED, Block, blocks, derived_name, member_names
from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.tables.blocks import FACTORS, PAYLOAD_ORDER, WEIGHTS, Member, parameter_types


class ApproxData(TypedDict, total=False):
    """Part 18, Tables 6 and 7; dictionaries by tensor name, those of decomposition and types by block identifier.

    ``parameters`` are float32, or int32 where a tensor is quantized or consists of integers. A tensor without an
    ``approx_method`` travels as it is. ``qp`` are absolute. ``codebooks`` are int32, one-dimensional.
    """

    approx_method: dict[str, Literal["uniform", "codebook"]]
    parameters: dict[str, NDArray[Any]]
    compressed_parameter_types: dict[str, int]
    decomposition_rank: dict[str, int]
    g_number_of_rows: dict[str, int]
    scan_order: dict[str, int]
    dq_flag: dict[str, int]
    qp: dict[str, int]
    qp_density: int
    codebooks: dict[str, NDArray[np.int32]]
    codebook_zero_offsets: dict[str, int]
    codebooks_egk: dict[str, int]


class SbtArgs(TypedDict, total=False):
    """Part 18, Table 10; see `nnc_core.approximator.sbt`."""

    epoch: int
    n_epoch: int
    sbt_mean_quant: bool
    sbt_subquantization_approach: Literal["random", "random_round"]
    sbt_bn_quant: bool
    sbt_quantization_approach: Literal["combined", "binary", "ternary"]


class ApproxInfo(TypedDict, total=False):
    """Part 18, Tables 8 and 9; ``dq_flag`` and ``qp`` by tensor name.

    ``to_approximate`` lists the parameter types to quantize, all if it is missing. ``qMse`` is the largest mean squared
    error of a codebook, ``cb_size_ratio`` the least number of elements for each of its entries.

    The last six are encoder options of Part 18's conformance tables; they need an evaluation of the model, see
    `nnc_core.nnr_model.QpSearch`. ``lsa`` adds local scaling where that makes the model better.
    """

    approx_method: Literal["uniform", "codebook", "uniform_sbt"]
    to_approximate: list[str]
    dq_flag: dict[str, int]
    lambda_scale: float
    cabac_unary_length_minus1: int
    integer_aligned_bitdepth: int
    qp: dict[str, int]
    qMse: float
    cb_size_ratio: float
    sbt_args: SbtArgs
    opt_qp: bool
    iter_opt: bool
    ioq: bool
    qp_step: int
    max_iterations: int
    lsa: bool


class DataBlock(NamedTuple):
    """A block of the dictionaries: its tensors, the shape of its weight, and the names that the model has for them."""

    block: Block
    members: Members
    shape: tuple[int, ...]
    known: Mapping[Member, str]

    def name(self, member: Member) -> str:
        """The name of a member; one that the model does not have is called after the weight."""
        return self.block.names.get(member) or self.known.get(member) or self.block.name(member)

    def with_members(self, members: Members) -> DataBlock:
        """The same block with other members."""
        names = {member: self.name(member) for member in (Member.WEIGHT, *members)}
        return self._replace(block=replace(self.block, names=names), members=members)


def split(model_info: ModelInfo, approx_data: ApproxData) -> list[DataBlock]:
    """The blocks of the dictionaries, in coding order. `ModelError` for what they leave open or contradict.

    Which tensors a block has beside those of the model follows from its ``compressed_parameter_types``.
    """
    added = {name for weight in _weights(approx_data) for name in _added(weight, model_info, approx_data)}
    own = [name for name in _weights(approx_data) if name not in added]
    return [_data_block(block, model_info, approx_data) for block in blocks(model_info, own)]


def _weights(approx_data: ApproxData) -> Iterator[str]:
    """The names of the parameters, each factor G under the name of the weight that it stands for."""
    parameters, suffix = approx_data.get("parameters", {}), derived_name("", Member.G)
    for name in parameters:
        weight = name.removesuffix(suffix)
        factors = weight not in parameters and derived_name(weight, Member.H) in parameters
        yield weight if factors else name


def _added(weight: str, model_info: ModelInfo, approx_data: ApproxData) -> Iterator[str]:
    """The names of the tensors that approximation added to a weight."""
    identifier = model_info.get("block_identifier", {}).get(weight, weight)
    types = approx_data.get("compressed_parameter_types", {}).get(identifier, 0)
    for member in ADDED:
        name = derived_name(weight, member)
        if types & parameter_types([member]) and name in approx_data["parameters"]:
            yield name


def _data_block(block: Block, model_info: ModelInfo, approx_data: ApproxData) -> DataBlock:
    parameters = approx_data["parameters"]
    types = approx_data.get("compressed_parameter_types", {}).get(block.identifier, 0)
    added = [member for member in ADDED if types & parameter_types([member]) and member not in block.names]
    names = {**block.names, **{member: block.name(member) for member in added}}
    names = {member: name for member, name in names.items() if name in parameters or member == Member.WEIGHT}
    members = {member: _approximation(name, approx_data) for member, name in names.items() if name in parameters}
    known = member_names(model_info, block.identifier)
    return DataBlock(replace(block, names=names), members, _shape(block, members, model_info), known)


def _shape(block: Block, members: Members, model_info: ModelInfo) -> tuple[int, ...]:
    if Member.WEIGHT in members:
        return members[Member.WEIGHT].values.shape
    g, h = (members[member].values.shape for member in FACTORS)
    known = model_info.get("parameter_dimensions", {}).get(block.weight)
    return tuple(known) if known else (g[0], h[1])


def _approximation(name: str, data: ApproxData) -> Approximation:
    values, method = data["parameters"][name], data.get("approx_method", {}).get(name)
    scan_order = data.get("scan_order", {}).get(name, 0)
    if method is None:
        return Approximation(values, scan_order=scan_order)
    if name not in data.get("qp", {}):
        raise ModelError("has an approx_method, but no qp", tensor=name)
    dq_flag = bool(data.get("dq_flag", {}).get(name, 0))
    return Approximation(values, data["qp"][name], dq_flag, scan_order, _codebook(name, data, method))


def _codebook(name: str, data: ApproxData, method: str) -> Codebook | None:
    if method != "codebook":
        return None
    try:
        values, zero = data["codebooks"][name], data["codebook_zero_offsets"][name]
    except KeyError as error:
        raise ModelError(f"has the approx_method 'codebook', but no entry in {error}", tensor=name) from None
    return Codebook(values, zero, data.get("codebooks_egk", {}).get(name))


def joined(data_blocks: Iterable[DataBlock], qp_density: int) -> ApproxData:
    """The dictionaries of blocks, the inverse of `split`; tensors in payload order."""
    data = empty(qp_density)
    for block, members, _, _ in data_blocks:
        for member in (m for m in PAYLOAD_ORDER if m in members):
            _add(data, block.names[member], member, members[member])
        if len(members) > 1:
            data["compressed_parameter_types"][block.identifier] = int(parameter_types(members))
        if Member.G in members:
            rows, rank = members[Member.G].values.shape
            data["decomposition_rank"][block.identifier] = rank
            data["g_number_of_rows"][block.identifier] = rows
    return data


def empty(qp_density: int) -> ApproxData:
    """Dictionaries without tensors."""
    return ApproxData(
        approx_method={},
        parameters={},
        compressed_parameter_types={},
        decomposition_rank={},
        g_number_of_rows={},
        scan_order={},
        dq_flag={},
        qp={},
        qp_density=qp_density,
        codebooks={},
        codebook_zero_offsets={},
        codebooks_egk={},
    )


def _add(data: ApproxData, name: str, member: Member, tensor: Approximation) -> None:
    data["parameters"][name] = tensor.values
    if member in WEIGHTS and tensor.values.ndim > 1:
        data["scan_order"][name] = tensor.scan_order
    if tensor.qp is None:
        return
    data["approx_method"][name] = "codebook" if tensor.codebook else "uniform"
    data["qp"][name], data["dq_flag"][name] = tensor.qp, int(tensor.dq_flag)
    if tensor.codebook:
        data["codebooks"][name] = tensor.codebook.values
        data["codebook_zero_offsets"][name] = tensor.codebook.zero_offset
        if tensor.codebook.egk is not None:
            data["codebooks_egk"][name] = tensor.codebook.egk
