from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

node = helper.make_node
BN = ["gamma", "beta", "mean", "var"]
BN_TYPES = {name: f"bn.{name}" for name in BN}


@pytest.fixture
def info(adapter, make_model, tmp_path):
    """The model_info of nodes and the shapes of their weights."""

    def read(nodes, **shapes):
        weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
        onnx.save(make_model(nodes, weights), tmp_path / "m.onnx")
        model = adapter.read(tmp_path / "m.onnx")
        assert list(model.tensors) == list(shapes)
        return model.model_info

    return read


def bn_shapes(channels):
    return dict.fromkeys(BN, (channels,))


def normalized(source, target="y", **attributes):
    return node("BatchNormalization", [source, *BN], [target], **attributes)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_convolutions_have_weights_and_biases(info, operator):
    found = info([node(operator, ["x", "w", "b"], ["y"])], w=(16, 16, 3, 3), b=(16,))
    assert found["parameter_type"] == {"w": "conv.weight", "b": "conv.bias"}


def test_a_convolution_its_bias_and_the_batch_normalization_after_it_are_a_block(info):
    found = info([node("Conv", ["x", "w", "b"], ["h"]), normalized("h")], w=(16, 3, 3, 3), b=(16,), **bn_shapes(16))
    assert found["parameter_type"] == {"w": "conv.weight", "b": "conv.bias", **BN_TYPES}
    assert found["block_identifier"] == dict.fromkeys(["w", "b", *BN], "w")


def test_a_bias_that_is_added_afterwards_belongs_to_the_block(info):
    found = info(
        [node("Conv", ["x", "w"], ["g"]), node("Add", ["b", "g"], ["h"]), normalized("h")],
        w=(16, 3, 3, 3),
        b=(16,),
        **bn_shapes(16),
    )
    assert found["parameter_type"]["b"] == "conv.bias"
    assert found["block_identifier"] == dict.fromkeys(["w", "b", *BN], "w")


def test_a_block_ends_where_anything_lies_between(info):
    nodes = [node("Conv", ["x", "w"], ["g"]), node("Relu", ["g"], ["h"]), normalized("h")]
    assert info(nodes, w=(16, 3, 3, 3), **bn_shapes(16))["block_identifier"] == {}


def test_a_block_ends_where_the_result_is_used_twice(info):
    nodes = [node("Conv", ["x", "w"], ["h"]), normalized("h", "z"), node("Add", ["z", "h"], ["y"])]
    assert info(nodes, w=(16, 3, 3, 3), **bn_shapes(16))["block_identifier"] == {}


def test_a_block_ends_where_the_result_is_an_output(info):
    nodes = [node("Conv", ["x", "w", "b"], ["y"]), normalized("y", "z")]
    found = info(nodes, w=(16, 3, 3, 3), b=(16,), **bn_shapes(16))
    assert found["block_identifier"] == {"w": "w", "b": "w"}


def test_a_normalization_whose_vectors_are_shared_is_in_no_block(info):
    nodes = [
        node("Conv", ["x", "w"], ["h"]),
        node("Conv", ["x", "v"], ["i"]),
        normalized("h", "j"),
        normalized("i", "k"),
        node("Add", ["j", "k"], ["y"]),
    ]
    found = info(nodes, w=(16, 3, 3, 3), v=(16, 3, 3, 3), **bn_shapes(16))
    assert found["block_identifier"] == {}
    assert found["parameter_type"] == {"w": "conv.weight", "v": "conv.weight", **BN_TYPES}


def test_a_normalization_after_a_bias_that_is_not_coded_is_in_no_block(info):
    nodes = [node("Conv", ["x", "w", "computed"], ["h"]), normalized("h")]
    assert info(nodes, w=(16, 3, 3, 3), **bn_shapes(16))["block_identifier"] == {}


def test_a_normalization_that_still_trains_is_in_no_block(info):
    nodes = [node("Conv", ["x", "w"], ["h"]), normalized("h", training_mode=1)]
    assert info(nodes, w=(16, 3, 3, 3), **bn_shapes(16))["block_identifier"] == {}


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_is_a_block_only_if_its_rows_are_outputs(info, transposed):
    found = info([node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)], w=(16, 16), b=(16,))
    assert found["parameter_type"] == {"w": "fc.weight", "b": "fc.bias"}
    assert found["block_identifier"] == ({"w": "w", "b": "w"} if transposed else {})


def test_a_matrix_product_and_the_sum_after_it_are_weight_and_bias(info):
    found = info([node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])], w=(16, 16), b=(16,))
    assert found["parameter_type"] == {"w": "fc.weight", "b": "fc.bias"}
    assert found["block_identifier"] == {}


def test_a_transposed_matrix_has_outputs_as_rows(info):
    nodes = [
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["h"]),
        node("Add", ["h", "b"], ["y"]),
    ]
    assert info(nodes, w=(16, 16), b=(16,))["block_identifier"] == {"w": "w", "b": "w"}


def test_adding_a_tensor_that_is_not_a_vector_is_not_a_bias(info):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "position"], ["y"])]
    assert info(nodes, w=(16, 16), position=(16, 16))["parameter_type"]["position"] == "unspecified"


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_are_dense_layers(info, operator):
    found = info([node(operator, ["x", "w", "r", "b"], ["y"])], w=(1, 64, 8), r=(1, 64, 16), b=(1, 128))
    assert found["parameter_type"] == {"w": "fc.weight", "r": "fc.weight", "b": "fc.bias"}
    assert found["block_identifier"] == {}


PASSING = {
    "Identity": (["w"], {}),
    "Cast": (["w"], {"to": 1}),
    "CastLike": (["w", "x"], {}),
    "Transpose": (["w"], {"perm": [3, 2, 1, 0]}),
    "Reshape": (["w", "shape"], {}),
    "Unsqueeze": (["w", "axes"], {}),
    "Squeeze": (["w"], {}),
    "Expand": (["w", "shape"], {}),
    "Slice": (["w", "start", "end"], {}),
    "Concat": (["w", "w"], {"axis": 0}),
    "QuantizeLinear": (["w", "scale"], {}),
    "DequantizeLinear": (["w", "scale"], {}),
}


@pytest.mark.parametrize("operator", PASSING)
def test_roles_are_seen_through_operations_that_only_move_values(info, operator):
    inputs, attributes = PASSING[operator]
    nodes = [
        node("Shape", ["w"], ["s"]),
        node(operator, inputs, ["moved"], **attributes),
        node("Conv", ["x", "moved"], ["y"]),
    ]
    assert info(nodes, w=(16, 3, 3, 3))["parameter_type"] == {"w": "conv.weight"}


def test_embeddings_are_matrices_whether_tied_or_not(info):
    embed = node("Gather", ["w", "ids"], ["h"])
    assert info([embed], w=(64, 16))["parameter_type"] == {"w": "fc.weight"}
    tied = [embed, node("Transpose", ["w"], ["t"]), node("MatMul", ["h", "t"], ["y"])]
    assert info(tied, w=(64, 16))["parameter_type"] == {"w": "fc.weight"}


def test_a_tensor_with_two_roles_has_none(info):
    nodes = [node("Conv", ["x", "w", "v"], ["h"]), node("BatchNormalization", ["h", "v", "b", "m", "s"], ["y"])]
    shapes = dict.fromkeys(["b", "m", "s"], (16,))
    found = info(nodes, w=(16, 3, 3, 3), v=(16,), **shapes)
    assert found["parameter_type"]["v"] == "unspecified"
    assert found["block_identifier"] == {}


def test_integer_weights_have_roles_too(adapter, make_model, tmp_path):
    nodes = [node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z", "b"], ["y"])]
    rng = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(rng.integers(-5, 5, (256, 4, 1, 1)).astype(np.int8), "w"),
        numpy_helper.from_array(rng.integers(-5, 5, 256).astype(np.int32), "b"),
        numpy_helper.from_array(rng.random(256).astype(np.float32), "s"),
    ]
    onnx.save(make_model(nodes, weights), tmp_path / "m.onnx")
    found = adapter.read(tmp_path / "m.onnx").model_info
    assert found["parameter_type"] == {"w": "conv.weight", "b": "conv.bias", "s": "unspecified"}


def test_of_operators_of_other_domains_nothing_is_known(info):
    found = info([node("Conv", ["x", "w", "b"], ["y"], domain="com.example")], w=(16, 3, 3, 3), b=(16,))
    assert found["parameter_type"] == {"b": "unspecified"}


@pytest.mark.parametrize(
    ("operator", "shape", "role"),
    [
        ("FusedMatMul", (16, 16), "fc.weight"),
        ("FusedGemm", (16, 16), "fc.weight"),
        ("FusedConv", (16, 3, 3, 3), "conv.weight"),
        ("Attention", (16, 48), "fc.weight"),
    ],
)
def test_operators_that_onnxruntime_makes_of_others_have_their_roles(info, operator, shape, role):
    found = info([node(operator, ["x", "w"], ["y"], domain="com.microsoft")], w=shape)
    assert found["parameter_type"] == {"w": role}
