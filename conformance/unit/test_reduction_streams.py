"""What was reduced travels in a bitstream: masks, dictionaries and performance maps, and shapes come back."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_core
from nnc_core import BitstreamError, LimitError, Limits, ModelError, approx_coder
from nnc_core.approximator import ApproxData, ApproxInfo
from nnc_core.bitstream import Bitstream, BitstreamWriter
from nnc_core.coder import part18 as coder
from nnc_core.nnr_model import ModelInfo, model_info_of
from nnc_core.pipeline import Package, Section, Stage, changing, standard
from nnc_core.reduction import (
    Reduced,
    applied,
    describe_dictionary,
    describe_masks,
    in_pruned_shape,
    low_rank,
    masks_of,
    prune_and_sparsify,
    restore,
    sparsification_map,
    sparsify,
)
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.pruning import BitMask, PrunedElement, PruningTopologyContainer
from nnc_core.tables.code_points import NnrUnitType, PruningRepresentationType

GONE = np.array([[0, 0, 0], [1, 1, 1]], bool)
SPARSE = np.array([[1, 0, 0], [0, 0, 0]], bool)
MODEL = {
    "w": np.array([[0, 0.5, -0.25], [0, 0, 0]], np.float32),
    "b": np.array([1, 2], np.float32),
    "v": np.array([[0.5], [0.75]], np.float32),
}
SHAPES = {name: array.shape for name, array in MODEL.items()}


# --- the order of the bits, by hand -----------------------------------------------------------------------------------


def test_masks_have_a_bit_for_each_element_of_the_tensors_by_name() -> None:
    info = describe_masks(SHAPES, {"w": GONE}, {"w": SPARSE})
    assert np.asarray(info["prune_bit_mask"]).tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert np.asarray(info["sparse_bit_mask"]).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert info["bit_mask_order_flag"] is True
    assert info["prune_rep_type"] == 0


def test_column_major_masks_run_down_the_columns() -> None:
    info = describe_masks(SHAPES, {"w": GONE}, {}, row_major=False)
    assert np.asarray(info["prune_bit_mask"]).tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 1]
    assert "sparse_bit_mask" not in info
    pruned, sparse = masks_of(info, SHAPES)
    assert pruned["w"].tolist() == GONE.tolist()
    assert not sparse


@pytest.mark.parametrize(
    "bits",
    [
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 0],  # all elements: of b, v and w
        [0, 0, 0, 0, 1, 0, 0],  # those that were not pruned
        [0, 0, 1, 0, 0, 0, 0, 0],  # weights without vectors
        [0, 0, 1, 0, 0],  # weights that were not pruned
    ],
)
def test_all_readings_of_a_sparse_mask_are_understood(bits: list[int]) -> None:
    info = describe_masks(SHAPES, {"w": GONE}, {})
    pruned, sparse = masks_of(info | ModelInfo(sparse_bit_mask=bits), SHAPES)
    assert pruned["w"].tolist() == GONE.tolist()
    assert {name: mask.tolist() for name, mask in sparse.items()} == {"w": SPARSE.tolist()}


def test_a_mask_that_fits_no_reading_is_refused() -> None:
    with pytest.raises(ModelError, match="a mask of 4 bits for tensors of 10 elements"):
        masks_of(ModelInfo(sparse_bit_mask=[0, 0, 0, 1]), SHAPES)
    with pytest.raises(ModelError, match=r"a mask of shape \(2, 3\), expected that of the tensor"):
        describe_masks({"w": (3, 2)}, {"w": GONE}, {})


def test_no_mask_says_nothing() -> None:
    assert describe_masks(SHAPES, {}, {}) == {}
    assert masks_of(ModelInfo(), SHAPES) == ({}, {})


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_the_bytes_of_a_pruning_topology_unit() -> None:
    """Both masks of one 2 x 3 weight: 10 bits of 111000 and 100000, each byte-aligned with a one and zeros."""
    data = nnc_core.encode({"w": MODEL["w"]}, model_info=describe_masks({"w": (2, 3)}, {"w": GONE}, {"w": SPARSE}))
    unit = next(u for u in Bitstream(data).units if u.type == NnrUnitType.NNR_TPL)
    first = bytes([0b00_1_1_1_000])  # NNR_TPL_BMSK, prune_flag, order_flag, sparse_flag
    payload = first + bytes([0, 0, 0, 6, 0b000111_10]) + bytes([0, 0, 0, 6, 0b100000_10])
    assert data[unit.offset : unit.offset + unit.size] == bytes([0, 16, 0x0E, 5, 0]) + payload


def test_masks_are_deflated_where_that_saves_bytes() -> None:
    sparse = np.zeros((64, 64), bool)
    sparse[::2] = True
    data = nnc_core.encode({"w": np.ones((64, 64))}, model_info=describe_masks({"w": (64, 64)}, {}, {"w": sparse}))
    unit = next(u for u in Bitstream(data).units if u.type == NnrUnitType.NNR_TPL)
    assert unit.size < 64
    assert masks_of(nnc_core.open(data).model_info, {"w": (64, 64)})[1]["w"].tolist() == sparse.tolist()


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_a_stream_of_full_shapes_gives_both() -> None:
    info = describe_masks(SHAPES, {"w": GONE}, {"w": SPARSE})
    with nnc_core.open(nnc_core.encode(MODEL, model_info=info)) as file:
        full = restore(file, file.model_info)
        pruned = restore(file, file.model_info, pruned=True)
    assert full["w"].tolist() == MODEL["w"].tolist()
    assert pruned["w"].tolist() == [[0, 0.5, -0.25]]
    assert pruned["v"].shape == (2, 1)


def test_a_stream_of_pruned_shapes_gives_both() -> None:
    info = describe_masks(SHAPES, {"w": GONE}, {})
    small = in_pruned_shape(MODEL, {"w": GONE})
    with nnc_core.open(nnc_core.encode(small, model_info=info)) as file:
        assert file["w"].shape == (1, 3)
        assert restore(file, file.model_info, shapes=SHAPES)["w"].tolist() == MODEL["w"].tolist()
        assert restore(file, file.model_info, pruned=True, shapes=SHAPES)["w"].tolist() == [[0, 0.5, -0.25]]
        with pytest.raises(ModelError, match="a mask of 10 bits"):
            restore(file, file.model_info)


def test_what_masks_say_is_gone_is_zero_whatever_was_coded() -> None:
    ones = {"w": np.ones((2, 3), np.float32)}
    info = describe_masks({"w": (2, 3)}, {"w": GONE}, {"w": SPARSE})
    with nnc_core.open(nnc_core.encode(ones, model_info=info)) as file:
        assert restore(file, file.model_info)["w"].tolist() == [[0, 1, 1], [0, 0, 0]]


def test_a_dictionary_gives_the_pruned_shape_of_slices_of_zeros() -> None:
    info = describe_dictionary(MODEL, {"w": GONE | np.array([True, False, False])})
    assert info["prune_tpl_elem_ids"] == ["w"]
    assert info["prune_tpl_dims"] == [1, 2]
    with nnc_core.open(nnc_core.encode(MODEL, model_info=info)) as file:
        assert restore(file, file.model_info, pruned=True)["w"].tolist() == [[0.5, -0.25]]
        assert restore(file, file.model_info)["w"].tolist() == MODEL["w"].tolist()
    small = {**MODEL, "w": MODEL["w"][:1, 1:]}
    with nnc_core.open(nnc_core.encode(small, model_info=info)) as file:
        assert restore(file, file.model_info, pruned=True)["w"].tolist() == [[0.5, -0.25]]
        with pytest.raises(ModelError, match=r"does not tell which parts are gone to make it \(1, 2\)"):
            restore(file, file.model_info, shapes=SHAPES)


def test_a_tensor_of_no_expected_shape_is_refused() -> None:
    info = describe_masks(SHAPES, {"w": GONE}, {})
    with pytest.raises(ModelError, match=r"'w': has shape \(3, 2\), expected \(2, 3\), or \(1, 3\) after pruning"):
        restore({**MODEL, "w": np.zeros((3, 2))}, info, shapes=SHAPES)


# --- the whole chain --------------------------------------------------------------------------------------------------


def layers() -> tuple[dict[str, NDArray[Any]], ModelInfo]:
    random = np.random.default_rng(5)
    tensors = {
        "one": random.normal(size=(16, 8, 3, 3)).astype(np.float32),
        "one.bias": random.normal(size=16).astype(np.float32),
        "two": random.normal(size=(32, 16)).astype(np.float32),
    }
    info = model_info_of(tensors)
    info["parameter_type"]["one.bias"] = "conv.bias"
    info["block_identifier"] = {"one": "one", "one.bias": "one"}
    return tensors, info


def reduced() -> Reduced:
    tensors, info = layers()
    return prune_and_sparsify(tensors, 0.25, 0.5, model_info=info, inputs={"two": "one"})


def test_a_pruned_and_sparsified_model_is_smaller_and_comes_back_in_both_shapes() -> None:
    tensors, info = layers()
    found = reduced()
    data = nnc_core.encode(found.parameters, model_info=info | found.model_info)
    assert len(data) < 0.75 * len(nnc_core.encode(tensors))
    with nnc_core.open(data) as file:
        pruned, full = restore(file, file.model_info, pruned=True), restore(file, file.model_info)
    assert {name: array.shape for name, array in pruned.items()} == {
        "one": (12, 8, 3, 3),
        "one.bias": (12,),
        "two": (32, 12),
    }
    for name, array in found.parameters.items():
        assert not full[name][array == 0].any()
        np.testing.assert_allclose(full[name], array, atol=0.1)


def test_the_functions_of_part_18_carry_masks_and_maps() -> None:
    tensors, info = layers()
    found = reduced()
    info.update(found.model_info)
    info["performance_maps"] = {"sparsification": sparsification_map(tensors, [0.5], lambda tensors: 0.75)}
    settings = ApproxInfo(qp=dict.fromkeys(tensors, -32))
    decoded_info = ModelInfo()
    data = ApproxData(parameters=found.parameters, qp_density=2)
    decoded = approx_coder.decode(approx_coder.encode(settings, {}, info, data), decoded_info)
    assert decoded_info["sparse_bit_mask"] == np.asarray(info["sparse_bit_mask"]).tolist()
    found_map, map_ = (each["performance_maps"]["sparsification"] for each in (decoded_info, info))
    assert found_map["non_zero_ratio"] == pytest.approx(map_["non_zero_ratio"])
    assert {**found_map, "non_zero_ratio": []} == {**map_, "non_zero_ratio": []}
    small = restore(decoded["parameters"], decoded_info, pruned=True)
    expected = in_pruned_shape(found.parameters, found.pruned)
    assert {name: array.shape for name, array in small.items()} == {n: array.shape for n, array in expected.items()}
    for name, array in expected.items():
        np.testing.assert_allclose(small[name], array, atol=0.1)


def test_performance_maps_travel_beside_planned_models() -> None:
    tensors, info = layers()
    info["performance_maps"] = {"sparsification": sparsification_map(tensors, [0.5, 1], lambda tensors: 0.75)}
    with nnc_core.open(nnc_core.encode(tensors, model_info=info)) as file:
        maps = file.model_info["performance_maps"]["sparsification"]
    assert maps["sparsification_threshold"] == [0.5, 1]
    assert maps["nn_accuracy"] == [0.75, 0.75]
    assert maps["non_zero_ratio"] == pytest.approx(info["performance_maps"]["sparsification"]["non_zero_ratio"])


@pytest.mark.parametrize("blocks", [0, 1])
def test_performance_maps_of_layers_travel_in_layer_parameter_sets(blocks: int) -> None:
    tensors, info = layers()
    maps = [sparsification_map({name: tensors[name]}, [0.5], lambda tensors: 0.75) for name in ("one", "two")]
    info["layer_performance_maps"] = {"one": {"sparsification": maps[0]}}
    data, settings = ApproxData(parameters=tensors, qp_density=3), ApproxInfo(qp=dict.fromkeys(tensors, -64))
    stream = approx_coder.encode(settings, {"nnr_pt_block_enabled_flag": blocks}, info, data)
    kinds = [unit.type for unit in Bitstream(stream).units]
    assert kinds[2:] == [NnrUnitType.NNR_LPS, *[NnrUnitType.NNR_NDU] * (2 - blocks), NnrUnitType.NNR_LPS, kinds[-1]]
    decoded_info = ModelInfo()
    decoded = approx_coder.decode(stream, decoded_info)
    assert decoded_info["layer_performance_maps"].keys() == {"one"}
    found = decoded_info["layer_performance_maps"]["one"]["sparsification"]
    assert found["non_zero_ratio"] == pytest.approx(maps[0]["non_zero_ratio"])
    for name, array in tensors.items():
        np.testing.assert_allclose(decoded["parameters"][name], array, atol=2**-8)
    info["layer_performance_maps"]["two"] = {"decomposition": {}}
    with pytest.raises(ModelError, match="there is no performance map 'decomposition'"):
        approx_coder.encode(settings, {}, info, data)


def test_a_reduction_is_a_stage_of_a_pipeline() -> None:
    tensors, info = layers()
    pipeline = standard(ApproxInfo(qp=dict.fromkeys(tensors, -32)), {})
    half = Stage("sparsify", Section.REDUCTION, changing(applied(lambda tensors: sparsify(tensors, 0.5))))
    coded = pipeline.with_stage(half).encode(Package(info, ApproxData(parameters=tensors, qp_density=2)))
    decoded = pipeline.decode(coded)
    for name in ("one", "two"):
        mask = masks_of(decoded.model_info, {name: each.shape for name, each in tensors.items()})[1][name]
        assert np.count_nonzero(mask) == mask.size / 2
        assert not decoded.approx_data["parameters"][name][mask].any()


def test_factors_of_low_rank_are_recomposed_by_the_decoder() -> None:
    weight = np.outer(np.arange(1, 9), np.arange(-3, 4)).astype(np.float32)
    found = low_rank({"w": weight, "b": np.ones(8, np.float32)}, rank=1)
    data = found.approx_data()
    info = ApproxInfo(qp={"w": -40, "b": -40})
    decoded = approx_coder.decode(approx_coder.encode(info, {}, model_info_of(found.recomposed()), data))
    np.testing.assert_allclose(decoded["parameters"]["w"], weight, atol=0.02)


# --- hostile streams --------------------------------------------------------------------------------------------------


def with_container(container: PruningTopologyContainer, references: tuple[str, ...] = ()) -> bytes:
    stream = io.BytesIO()
    mps = ModelParameterSet(
        topology_carriage_flag=True,
        mps_quantization_method_flags=1,
        mps_topology_indexed_reference_flag=bool(references),
        mps_qp_density=2,
        mps_quantization_parameter=0,
    )
    BitstreamWriter(stream, mps, references=references).pruning(container)
    return stream.getvalue()


def test_an_index_beyond_the_reference_list_is_refused() -> None:
    entry = PrunedElement(None, 77, (3,))
    container = PruningTopologyContainer(PruningRepresentationType.NNR_TPL_DICT, prune_flag=True, dictionary=(entry,))
    data = with_container(container, ("a", "b"))
    with pytest.raises(BitstreamError, match=r"element_id_index.*the value 77 is not allowed"):
        _ = nnc_core.open(data).model_info
    with pytest.raises(BitstreamError, match="an index below 2"):
        coder.decode(data)


def test_masks_are_bounded_like_tensors() -> None:
    """Deflated, a mask of zeros takes next to nothing, whatever its length."""
    data = with_container(PruningTopologyContainer(sparse_flag=True, sparse_mask=BitMask(1 << 20, bytes(1 << 17))))
    assert len(data) < 300
    assert len(nnc_core.open(data).model_info["sparse_bit_mask"]) == 1 << 20
    with pytest.raises(LimitError, match="count_bits"):
        _ = nnc_core.open(data, limits=Limits(tensor_elements=1 << 19)).model_info
