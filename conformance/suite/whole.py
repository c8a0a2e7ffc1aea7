"""Makes the bitstreams of Table 1: whole models."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from conformance.suite.descriptions import normalized
from conformance.suite.files import described
from conformance.suite.metadata import add_performance_maps, add_pruning, pruned_rows, without_rows
from conformance.suite.rows import Row
from conformance.suite.standins import Model, integers, layers, stand_in
from nnc_core.approximator import part18 as approximator
from nnc_core.approximator.data import ApproxData, ApproxInfo
from nnc_core.coder import part18 as coder
from nnc_core.coder.data import EncInfo, input_parameters_to_json
from nnc_core.tables.code_points import TopologyStorageFormat

Tensors = Mapping[str, NDArray[Any]]


class Made(NamedTuple):
    """A bitstream, the tensors that decoders must make of it, and what is sent beside it."""

    bitstream: bytes
    expected: Tensors
    out_of_band: str = ""


def encoded(row: Row, *, full_size: bool = False) -> Made:
    """The bitstream of a row. What is expected follows from the quantized integers; no decoder takes part."""
    model = stand_in(row.model, full_size=full_size)
    configuration = dict(row.configuration)
    if not full_size:
        configuration["cb_size_ratio"] = configuration.get("cb_size_ratio", 0) * model.size / _true_size(row.model)
    return coded(model, configuration)


def _true_size(name: str) -> int:
    return sum(int(np.prod(layer.shape)) for layer in layers(name, full_size=True))


def coded(model: Model, configuration: Mapping[str, Any]) -> Made:
    _reduce(model, configuration)
    if configuration.get("topology_indexed_reference_flag"):
        model.info["topology_elem_id_list"] = list(model.tensors)
        model.info["topology_storage_format"] = TopologyStorageFormat.NNR_TPL_REFLIST
    if configuration.get("encode_tpl_only"):
        data = ApproxData(parameters={}, qp_density=configuration["qp_density"])
    else:
        data = approximated(model, configuration)
    made = coder.encode_all(enc_info(configuration), model.info, data, threads=1)
    beside = input_parameters_to_json(made.input_parameters) if made.input_parameters else ""
    topology_only = configuration.get("encode_tpl_only")
    bitstream = normalized(made.bitstream) if topology_only else made.bitstream
    return Made(bitstream, {**reconstructed(data, model), **described(model.info)}, beside)


def _reduce(model: Model, configuration: Mapping[str, Any]) -> None:
    """Change the model before it is coded, and say so where the bitstream is to tell."""
    if configuration.get("pruned"):
        without_rows(model, pruned_rows(model, 4))
    if maps := configuration.get("performance_map"):
        add_performance_maps(model, maps)
    if pruning := configuration.get("pruning"):
        add_pruning(model, pruning)
        model.info["topology_storage_format"] = TopologyStorageFormat.NNR_TPL_PRUN


def approximated(model: Model, configuration: Mapping[str, Any]) -> ApproxData:
    """The tensors as integers; what no codebook suits is quantized uniformly."""
    scan = dict.fromkeys(model.weights, configuration["scan_order"]) if "scan_order" in configuration else {}
    density = configuration["qp_density"]
    data = ApproxData(parameters=dict(model.tensors), qp_density=density, scan_order=scan)
    info = approx_info(model, configuration)
    if configuration.get("lsa"):
        _scale(model, data, info)
    if configuration.get("bn_folding"):
        approximator.fold_bn(model.info, data, info)
    if info["approx_method"] == "codebook":
        data = approximator.approx(info | {"to_approximate": ["conv.weight", "fc.weight"]}, model.info, data)
    uniform = info["approx_method"] if info["approx_method"] != "codebook" else "uniform"
    return approximator.approx(info | {"approx_method": uniform}, model.info, data)


def _scale(model: Model, data: ApproxData, info: ApproxInfo) -> None:
    """Local scaling factors around 1, in steps of 1/256."""
    scales = {}
    for name in model.weights:
        numbers = integers(f"scaling {name}", len(model.tensors[name]))
        scales[name] = (1 + (numbers >> 10) / 256).astype(np.float32)
        info["qp"][f"{name}_scaling"] = info["qp"][model_vector(model)]
        info["dq_flag"][f"{name}_scaling"] = 0
    approximator.set_lsa(model.info, data, scales)


def model_vector(model: Model) -> str:
    """The name of a tensor that is not a weight."""
    return next(name for name in model.tensors if name not in model.weights)


def approx_info(model: Model, configuration: Mapping[str, Any]) -> ApproxInfo:
    """What Part 18, Table 8 calls the options."""
    weights = set(model.weights)
    qps = {name: configuration["qp" if name in weights else "nonweight_qp"] for name in model.tensors}
    info = ApproxInfo(
        approx_method=configuration["approx_method"],
        qp=qps,
        dq_flag=dict.fromkeys(model.tensors, int(not configuration["disable_dq"])),
        lambda_scale=configuration["lambda_scale"],
    )
    if configuration["approx_method"] == "codebook":
        info["qMse"], info["cb_size_ratio"] = configuration["q_mse"], configuration["cb_size_ratio"]
    if "integer_aligned_bitdepth" in configuration:
        info["integer_aligned_bitdepth"] = configuration["integer_aligned_bitdepth"]
    return info


def enc_info(configuration: Mapping[str, Any]) -> EncInfo:
    """What Part 18, Table 11 calls the options."""
    return EncInfo(
        general_profile_id=configuration["general_profile_idc"],
        cabac_unary_length_minus1=configuration["cabac_unary_length_minus1"],
        param_opt_flag=int(configuration["param_opt"]),
        nnr_pt_block_enabled_flag=configuration["nnr_pt_block_enabled"],
        partial_data_counter=configuration.get("partial_data_counter", 0),
        max_ndu_nnr_unit_size=configuration.get("max_ndu_nnr_unit_size", 0),
        encode_tpl_only=configuration.get("encode_tpl_only", False),
        mps_topology_indexed_reference_flag=configuration.get("topology_indexed_reference_flag", False),
        out_of_band_signaling=configuration.get("oob_signaling", False),
        row_skip_enabled_flag=int(configuration.get("row_skip", 0)),
        bt_signaling=configuration.get("bt_signaling", False),
    )


def reconstructed(data: ApproxData, model: Model) -> Tensors:
    """What a decoder makes of the integers (clause 9): the tensors that are coded, before folding is undone."""
    copied = deepcopy(data, {id(array): array for array in data["parameters"].values()})
    values = approximator.rec(copied, deepcopy(model.info))
    return dict(values.get("parameters", {}))
