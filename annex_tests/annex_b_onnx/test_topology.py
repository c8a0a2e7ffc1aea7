"""The topology is an ONNX model whose weights are references to a file that is not there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nnc_adapters.base import Options
from nnc_adapters.onnx import OnnxAdapter
from nnc_adapters.shared import selection
from nnc_core.errors import LimitError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.tables.code_points import TopologyStorageFormat

NODES = [
    helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones((8, 8), np.float32), "value")),
    helper.make_node("MatMul", ["x", "w"], ["h"]),
    helper.make_node("MatMul", ["h", "k"], ["y"]),
]
SHAPES = {"inputs": {"x": [1, 8]}, "outputs": {"y": [1, 8]}}


@pytest.fixture
def read(adapter, make_model, tmp_path):
    weight = numpy_helper.from_array(np.full((8, 8), 7, np.float32), "w")
    onnx.save(make_model(NODES, [weight], **SHAPES), tmp_path / "m.onnx")
    return adapter.read(tmp_path / "m.onnx")


def test_the_topology_has_no_coded_values(read):
    assert read.topology.storage_format == TopologyStorageFormat.NNR_TPL_ONNX
    assert np.float32(7).tobytes() * 2 not in read.topology.data
    model = onnx.ModelProto.FromString(read.topology.data)
    stubs = [model.graph.initializer[0], model.graph.node[0].attribute[0].t]
    for stub in stubs:
        assert (stub.data_location, stub.data_type, list(stub.dims)) == (TensorProto.EXTERNAL, 1, [8, 8])
        assert not stub.raw_data
        assert {e.key: e.value for e in stub.external_data} == {"location": "nnr"}


def test_only_a_stub_that_is_called_otherwise_carries_its_identifier(read):
    model = onnx.ModelProto.FromString(read.topology.data)
    assert not model.graph.initializer[0].metadata_props
    properties = model.graph.node[0].attribute[0].t.metadata_props
    assert [(p.key, p.value) for p in properties] == [("nnr.topology_elem_id", "k")]


def test_reading_twice_gives_the_same_bytes(read, adapter, tmp_path):
    assert adapter.read(tmp_path / "m.onnx").topology == read.topology


def test_the_package_loads_the_topology_and_infers_its_shapes(read, tmp_path):
    (tmp_path / "topology.onnx").write_bytes(read.topology.data)
    model = onnx.load(tmp_path / "topology.onnx", load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert {value.name for value in inferred.graph.value_info} == {"h", "k"}


def test_onnxruntime_runs_the_topology_with_weights_from_memory(adapter, make_model, tmp_path, run, random_weights):
    weight = random_weights(8, 8)
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [numpy_helper.from_array(weight, "w")], **SHAPES
    )
    onnx.save(model, tmp_path / "m.onnx")
    read = adapter.read(tmp_path / "m.onnx")
    feeds = {"x": random_weights(1, 8)}
    outputs = run(read.topology.data, feeds, {name: np.array(array) for name, array in read.tensors.items()})
    np.testing.assert_array_equal(outputs[0], run(tmp_path / "m.onnx", feeds)[0])


def test_exact_external_data_move_into_the_topology(adapter, make_model, tmp_path):
    flags = numpy_helper.from_array(np.ones(3000, np.bool_), "flags")
    model = make_model([helper.make_node("Identity", ["flags"], ["y"])], [flags])
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    topology = onnx.ModelProto.FromString(adapter.read(tmp_path / "m.onnx").topology.data)
    assert topology.graph.initializer[0].raw_data == bytes([1]) * 3000
    assert topology.graph.initializer[0].data_location == TensorProto.DEFAULT


def test_exact_data_of_more_than_two_gibibytes_are_refused_before_they_are_read(adapter, make_model, tmp_path):
    flags = TensorProto(name="flags", data_type=TensorProto.BOOL, dims=[1 << 31], data_location=TensorProto.EXTERNAL)
    flags.external_data.add(key="location", value="m.data")
    model = make_model([helper.make_node("Identity", ["flags"], ["y"])], [flags])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with (tmp_path / "m.data").open("wb") as stream:
        stream.truncate(1 << 31)
    with pytest.raises(UnsupportedError, match="2 GiB"):
        adapter.read(tmp_path / "m.onnx")


def test_graphs_nested_beyond_the_limit_are_refused(make_model, tmp_path):
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "g", [], [])
    for _ in range(3):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["t"], then_branch=graph)], "g", [], [])
    onnx.save(make_model([helper.make_node("If", ["c"], ["t"], then_branch=graph)]), tmp_path / "m.onnx")
    assert not OnnxAdapter().read(tmp_path / "m.onnx", Options(Limits(nesting=4))).tensors
    with pytest.raises(LimitError, match="nesting"):
        OnnxAdapter().read(tmp_path / "m.onnx", Options(Limits(nesting=3)))


@pytest.mark.parametrize("operator", ["Resize", "Clip", "Pad", "Pow", "Range", "Greater", "LSTM"])
def test_arguments_of_operations_stay_exact(adapter, make_model, tmp_path, operator):
    slot = 5 if operator == "LSTM" else 1
    inputs = ["x", *[""] * (slot - 1), "moved"]
    nodes = [
        helper.make_node("Unsqueeze", ["w", "axes"], ["wide"]),
        helper.make_node("Concat", ["wide", "wide"], ["moved"], axis=0),
        helper.make_node(operator, inputs, ["y"]),
    ]
    weights = [numpy_helper.from_array(np.ones(64, np.float32), "w")]
    onnx.save(make_model(nodes, weights), tmp_path / "m.onnx")
    assert not adapter.read(tmp_path / "m.onnx").tensors


def test_a_tensor_that_is_a_weight_and_an_argument_stays_exact(adapter, make_model, tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Pow", ["h", "w"], ["y"])]
    onnx.save(make_model(nodes, [numpy_helper.from_array(np.ones((8, 8), np.float32), "w")]), tmp_path / "m.onnx")
    assert not adapter.read(tmp_path / "m.onnx").tensors


@pytest.mark.parametrize("operator", ["Add", "Mul", "PRelu", "Gather", "Resize", "Custom"])
def test_tensors_that_are_computed_with_are_coded(adapter, make_model, tmp_path, operator):
    weights = [numpy_helper.from_array(np.ones((8, 8), np.float32), "w")]
    inputs = ["w", "x"] if operator in ("Gather", "Resize") else ["x", "w"]
    onnx.save(make_model([helper.make_node(operator, inputs, ["y"])], weights), tmp_path / "m.onnx")
    assert list(adapter.read(tmp_path / "m.onnx").tensors) == ["w"]


def test_the_limits_of_size_are_where_they_are_documented():
    assert (selection.SMALLEST_FLOATS, selection.SMALLEST_INTEGERS) == (16, 256)
