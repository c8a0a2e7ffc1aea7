"""The functions of ISO/IEC 15938-18, module ``approximator``: dictionaries in, dictionaries out.

`approx` returns new dictionaries; the others change those that they are given, as Part 18 has it, and return them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator import batch_norm, decomposition, local_scaling
from nnc_core.approximator.approximation import (
    Approximation,
    Members,
    quantized,
    reconstructed,
    with_codebook,
    without,
)
from nnc_core.approximator.codebook import codebook_of
from nnc_core.approximator.data import ApproxData, ApproxInfo, DataBlock, joined, split
from nnc_core.approximator.optimization import Scalings, is_asked_for, optimized
from nnc_core.approximator.sbt import binary_or_ternary
from nnc_core.approximator.step import bit_depth_qp, bit_depth_range, qp_against_overflow, real_qp
from nnc_core.errors import ModelError
from nnc_core.nnr_model.evaluation import Evaluation
from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.tables.blocks import BATCH_NORM, FACTORS, WEIGHTS, Member
from nnc_core.tables.code_points import TopologyStorageFormat

_DENSITY = 2
"""``qp_density`` where the dictionaries have none."""


def approx(
    approx_info: ApproxInfo, model_info: ModelInfo, approx_data: ApproxData, evaluation: Evaluation | None = None
) -> ApproxData:
    """Quantize the tensors of the types ``to_approximate``; integers, and what is quantized already, stay as they are.

    With ``opt_qp``, ``iter_opt`` or ``ioq``, the ``qp`` of weights become as coarse as the ``evaluation`` accepts, and
    with ``lsa`` weights are given local scaling where that makes the model better (see `QpSearch`). Raises `ModelError`
    for a tensor that has no ``qp`` where the method needs one, values that are not finite, and a missing evaluation.
    """
    if not is_asked_for(approx_info):
        return _approx(approx_info, model_info, approx_data, {})
    if evaluation is None:
        raise ModelError("opt_qp, iter_opt, ioq and lsa need an evaluation of the model")

    def attempt(info: ApproxInfo, scalings: Scalings) -> Mapping[str, NDArray[Any]]:
        return restored(_approx(info, model_info, approx_data, scalings), model_info)["parameters"]

    bounded = evaluation.bounded(restored(approx_data, model_info)["parameters"])
    info, scalings = optimized(approx_info, approx_data, attempt, bounded)
    return _approx(info, model_info, approx_data, scalings)


def _approx(info: ApproxInfo, model_info: ModelInfo, approx_data: ApproxData, scalings: Scalings) -> ApproxData:
    scaled = set_lsa(model_info, ApproxData(**approx_data), scalings) if scalings else approx_data
    density = approx_data.get("qp_density", _DENSITY)
    changed = [_approximated(block, info, model_info, density) for block in split(model_info, scaled)]
    return joined(changed, density)


def restored(approx_data: ApproxData, model_info: ModelInfo) -> ApproxData:
    """The model as after decoding: reconstructed, batch-norm unfolded, scalings applied, factors multiplied."""
    data = rec(ApproxData(**approx_data), model_info)
    for undo in (unfold_bn, apply_lsa, recompose):
        undo(model_info, data)
    return data


def rec(approx_data: ApproxData, model_info: ModelInfo | None = None) -> ApproxData:
    """Replace all integers that stand for something else by the values that a decoder gives them (float32)."""
    density = approx_data.get("qp_density", _DENSITY)

    def reconstruct(block: DataBlock) -> Members:
        return {member: reconstructed(tensor, density) for member, tensor in block.members.items()}

    return _change(approx_data, model_info or {}, reconstruct)


def fold_bn(model_info: ModelInfo, approx_data: ApproxData, approx_info: ApproxInfo | None = None) -> ApproxData:
    """Fold each batch-norm into a scaling and a bias of its block (see `batch_norm.fold_bn`).

    The new tensors get the ``qp`` and ``dq_flag`` of gamma and beta in ``approx_info``.
    """
    tensorflow = model_info.get("topology_storage_format") == TopologyStorageFormat.NNR_TPL_TEF
    epsilon = batch_norm.EPSILON_TENSORFLOW if tensorflow else batch_norm.EPSILON
    for block in split(model_info, approx_data) if approx_info is not None else ():
        if approx_info is not None and Member.GAMMA in block.members:
            _hand_down(block, approx_info)
    return _change(approx_data, model_info, lambda block: batch_norm.fold_bn(block.members, epsilon))


def unfold_bn(model_info: ModelInfo, approx_data: ApproxData) -> ApproxData:
    """Undo `fold_bn` in the blocks that have a batch-norm by ``model_info`` and none in the data."""
    own = {name for name, kind in model_info.get("parameter_type", {}).items() if kind.endswith(".bias")}

    def unfold(block: DataBlock) -> Members:
        if Member.GAMMA not in block.known:
            return block.members
        return batch_norm.unfold_bn(block.members, block.name(Member.BIAS) in own)

    return _change(approx_data, model_info, unfold)


def set_lsa(
    model_info: ModelInfo, approx_data: ApproxData, lsa_params: Mapping[str, NDArray[np.float32]]
) -> ApproxData:
    """Add local scaling to weights: ``lsa_params`` has one factor for each row, by the name of the weight."""
    return _change(approx_data, model_info, lambda block: _scaled(block, lsa_params.get(block.block.weight)))


def apply_lsa(model_info: ModelInfo, approx_data: ApproxData) -> ApproxData:
    """Multiply each local scaling into its weight, which then needs none."""
    return _change(approx_data, model_info, lambda block: local_scaling.apply_scaling(block.members))


def decompose(
    model_info: ModelInfo,
    approx_data: ApproxData,
    *,
    rank: int | None = None,
    error: float | None = None,
    ratio: float | None = None,
) -> ApproxData:
    """Replace weights by two factors where these are smaller; see `decomposition.decompose` for the choice of rank.

    The shapes of such weights are kept in ``model_info``, as ``parameter_dimensions``.
    """
    dimensions = model_info.setdefault("parameter_dimensions", {})

    def factors(block: DataBlock) -> Members:
        weight = block.members.get(Member.WEIGHT)
        if weight is None or weight.is_quantized or weight.values.ndim < 2 or weight.values.dtype.kind != "f":
            return block.members
        found = decomposition.decompose(weight.values, rank=rank, error=error, ratio=ratio)
        if found is None:
            return block.members
        dimensions[block.block.weight] = list(weight.values.shape)
        g, h = (Approximation(factor, scan_order=weight.scan_order) for factor in found)
        return {**without(block.members, Member.WEIGHT), Member.G: g, Member.H: h}

    return _change(approx_data, model_info, factors)


def recompose(model_info: ModelInfo, approx_data: ApproxData) -> ApproxData:
    """Replace factors by the weight that is their product."""
    return _change(approx_data, model_info, lambda block: decomposition.recompose(block.members, block.shape))


def _change(approx_data: ApproxData, model_info: ModelInfo, change: Callable[[DataBlock], Members]) -> ApproxData:
    blocks = [_changed(block, change) for block in split(model_info, approx_data)]
    changed = joined(blocks, approx_data.get("qp_density", _DENSITY))
    if "qp_density" not in approx_data:
        del changed["qp_density"]
    target = cast(dict[str, Any], approx_data)
    target.clear()
    target.update(changed)
    return approx_data


def _changed(block: DataBlock, change: Callable[[DataBlock], Members]) -> DataBlock:
    try:
        return block.with_members(change(block))
    except ValueError as error:
        raise ModelError(str(error), tensor=block.block.weight) from None


def _scaled(block: DataBlock, scaling: NDArray[np.float32] | None) -> Members:
    return block.members if scaling is None else local_scaling.with_scaling(block.members, scaling)


def _hand_down(block: DataBlock, approx_info: ApproxInfo) -> None:
    heirs = ((Member.SCALING, Member.GAMMA), (Member.BIAS, Member.BETA))
    settings: tuple[dict[str, int], ...] = (approx_info.setdefault("qp", {}), approx_info.setdefault("dq_flag", {}))
    for heir, source in heirs:
        for setting in settings:
            if (given := setting.get(block.name(source))) is not None:
                setting.setdefault(block.name(heir), given)


# --- one tensor -------------------------------------------------------------------------------------------------------


def _approximated(block: DataBlock, info: ApproxInfo, model_info: ModelInfo, density: int) -> DataBlock:
    """The block with approximations of what is meant; factors without settings of their own get the weight's."""
    members = dict(block.members)
    for member, tensor in block.members.items():
        name = block.name(member)
        if member in FACTORS and name not in info.get("qp", {}):
            name = block.block.weight
        if _is_meant(tensor, _kind(block, member, model_info), info):
            members[member] = _approximation(name, member, tensor, info, density)
    return block.with_members(members)


def _kind(block: DataBlock, member: Member, model_info: ModelInfo) -> str:
    """The parameter type of a member; what approximation added counts like the weight, or the weight's bias."""
    types = model_info.get("parameter_type", {})
    weight = types.get(block.block.weight, "unspecified")
    if member == Member.BIAS and block.name(member) not in types:
        return weight.replace(".weight", ".bias")
    return types.get(block.name(member), weight)


def _is_meant(tensor: Approximation, kind: str, info: ApproxInfo) -> bool:
    meant = "to_approximate" not in info or kind in info["to_approximate"]
    return meant and not tensor.is_quantized and tensor.values.dtype.kind == "f"


def _approximation(name: str, member: Member, tensor: Approximation, info: ApproxInfo, density: int) -> Approximation:
    values = np.ascontiguousarray(tensor.values, np.float32)
    if not np.isfinite(values).all():
        raise ModelError("has values that are not finite, and cannot be quantized", tensor=name)
    scan_order = tensor.scan_order if member in WEIGHTS and min(tensor.matrix().shape) > 1 else 0
    method = info.get("approx_method", "uniform")
    if method == "codebook" and member in WEIGHTS:
        return _by_codebook(name, values, scan_order, info, density)
    if method == "uniform_sbt" and (member not in BATCH_NORM or info.get("sbt_args", {}).get("sbt_bn_quant")):
        return _by_sbt(name, values, scan_order, info, density)
    return _uniform(name, values, scan_order, info, density)


def _uniform(name: str, values: NDArray[np.float32], scan_order: int, info: ApproxInfo, density: int) -> Approximation:
    bits = info.get("integer_aligned_bitdepth")
    if bits is not None:
        return _bit_depth(values, scan_order, bits, density)
    dq_flag, rate = bool(info.get("dq_flag", {}).get(name, 0)), info.get("lambda_scale", 0.0)
    try:
        return quantized(values, _qp(name, info), density, dq_flag, scan_order, rate)
    except ValueError:
        return quantized(values, qp_against_overflow(values, density), density, dq_flag, scan_order, rate)


def _qp(name: str, info: ApproxInfo) -> int:
    try:
        return info["qp"][name]
    except KeyError:
        raise ModelError("has no qp; add one to approx_info['qp']", tensor=name) from None


def _bit_depth(values: NDArray[np.float32], scan_order: int, bits: int, density: int) -> Approximation:
    """Levels that fit an integer type; dependent quantization, whose levels cannot be clipped, is not used."""
    tensor = quantized(values, bit_depth_qp(values, bits, density), density, False, scan_order)
    return Approximation(np.clip(tensor.values, *bit_depth_range(values, bits)), tensor.qp, False, scan_order)


def _by_sbt(name: str, values: NDArray[np.float32], scan_order: int, info: ApproxInfo, density: int) -> Approximation:
    """Uniform quantization of two or three values; with ``sbt_mean_quant`` their magnitude is a single step."""
    arguments = info.get("sbt_args", {})
    few = binary_or_ternary(name, values, arguments)
    magnitude = float(np.abs(few).max())
    if not (arguments.get("sbt_mean_quant") and magnitude):
        return _uniform(name, few, scan_order, info, density)
    return quantized(few, round(real_qp(magnitude, density)), density, False, scan_order)


def _by_codebook(
    name: str, values: NDArray[np.float32], scan_order: int, info: ApproxInfo, density: int
) -> Approximation:
    """A codebook of all levels, or the tensor as it is where that breaks the rules about error and size."""
    tensor = _coarse_enough(name, values, scan_order, info, density)
    if tensor is None or len(np.unique(tensor.values)) * info.get("cb_size_ratio", 0) > values.size:
        return Approximation(values, scan_order=scan_order)
    return with_codebook(tensor, codebook_of(tensor.values))


def _coarse_enough(
    name: str, values: NDArray[np.float32], scan_order: int, info: ApproxInfo, density: int
) -> Approximation | None:
    """Uniform quantization with the given ``qp``, or the coarsest whose mean squared error is at most ``qMse``."""
    if "qMse" not in info:
        return _uniform(name, values, scan_order, {**info, "dq_flag": {}}, density)
    reach = 1 << (5 + density)
    start = round(real_qp(max(12 * info["qMse"], 1e-37) ** 0.5, density)) + (2 << density)
    for qp in range(min(start, reach - 1), -reach - 1, -1):
        tensor = quantized(values, qp, density, False, scan_order)
        error = reconstructed(tensor, density).values.astype(np.float64) - values
        if float(np.square(error).mean()) <= info["qMse"]:
            return tensor
    return None
