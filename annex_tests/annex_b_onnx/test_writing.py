from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nnc_adapters.api import write_into
from nnc_adapters.onnx import OnnxAdapter
from nnc_adapters.shared import files
from nnc_core.errors import ModelError
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

SHAPES = {"inputs": {"x": [1, 40]}, "outputs": {"y": [1, 40]}}


@pytest.fixture
def model(make_model, random_weights):
    then, otherwise = (
        helper.make_graph(
            [
                helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(random_weights(40, 40), "")),
                helper.make_node("MatMul", ["h", "k"], ["b"]),
            ],
            name,
            [],
            [helper.make_tensor_value_info("b", 1, [1, 40])],
        )
        for name in ("then", "otherwise")
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "")),
        helper.make_node("MatMul", ["x", "w"], ["g"]),
        helper.make_node("Add", ["g", "b16"], ["h"]),
        helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=otherwise),
    ]
    weights = [numpy_helper.from_array(random_weights(40, 40), "w"), numpy_helper.from_array(random_weights(40), "b16")]
    return make_model(nodes, weights, **SHAPES)


@pytest.fixture
def base(model, tmp_path):
    onnx.save(model, tmp_path / "base.onnx")
    return tmp_path / "base.onnx"


@pytest.fixture
def read(adapter, base):
    return adapter.read(base)


def test_a_model_beyond_the_limit_is_written_with_a_data_file(base, read, tmp_path, run):
    target = tmp_path / "big.onnx"
    OnnxAdapter(single_file_bytes=base.stat().st_size - 1).write(read.tensors, read.topology, target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.onnx", "big.onnx", "big.onnx.data"]
    onnx.checker.check_model(str(target))
    assert target.stat().st_size < 2000
    shallow = onnx.load(target, load_external_data=False)
    for weight in shallow.graph.initializer:
        entries = {e.key: e.value for e in weight.external_data}
        assert entries["location"] == "big.onnx.data"
        assert int(entries["offset"]) % 4096 == 0
        assert not weight.metadata_props
    feeds = {"x": np.ones((1, 40), np.float32)}
    np.testing.assert_array_equal(run(target, feeds)[0], run(base, feeds)[0])


def test_a_model_with_a_data_file_is_read_and_written_like_any_other(round_trip, base, read, tmp_path):
    assert list(round_trip(base, writer=OnnxAdapter(single_file_bytes=0)).tensors) == list(read.tensors)
    again = OnnxAdapter().read(tmp_path / "target.onnx")
    assert again.topology == read.topology
    assert again.model_info == read.model_info


def test_a_model_at_the_limit_is_one_file(adapter, base, read, tmp_path):
    OnnxAdapter(single_file_bytes=base.stat().st_size).write(read.tensors, read.topology, tmp_path / "out.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.onnx", "out.onnx"]


def test_tensors_are_fetched_one_by_one_and_once(read, adapter, tmp_path):
    fetched = []

    class Watched(dict):
        def __getitem__(self, name):
            fetched.append(name)
            return read.tensors[name]

    adapter.write(Watched.fromkeys(read.tensors), read.topology, tmp_path / "out.onnx")
    assert sorted(fetched) == sorted(read.tensors)


def test_an_existing_file_needs_force(adapter, base, read):
    before = base.read_bytes()
    with pytest.raises(FileExistsError, match=r"base\.onnx"):
        adapter.write(read.tensors, read.topology, base)
    assert base.read_bytes() == before
    adapter.write({name: 2 * array for name, array in read.tensors.items()}, read.topology, base, force=True)
    assert base.read_bytes() != before


def test_an_existing_data_file_needs_force_as_well(read, tmp_path):
    (tmp_path / "out.onnx.data").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"out\.onnx\.data"):
        OnnxAdapter(single_file_bytes=0).write(read.tensors, read.topology, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").read_bytes() == b"mine"
    assert not (tmp_path / "out.onnx").exists()


def test_a_replaced_model_never_sees_the_data_of_the_new_one(read, tmp_path, run, monkeypatch):
    adapter, target = OnnxAdapter(single_file_bytes=0), tmp_path / "out.onnx"
    adapter.write(read.tensors, read.topology, target)
    half = {name: array / 2 for name, array in read.tensors.items()}
    feeds = {"x": np.ones((1, 40), np.float32)}
    seen = [run(target, feeds)[0]]
    move = files._move

    def watched(source, place, *, force):
        move(source, place, force=force)
        seen.append(run(target, feeds)[0])

    monkeypatch.setattr(files, "_move", watched)
    for tensors, name in ((half, "out.onnx.2.data"), (read.tensors, "out.onnx.data")):
        adapter.write(tensors, read.topology, target, force=True)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["base.onnx", "out.onnx", name]
    before, after = seen[0], seen[2]
    assert not np.array_equal(before, after)
    for result, expected in zip(seen, (before, before, after, after, before), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_a_model_can_be_written_over_itself(adapter, base, model):
    adapter.write(adapter.read(base).tensors, adapter.read(base).topology, base, force=True)
    assert onnx.load(base) == model


def test_a_model_with_a_data_file_can_be_written_over_itself(read, base, model, tmp_path):
    big = OnnxAdapter(single_file_bytes=0)
    big.write(read.tensors, read.topology, tmp_path / "big.onnx")
    own = big.read(tmp_path / "big.onnx")
    big.write(own.tensors, own.topology, tmp_path / "big.onnx", force=True)
    for name, array in big.read(tmp_path / "big.onnx").tensors.items():
        np.testing.assert_array_equal(array, read.tensors[name])


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_nothing_is_left_where_a_tensor_fails(read, tmp_path, limit):
    tensors = {**read.tensors, "b16": np.ones(41, np.float32)}
    with pytest.raises(ModelError, match=r"'b16'.*\(41,\).*\(40,\)"):
        OnnxAdapter(single_file_bytes=limit).write(tensors, read.topology, tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["base.onnx"]


def test_a_missing_tensor_is_named(adapter, read, tmp_path):
    tensors = {name: array for name, array in read.tensors.items() if name != "w"}
    with pytest.raises(ModelError, match="'w'"):
        adapter.write(tensors, read.topology, tmp_path / "out.onnx")


def test_a_tensor_without_place_is_named(adapter, read, tmp_path):
    with pytest.raises(ModelError, match="'stranger'"):
        adapter.write({**read.tensors, "stranger": np.ones(16)}, read.topology, tmp_path / "out.onnx")


def test_a_topology_of_another_format_is_refused(adapter, read, tmp_path):
    other = Topology(TopologyStorageFormat.NNR_TPL_NNEF, b"version 1.0;")
    with pytest.raises(ModelError, match="the topology is of storage format"):
        adapter.write(read.tensors, other, tmp_path / "out.onnx")


def test_weights_go_into_an_existing_model(adapter, base, read, model, tmp_path):
    new = {"w": 2 * read.tensors["w"], "if.then_branch/k": 3 * read.tensors["if.then_branch/k"]}
    write_into(adapter, new, base, tmp_path / "out.onnx")
    written = adapter.read(tmp_path / "out.onnx")
    assert written.topology == read.topology
    for name, array in written.tensors.items():
        np.testing.assert_array_equal(array, new.get(name, read.tensors[name]))


def test_the_existing_model_decides_the_data_type(adapter, make_model, tmp_path, random_weights):
    half = numpy_helper.from_array(np.ones((8, 8), np.float16), "w")
    onnx.save(make_model([helper.make_node("Identity", ["w"], ["y"])], [half]), tmp_path / "half.onnx")
    decoded = random_weights(8, 8)
    write_into(adapter, {"w": decoded}, tmp_path / "half.onnx", tmp_path / "out.onnx")
    written = adapter.read(tmp_path / "out.onnx").tensors["w"]
    np.testing.assert_array_equal(written, decoded.astype(np.float16), strict=True)


def test_tensors_that_the_existing_model_would_keep_exact_can_be_replaced(adapter, make_model, tmp_path):
    tiny = [helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2]), helper.make_tensor("v", 1, [2], [1, 2])]
    onnx.save(make_model([helper.make_node("Add", ["w", "v"], ["y"])], tiny), tmp_path / "m.onnx")
    write_into(adapter, {"w": np.array([5, 6], np.float32)}, tmp_path / "m.onnx", tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx").graph.initializer
    assert [numpy_helper.to_array(t).tolist() for t in written] == [[5, 6], [1, 2]]


def test_a_tensor_that_the_existing_model_lacks_is_named(adapter, base, tmp_path):
    with pytest.raises(ModelError, match="'stranger'"):
        write_into(adapter, {"stranger": np.ones(16, np.float32)}, base, tmp_path / "out.onnx")


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_the_file_has_the_mode_of_any_new_file(adapter, read, tmp_path):
    adapter.write(read.tensors, read.topology, tmp_path / "out.onnx")
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
