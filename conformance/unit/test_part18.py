"""The module ``coder`` of ISO/IEC 15938-18: what is decoded has the keys of what was coded, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnc_core
import nnc_core.approximator as approximator
from nnc_core import ModelError, approx_coder
from nnc_core.approximator import ApproxData, ApproxInfo
from nnc_core.bitstream import Bitstream
from nnc_core.coder import part18 as coder
from nnc_core.coder.data import EncInfo, input_parameters_from_json, input_parameters_to_json
from nnc_core.nnr_model import ModelInfo, check_model_info, model_info_of
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.code_points import NnrUnitType

Tensors = dict[str, NDArray[Any]]

TYPES = ("bn.beta", "bn.gamma", "bn.mean", "bn.var")


def model(seed: int, shapes: list[tuple[int, ...]], bias: bool, norm: bool) -> tuple[ModelInfo, Tensors]:
    """A block for each shape, and tensors that belong to none."""
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    info = ModelInfo(parameter_type={}, block_identifier={}, parameter_index={})

    def add(name: str, kind: Any, identifier: str | None, array: NDArray[Any]) -> None:
        info["parameter_index"][name] = len(tensors)
        info["parameter_type"][name] = kind
        if identifier is not None:
            info["block_identifier"][name] = identifier
        tensors[name] = array

    for number, shape in enumerate(shapes):
        kind = "conv" if len(shape) > 2 else "fc"
        identifier = f"block {number}" if bias or norm else None
        add(f"{number}.w", f"{kind}.weight", identifier, random.normal(0, 0.1, shape).astype(np.float32))
        if bias:
            add(f"{number}.b", f"{kind}.bias", identifier, random.normal(0, 1, shape[:1]).astype(np.float32))
        for each in TYPES if norm else ():
            vector = np.abs(random.normal(0, 1, shape[:1]).astype(np.float32)) + np.float32(0.01)
            add(f"{number}.{each}", each, identifier, vector)
    add("integers", "unspecified", None, random.integers(-99, 99, (3, 4)).astype(np.int32))
    add("vector", "unspecified", None, random.normal(0, 1, 7).astype(np.float32))
    return info, tensors


def assert_same(one: ApproxData, other: ApproxData) -> None:
    """The dictionaries are equal, arrays in type, shape and bits."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if not isinstance(value, dict):
            assert value == other[key], key  # type: ignore[literal-required]
            continue
        found = other[key]  # type: ignore[literal-required]
        assert value.keys() == found.keys(), key
        for name, each in value.items():
            np.testing.assert_array_equal(
                each, found[name], strict=isinstance(each, np.ndarray), err_msg=f"{key} {name}"
            )


shapes = st.lists(
    st.sampled_from([(1, 1), (5, 1), (1, 7), (6, 9), (33, 8), (4, 3, 3), (20, 2, 3, 3), (12, 40)]),
    min_size=1,
    max_size=3,
)
enc_infos = st.fixed_dictionaries(
    {},
    optional={
        "cabac_unary_length_minus1": st.integers(0, 20),
        "param_opt_flag": st.integers(0, 1),
        "nnr_pt_block_enabled_flag": st.integers(0, 1),
        "partial_data_counter": st.integers(0, 4),
        "max_ndu_nnr_unit_size": st.integers(150, 2000),
        "row_skip_enabled_flag": st.integers(0, 1),
        "general_profile_id": st.integers(0, 1),
        "mps_topology_indexed_reference_flag": st.booleans(),
        "node_id_present_flag": st.integers(0, 1),
        "device_id": st.integers(0, 3),
    },
)
tools = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["uniform", "codebook", "uniform_sbt"]),
        "dq": st.booleans(),
        "scan": st.integers(0, 2),
        "fold": st.booleans(),
        "rank": st.none() | st.integers(1, 3),
        "scale": st.booleans(),
        "only": st.none() | st.just(["conv.weight", "fc.weight", "bn.gamma"]),
        "bits": st.none() | st.sampled_from([4, 8]),
    }
)


def prepared(info: ModelInfo, tensors: Tensors, tools: dict[str, Any]) -> ApproxData:
    """The tensors after the tools of the approximator."""
    data = ApproxData(parameters=dict(tensors), qp_density=2, scan_order=dict.fromkeys(tensors, tools["scan"]))
    settings_ = ApproxInfo(
        approx_method=tools["method"],
        qp=dict.fromkeys(tensors, -24),
        dq_flag=dict.fromkeys(tensors, int(tools["dq"])),
        sbt_args={"sbt_quantization_approach": "ternary", "sbt_mean_quant": True},
    )
    if tools["only"]:
        settings_["to_approximate"] = tools["only"]
    if tools["bits"]:
        settings_["integer_aligned_bitdepth"] = tools["bits"]
    if tools["rank"]:
        approximator.decompose(info, data, rank=tools["rank"])
    if tools["fold"]:
        approximator.fold_bn(info, data, settings_)
    if tools["scale"] and not tools["fold"]:
        scales = {n: np.linspace(0.5, 2, len(a)).astype(np.float32) for n, a in tensors.items() if n.endswith(".w")}
        approximator.set_lsa(info, data, scales)
        settings_["qp"] |= {f"{name}_scaling": -40 for name in scales}
    return approximator.approx(settings_, info, data)


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 1 << 32), shapes, st.booleans(), st.booleans(), tools, enc_infos)
def test_what_is_decoded_has_the_keys_and_the_bits_of_what_was_coded(
    seed: int, shapes: list[tuple[int, ...]], bias: bool, norm: bool, tools: dict[str, Any], enc_info: EncInfo
) -> None:
    info, tensors = model(seed, shapes, bias, norm)
    data = prepared(info, tensors, tools)
    known = ModelInfo(block_identifier=dict(info["block_identifier"]))
    assert_same(data, coder.decode(coder.encode(enc_info, info, data, threads=1), known, threads=1))
    check_model_info(known, tensors)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1 << 32), shapes, st.booleans(), tools)
def test_what_is_decoded_without_any_knowledge_reconstructs_to_the_same_tensors(
    seed: int, shapes: list[tuple[int, ...]], norm: bool, tools: dict[str, Any]
) -> None:
    info, tensors = model(seed, shapes, True, norm)
    data = prepared(info, tensors, tools)
    bitstream = coder.encode({}, info, data, threads=1)
    plain = nnc_core.decode(bitstream, threads=1)
    decoded = approximator.rec(coder.decode(bitstream, threads=1))
    assert decoded["parameters"].keys() == plain.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(decoded["parameters"][name], array, strict=True)


def example(**tools: Any) -> tuple[ModelInfo, Tensors, ApproxData]:
    info, tensors = model(1, [(16, 12), (8, 4, 3, 3)], True, True)
    usual = {"method": "uniform", "dq": True, "scan": 0, "fold": False, "rank": None, "scale": False}
    return info, tensors, prepared(info, tensors, {**usual, "only": None, "bits": None, **tools})


def headers(bitstream: bytes) -> list[CompressedDataUnitHeader]:
    return [unit.header for unit in Bitstream(bitstream).data_units]


def test_a_decoder_that_is_told_nothing_describes_the_model() -> None:
    info, tensors, data = example()
    found = ModelInfo()
    coder.decode(coder.encode({}, info, data), found)
    assert found["parameter_type"] == info["parameter_type"]
    assert found["parameter_dimensions"] == {name: list(array.shape) for name, array in tensors.items()}
    assert found["block_identifier"]["0.bn.var"] == found["block_identifier"]["0.w"] == "0.w"
    assert found["topology_storage_format"] is None


def test_separate_units_of_a_block_are_put_together_again() -> None:
    info, _, data = example(rank=2)
    bitstream = coder.encode({"nnr_pt_block_enabled_flag": 0}, info, data)
    assert len(headers(bitstream)) == 2 * 7 + 2
    assert_same(data, coder.decode(bitstream, ModelInfo(block_identifier=info["block_identifier"])))


def test_the_result_does_not_depend_on_threads() -> None:
    info, _, data = example()
    assert coder.encode({}, info, data, threads=1) == coder.encode({}, info, data, threads=4)


def test_units_keep_to_their_largest_size() -> None:
    info, _, data = example()
    bitstream = coder.encode({"max_ndu_nnr_unit_size": 200}, info, data)
    sizes = [unit.size for unit in Bitstream(bitstream).units if unit.type == NnrUnitType.NNR_NDU]
    assert max(sizes) <= 200 < sum(sizes)


def test_a_unit_is_cut_into_as_many_parts_as_wanted() -> None:
    info, _, data = example()
    counters = [
        unit.partial_data_counter for unit in Bitstream(coder.encode({"partial_data_counter": 3}, info, data)).units
    ]
    assert counters[2:5] == [3, 2, 1]


def test_topology_alone_can_be_sent() -> None:
    info, _, data = example()
    info["topology_storage_format"] = 3
    found = ModelInfo()
    bitstream = coder.encode({"encode_tpl_only": True}, info, data)
    assert coder.decode(bitstream, found)["parameters"] == {}
    assert found["topology_storage_format"] == 3


def test_parameters_are_sent_out_of_band() -> None:
    info, _, data = example()
    coded = coder.encode_all({"out_of_band_signaling": True, "cabac_unary_length_minus1": 4}, info, data)
    assert len(coded.bitstream) < len(coder.encode({"cabac_unary_length_minus1": 4}, info, data))
    beside = input_parameters_from_json(input_parameters_to_json(coded.input_parameters))
    assert beside == coded.input_parameters
    known = ModelInfo(block_identifier=info["block_identifier"])
    assert_same(data, coder.decode(coded.bitstream, known, input_parameters=beside))
    with pytest.raises(nnc_core.BitstreamError, match="no usable dimensions"):
        coder.decode(coded.bitstream)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"w": 1}', '{"w": {"tensor_dimensions": [-1]}}', '{"w": {"cabac_unary_length_minus1": "9"}}']
)
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        input_parameters_from_json(text)


def test_few_levels_take_a_codebook_where_binary_and_ternary_data_are_signalled() -> None:
    info, _, data = example(method="uniform_sbt", dq=False)
    plain, special = (coder.encode({"bt_signaling": flag}, info, data) for flag in (False, True))
    assert not any(h.codebook_present_flag for h in headers(plain))
    assert any(h.codebook_present_flag for h in headers(special))
    assert len(special) < len(plain)
    for name, array in nnc_core.decode(plain).items():
        np.testing.assert_array_equal(array, nnc_core.decode(special)[name])


def test_updates_build_on_each_other() -> None:
    info, _, data = example()
    enc_info: EncInfo = {
        "parent_node_id_present_flag": 1,
        "node_id_present_flag": 1,
        "device_id": 2,
        "temporal_context_modeling_flag": 1,
    }
    first = coder.encode_all(enc_info, info, data, histories={})
    second = coder.encode_all(enc_info, info, data, histories=first.histories)
    assert len(second.bitstream) < len(first.bitstream)
    assert {h.put_node_depth for h in headers(second.bitstream)} == {2}
    known = ModelInfo(block_identifier=info["block_identifier"])
    assert_same(data, coder.decode(second.bitstream, known, histories=first.histories))
    with pytest.raises(nnc_core.MissingLinkError):
        coder.decode(second.bitstream)


def test_performance_maps_and_masks_travel_in_the_model_info() -> None:
    info, _, data = example()
    info["performance_maps"] = {
        "sparsification": {
            "count_thresholds": 2,
            "sparsification_threshold": [0.5, 0.25],
            "non_zero_ratio": [0.125, 0.5],
            "nn_accuracy": [0.75, 0.875],
            "count_classes": [0, 2],
            "class_bitmask": [0, 5],
            "nn_class_accuracy": [[], [0.5, 0.25]],
        },
        "pruning": {
            "count_pruning_ratios": 1,
            "pruning_ratio": [0.5],
            "nn_accuracy": [0.75],
            "count_classes": [0],
            "class_bitmask": [0],
            "nn_class_accuracy": [[]],
        },
    }
    info |= {"prune_rep_type": 0, "prune_bit_mask": [1, 0, 1], "sparse_bit_mask": [0] * 9 + [1]}
    info["bit_mask_order_flag"] = False
    found = ModelInfo()
    coder.decode(coder.encode({}, info, data), found)
    for key in ("performance_maps", "prune_rep_type", "prune_bit_mask", "sparse_bit_mask", "bit_mask_order_flag"):
        assert found[key] == info[key], key  # type: ignore[literal-required]


@pytest.mark.parametrize("indexed", [False, True])
def test_a_dictionary_of_pruned_tensors_travels_in_the_model_info(indexed: bool) -> None:
    info, _, data = example()
    info |= {"prune_rep_type": 1, "prune_tpl_elem_ids": ["0.w", "1.w"], "prune_tpl_count_dims": [2, 4]}
    info["prune_tpl_dims"] = [8, 12, 8, 4, 3, 3]
    found = ModelInfo()
    coder.decode(coder.encode({"mps_topology_indexed_reference_flag": indexed}, info, data), found)
    for key in ("prune_rep_type", "prune_tpl_elem_ids", "prune_tpl_count_dims", "prune_tpl_dims"):
        assert found[key] == info[key], key  # type: ignore[literal-required]


def test_coding_and_approximation_are_coupled() -> None:
    info, tensors, _ = example()
    settings_ = ApproxInfo(approx_method="uniform", qp=dict.fromkeys(tensors, -40))
    bitstream = approx_coder.encode(settings_, {}, info, ApproxData(parameters=dict(tensors), qp_density=2))
    decoded = approx_coder.decode(bitstream, ModelInfo(**info))["parameters"]
    assert decoded.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_allclose(decoded[name], array, atol=1e-3)


def test_what_was_folded_and_decomposed_comes_back_in_name_and_shape() -> None:
    info, tensors, data = example(fold=True, rank=3)
    decoded = approx_coder.decode(coder.encode({}, info, data), ModelInfo(**info))
    assert {name: array.shape for name, array in decoded["parameters"].items()} == {
        name: array.shape for name, array in tensors.items()
    }


# --- model_info ------------------------------------------------------------------------------------------------------


def test_the_description_of_a_model_follows_from_its_shapes() -> None:
    _, tensors, _ = example()
    info = model_info_of(tensors)
    check_model_info(info, tensors)
    assert info["parameter_type"]["0.w"] == "fc.weight"
    assert info["parameter_type"]["1.w"] == "conv.weight"
    assert list(info["parameter_index"]) == list(tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameter_type": {"0.b": "fc.weight"}}, "has 2 weights"),
        ({"parameter_type": {"0.w": "unspecified"}}, "has 0 weights"),
        ({"parameter_type": {"0.bn.var": "bn.mean"}}, "2 tensors of type bn.mean"),
        ({"block_identifier": {"vector": "block 0"}}, r"'vector' in block 'block 0' has shape \(7,\)"),
        ({"parameter_index": {"vector": 0}}, "parameter_index 0 is that of 2 tensors"),
        ({"parameter_dimensions": {"vector": [8]}}, "the tensor is"),
    ],
)
def test_a_description_that_contradicts_the_tensors_is_refused(change: dict[str, Any], message: str) -> None:
    info, tensors, data = example()
    for key, values in change.items():
        info.setdefault(key, {}).update(values)  # type: ignore[typeddict-item,misc]
    with pytest.raises(ModelError, match=message):
        check_model_info(info, tensors)
    with pytest.raises(ModelError, match=message):
        coder.encode({}, info, data)
