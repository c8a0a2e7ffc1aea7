"""Weights are found wherever a model can have them, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

W = np.arange(64, dtype=np.float32).reshape(8, 8) / 64


def tensor(name="w", array=W):
    return numpy_helper.from_array(array, name)


def constant(output, array=W, name=""):
    return helper.make_node("Constant", [], [output], value=tensor(name, array), name=f"make_{output}")


def branch(name, nodes, output, initializers=()):
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, 1, [None, 8])], initializers)


def condition(name="c"):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(True), ""))


def if_model(make_model, then, otherwise, *, name="choice", before=(), initializers=()):
    node = helper.make_node("If", ["c"], ["y"], name=name, then_branch=then, else_branch=otherwise)
    return make_model([condition(), *before, node], initializers, inputs={"x": [1, 8]}, outputs={"y": [None, 8]})


def matmul(weight, output):
    return helper.make_node("MatMul", ["x", weight], [output])


def feeds():
    return {"x": np.ones((1, 8), np.float32)}


def test_initializers_are_coded_in_model_order(make_model, round_trip):
    names = ["z", "a", "m"]
    model = make_model([helper.make_node("Sum", names, ["y"])], [tensor(n) for n in names], outputs={"y": [8, 8]})
    assert list(round_trip(model).tensors) == names


def test_a_constant_is_called_like_its_output(make_model, round_trip, run, tmp_path):
    model = make_model(
        [constant("w", name="a name without meaning"), matmul("w", "y")], inputs={"x": [1, 8]}, outputs={"y": [1, 8]}
    )
    read = round_trip(model)
    np.testing.assert_array_equal(read.tensors["w"], W, strict=True)
    np.testing.assert_array_equal(run(tmp_path / "target.onnx", feeds())[0], W.sum(0, keepdims=True))


def test_other_constants_stay_in_the_model(make_model, round_trip):
    nodes = [
        helper.make_node("Constant", [], ["a"], value_floats=[1.0] * 32),
        helper.make_node("Constant", [], ["b"], value_ints=[1] * 300),
        helper.make_node("Constant", [], ["s"], value_strings=[b"s"] * 20),
        helper.make_node("Identity", ["a"], ["y"]),
    ]
    assert not round_trip(make_model(nodes, outputs={"y": [32]})).tensors


def test_tensors_in_attributes_of_other_nodes_stay_in_the_model(make_model, round_trip, adapter, tmp_path):
    filled = helper.make_node("ConstantOfShape", ["x"], ["y"], value=tensor("", np.ones(1, np.float32)))
    custom = helper.make_node("Custom", [], ["z"], domain="com.example", table=tensor("t"), tables=[tensor("u")])
    shape = helper.make_tensor("x", TensorProto.INT64, [1], [3])
    assert not round_trip(make_model([filled], [shape])).tensors
    model = make_model([custom], outputs={"z": [8, 8]})
    onnx.save(model, tmp_path / "m.onnx")
    assert not adapter.read(tmp_path / "m.onnx").tensors


def test_initializers_and_constants_of_both_branches_are_coded(make_model, round_trip, run, tmp_path):
    then = branch("then", [matmul("w1", "t")], "t", [tensor("w1")])
    otherwise = branch("otherwise", [constant("w2"), matmul("w2", "e")], "e")
    read = round_trip(if_model(make_model, then, otherwise))
    assert set(read.tensors) == {"w1", "w2"}
    np.testing.assert_array_equal(run(tmp_path / "target.onnx", feeds())[0], W.sum(0, keepdims=True))


def test_equal_names_in_two_branches_are_told_apart_by_their_paths(make_model, round_trip):
    then = branch("then", [matmul("w", "t")], "t", [tensor("w")])
    otherwise = branch("otherwise", [constant("w", 2 * W), matmul("w", "e")], "e")
    read = round_trip(if_model(make_model, then, otherwise))
    assert set(read.tensors) == {"choice.then_branch/w", "choice.else_branch/w"}
    np.testing.assert_array_equal(read.tensors["choice.else_branch/w"], 2 * W)


def test_nodes_without_a_name_are_called_by_their_index_and_equal_paths_are_numbered(make_model, round_trip):
    graphs = [branch(n, [matmul("w", "t")], "t", [tensor("w")]) for n in "abcd"]
    nodes = [
        condition(),
        helper.make_node("If", ["c"], ["y"], then_branch=graphs[0], else_branch=graphs[1]),
        helper.make_node("If", ["c"], ["z"], name="1", then_branch=graphs[2], else_branch=graphs[3]),
    ]
    read = round_trip(make_model(nodes, inputs={"x": [1, 8]}, outputs={"y": [1, 8], "z": [1, 8]}))
    base = ["1.then_branch/w", "1.else_branch/w"]
    assert sorted(read.tensors) == sorted(base + [f"{name}#2" for name in base])


def test_graphs_inside_graphs_are_searched(make_model, round_trip):
    graph = branch("g0", [constant("w0")], "w0")
    for depth in range(1, 8):
        other = branch("other", [helper.make_node("Identity", ["x"], [f"e{depth}"])], f"e{depth}")
        node = helper.make_node("If", ["c"], [f"t{depth}"], then_branch=graph, else_branch=other)
        graph = branch(f"g{depth}", [constant(f"w{depth}"), node], f"t{depth}")
    read = round_trip(if_model(make_model, graph, branch("e", [helper.make_node("Identity", ["x"], ["e"])], "e")))
    assert set(read.tensors) == {f"w{depth}" for depth in range(8)}


def test_the_bodies_of_loop_and_scan_are_searched(make_model, round_trip, run, tmp_path):
    value = helper.make_tensor_value_info
    step = helper.make_graph(
        [helper.make_node("MatMul", ["state", "w"], ["next"]), helper.make_node("Identity", ["going"], ["on"])],
        "step",
        [value("i", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("state", 1, [1, 8])],
        [value("on", TensorProto.BOOL, []), value("next", 1, [1, 8])],
        [tensor("w")],
    )
    row = helper.make_graph(
        [helper.make_node("Add", ["before", "item"], ["sum"]), matmul_of("sum", "v", "after")],
        "row",
        [value("before", 1, [8]), value("item", 1, [8])],
        [value("after", 1, [8])],
        [tensor("v", 2 * W)],
    )
    nodes = [
        helper.make_node("Loop", ["n", "c", "x"], ["z"], body=step),
        helper.make_node("Scan", ["first", "z"], ["y"], body=row, num_scan_inputs=1),
    ]
    numbers = [
        helper.make_tensor("n", TensorProto.INT64, [], [2]),
        helper.make_tensor("c", TensorProto.BOOL, [], [True]),
        tensor("first", np.zeros(8, np.float32)),
    ]
    model = make_model(nodes, numbers, inputs={"x": [1, 8]}, outputs={"y": [8]})
    read = round_trip(model)
    assert set(read.tensors) == {"w", "v"}
    assert read.model_info["parameter_type"] == {"w": "fc.weight", "v": "fc.weight"}
    expected = np.ones((1, 8), np.float32) @ W @ W @ (2 * W)
    np.testing.assert_allclose(run(tmp_path / "target.onnx", feeds())[0], expected[0], rtol=1e-5)


def matmul_of(left, right, output):
    return helper.make_node("MatMul", [left, right], [output])


def test_constants_of_functions_are_coded_and_weights_are_followed_into_them(make_model, round_trip, run, tmp_path):
    functions = [
        helper.make_function(
            "com.example",
            name,
            ["a", "weight"],
            ["b"],
            [constant("k"), matmul_of("a", "weight", "c"), matmul_of("c", "k", "b")],
            [helper.make_opsetid("", 17)],
        )
        for name in ("Twice", "Again")
    ]
    nodes = [
        helper.make_node("Twice", ["x", "w"], ["h"], domain="com.example"),
        helper.make_node("Again", ["h", "w"], ["y"], domain="com.example"),
    ]
    model = make_model(nodes, [tensor()], inputs={"x": [1, 8]}, outputs={"y": [1, 8]}, functions=functions)
    del model.opset_import[-1]
    read = round_trip(model)
    assert list(read.tensors) == ["w", "com.example:Twice/k", "com.example:Again/k"]
    assert set(read.model_info["parameter_type"].values()) == {"fc.weight"}
    expected = np.ones((1, 8), np.float32) @ W @ W @ W @ W
    np.testing.assert_allclose(run(tmp_path / "target.onnx", feeds())[0], expected, rtol=1e-5)


def test_sparse_values_are_coded_and_their_indices_stay(make_model, round_trip):
    sparse = helper.make_sparse_tensor(
        tensor("s", np.arange(1, 301, dtype=np.float32)),
        numpy_helper.from_array(np.arange(0, 600, 2, dtype=np.int64), "s_indices"),
        [1000],
    )
    attribute = helper.make_sparse_tensor(
        tensor("", np.arange(1, 21, dtype=np.float32)),
        numpy_helper.from_array(np.arange(20, dtype=np.int64), ""),
        [1000],
    )
    nodes = [
        helper.make_node("Constant", [], ["t"], sparse_value=attribute),
        helper.make_node("Add", ["s", "t"], ["y"]),
    ]
    read = round_trip(make_model(nodes, outputs={"y": [1000]}, sparse_initializer=[sparse]))
    assert {name: array.shape for name, array in read.tensors.items()} == {"s": (300,), "t": (20,)}


def test_a_weight_with_several_users_is_coded_once(make_model, round_trip):
    nodes = [matmul_of("x", "w", "h"), matmul_of("h", "w", "y")]
    read = round_trip(make_model(nodes, [tensor()], inputs={"x": [1, 8]}, outputs={"y": [1, 8]}))
    assert list(read.tensors) == ["w"]
    assert read.model_info == {"parameter_type": {"w": "fc.weight"}, "block_identifier": {}}


def test_old_models_that_list_initializers_as_inputs_keep_doing_so(make_model, round_trip):
    inputs = {"x": [1, 8], "w": [8, 8]}
    model = make_model([matmul("w", "y")], [tensor()], inputs=inputs, outputs={"y": [1, 8]}, opset=8, ir_version=3)
    read = round_trip(model)
    assert list(read.tensors) == ["w"]
    assert read.model_info["parameter_type"]["w"] == "fc.weight"


def test_training_information_is_kept_unchanged(make_model, adapter, tmp_path):
    model = make_model([matmul("w", "y")], [tensor()], inputs={"x": [1, 8]}, outputs={"y": [1, 8]})
    training = model.training_info.add()
    training.initialization.CopyFrom(branch("start", [constant("k")], "k", [tensor("m")]))
    onnx.save(model, tmp_path / "m.onnx")
    read = adapter.read(tmp_path / "m.onnx")
    adapter.write(read.tensors, read.topology, tmp_path / "out.onnx")
    assert list(read.tensors) == ["w"]
    assert onnx.load(tmp_path / "out.onnx") == model


@pytest.mark.parametrize("size", [20, 2000])
def test_names_descriptions_and_properties_are_kept(make_model, round_trip, size):
    weight = tensor("w", np.ones(size, np.float32))
    weight.doc_string = "the weights"
    weight.metadata_props.add(key="nnr.topology_elem_id", value="somebody else's")
    model = make_model([helper.make_node("Identity", ["w"], ["y"])], [weight], outputs={"y": [size]})
    model.metadata_props.add(key="author", value="test")
    model.producer_name = "test"
    assert list(round_trip(model).tensors) == ["w"]


@pytest.mark.parametrize("name", ["ä/ö ü", "../w", "x" * 5000, "a\0b"])
def test_strange_names_become_valid_identifiers(make_model, round_trip, name):
    model = make_model([helper.make_node("Identity", [name], ["y"])], [tensor(name)], outputs={"y": [8, 8]})
    (identifier,) = round_trip(model).tensors
    assert "\0" not in identifier
    assert len(identifier.encode()) <= 4096


def external(model, path, **options):
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0, **options)


@pytest.mark.parametrize("together", [True, False])
def test_external_data_are_read_with_offset_and_length(make_model, round_trip, tmp_path, together):
    arrays = {"a": W, "b": 2 * W, "flags": np.ones(300, np.bool_), "small": np.ones(3, np.float32)}
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    model = make_model(nodes, [tensor(n, v) for n, v in arrays.items()], outputs={"y": [8, 8]})
    external(model, tmp_path / "m.onnx", all_tensors_to_one_file=together)
    read = round_trip(tmp_path / "m.onnx")
    assert list(read.tensors) == ["a", "b"]
    np.testing.assert_array_equal(read.tensors["b"], 2 * W, strict=True)


def test_external_data_without_offset_and_length_are_the_whole_file(make_model, round_trip, tmp_path):
    model = make_model([helper.make_node("Identity", ["w"], ["y"])], [tensor()], outputs={"y": [8, 8]})
    external(model, tmp_path / "m.onnx", location="sub-data")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    del model.graph.initializer[0].external_data[1:]
    (tmp_path / "sub-data").write_bytes(W.tobytes())
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(round_trip(tmp_path / "m.onnx").tensors["w"], W, strict=True)


def test_tensors_are_fetched_only_when_they_are_asked_for(make_model, adapter, tmp_path):
    model = make_model([helper.make_node("Identity", ["w"], ["y"])], [tensor()], outputs={"y": [8, 8]})
    external(model, tmp_path / "m.onnx", location="m.data")
    read = adapter.read(tmp_path / "m.onnx")
    with (tmp_path / "m.data").open("r+b") as stream:
        stream.write((3 * W).tobytes())
    np.testing.assert_array_equal(read.tensors["w"], 3 * W)
