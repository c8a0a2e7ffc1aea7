"""Hostile ONNX files and topologies: refused with an error that says why, and nothing is read or left behind."""

from __future__ import annotations

import os
import random

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nnc_adapters import convert
from nnc_adapters.api import write_into
from nnc_adapters.onnx import OnnxAdapter
from nnc_core.errors import LimitError, ModelError, NncError
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

WEIGHT = np.arange(4096, dtype=np.float32)
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def model_of(*tensors, nodes=None):
    nodes = nodes or [helper.make_node("Identity", ["w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", 1, [None])], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def external(entries, dims=(4096,), data_type=TensorProto.FLOAT):
    tensor = TensorProto(name="w", data_type=data_type, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.fixture
def adapter():
    return OnnxAdapter()


@pytest.fixture
def read(adapter, tmp_path):
    """Reads a model from a folder inside the test's own, where data.bin is and secret.bin beside the folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "data.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())

    def call(model):
        data = model if isinstance(model, bytes) else model.SerializeToString()
        (folder / "m.onnx").write_bytes(data)
        return adapter.read(folder / "m.onnx")

    return call


def test_honest_external_data_are_read(read):
    np.testing.assert_array_equal(read(model_of(external({"location": "data.bin"}))).tensors["w"], WEIGHT)


@pytest.mark.parametrize(
    "location",
    [
        "",
        ".",
        "..",
        "../secret.bin",
        "sub/../../secret.bin",
        "..\\secret.bin",
        "/etc/passwd",
        "\\\\server\\share",
        "C:secret.bin",
        "C:\\secret.bin",
        "absent.bin",
        "data.bin\0",
        "nnr",
        "x" * 5000,
    ],
)
def test_external_data_outside_the_folder_are_refused(read, location):
    with pytest.raises(ModelError, match=r"'w'.*external data"):
        read(model_of(external({"location": location})))


def test_an_absolute_location_is_refused_even_inside_the_folder(read, tmp_path):
    with pytest.raises(ModelError, match="relative"):
        read(model_of(external({"location": str(tmp_path / "model" / "data.bin")})))


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need privileges elsewhere")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_that_lead_out_of_the_folder_are_refused(read, tmp_path, kind):
    (tmp_path / "model" / "link").symlink_to(tmp_path / "secret.bin" if kind == "file" else tmp_path)
    location = "link" if kind == "file" else "link/secret.bin"
    with pytest.raises(ModelError, match="leads out"):
        read(model_of(external({"location": location})))


@pytest.mark.skipif(os.name != "posix", reason="there are no named pipes elsewhere")
def test_what_is_not_a_file_is_refused_without_waiting_for_it(read, tmp_path):
    os.mkfifo(tmp_path / "model" / "pipe")
    with pytest.raises(ModelError, match="no file"):
        read(model_of(external({"location": "pipe"})))


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "1"},
        {"offset": "-1"},
        {"offset": "99999999999999999999"},
        {"offset": "9" * 5000},
        {"offset": "one"},
        {"offset": "1_0"},
        {"offset": "٣"},
        {"length": "16383"},
        {"length": "16385"},
        {"length": "-16384"},
        {"offset": "4", "length": "16384"},
        {"offset": "20000", "length": "0"},
    ],
)
def test_offsets_and_lengths_outside_the_file_are_refused(read, entries):
    with pytest.raises(ModelError, match=r"'w'.*external data"):
        read(model_of(external({"location": "data.bin", **entries})))


@pytest.mark.parametrize("dims", [(4097,), (1 << 40,), (1 << 62, 1 << 62), (0,), (-4096,), (-64, -64), (1,) * 65])
@pytest.mark.parametrize("place", ["raw", "typed", "external"])
def test_dimensions_that_lie_are_refused(read, dims, place):
    if place == "external":
        tensor = external({"location": "data.bin", "length": "16384"})
    elif place == "raw":
        tensor = numpy_helper.from_array(WEIGHT, "w")
    else:
        tensor = helper.make_tensor("w", TensorProto.FLOAT, [4096], WEIGHT)
    del tensor.dims[:]
    tensor.dims.extend(dims)
    with pytest.raises(ModelError, match="'w'"):
        read(model_of(tensor))


@pytest.mark.parametrize("kind", [TensorProto.BOOL, TensorProto.FLOAT8E5M2, TensorProto.INT4, TensorProto.UINT64])
def test_dimensions_of_tensors_that_stay_exact_are_checked_as_well(read, kind):
    with pytest.raises(ModelError, match="'w'"):
        read(model_of(TensorProto(name="w", data_type=kind, dims=[4095], raw_data=bytes(3))))


def test_values_in_a_field_of_another_type_are_refused(read):
    with pytest.raises(ModelError, match="float_data"):
        read(model_of(TensorProto(name="w", data_type=TensorProto.DOUBLE, dims=[64], float_data=[1.0] * 64)))


def test_values_that_are_stored_twice_are_refused(read):
    tensor = TensorProto(name="w", data_type=1, dims=[64], float_data=[1.0] * 64, raw_data=bytes(256))
    with pytest.raises(ModelError, match="twice"):
        read(model_of(tensor))


def test_a_negative_dimension_without_data_is_refused(read):
    with pytest.raises(ModelError, match="negative"):
        read(model_of(TensorProto(name="w", data_type=1, dims=[-1, 0])))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\x3a",
        b"not a model",
        b"\x08\x0a",
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        b"\x3b\x3c",
        bytes(5000),
        b"\x3a\x88\x27" + b"\xff" * 5000,
    ],
)
def test_what_is_not_a_model_is_refused(read, data):
    with pytest.raises(ModelError, match=r"m\.onnx: not an ONNX model"):
        read(data)


@pytest.mark.parametrize("text", [b"Identity", b"the_output", b"the_weight", b"com.example", b"doc"])
def test_text_that_is_not_utf_8_is_refused(read, write, text):
    tensor = numpy_helper.from_array(WEIGHT, "the_weight")
    nodes = [helper.make_node("Identity", ["the_weight"], ["the_output"], domain="com.example", doc_string="doc")]
    data = model_of(tensor, nodes=nodes).SerializeToString().replace(text, b"\xff" * len(text))
    with pytest.raises(ModelError, match="not UTF-8"):
        read(data)
    with pytest.raises(ModelError, match="not UTF-8"):
        write(data, {})


def test_messages_nested_without_end_are_refused(read):
    data = bytes(2000)
    for _ in range(200):
        # graph { node { attribute { g: graph } } }, outermost last
        for number in (6, 5, 1):
            size = len(data)
            data = bytes([number << 3 | 2, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + data
    size = len(data)
    data = bytes([7 << 3 | 2, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + data
    with pytest.raises((ModelError, LimitError)):
        read(data)


def test_a_function_that_calls_itself_is_read(read):
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="own")], [helper.make_opsetid("own", 1)]
    )
    model = model_of(numpy_helper.from_array(WEIGHT, "w"), nodes=[helper.make_node("F", ["w"], ["y"], domain="own")])
    model.functions.append(function)
    assert list(read(model).tensors) == ["w"]


def test_values_that_depend_on_each_other_are_read(read):
    nodes = [helper.make_node("Concat", ["w", "b"], ["a"], axis=0), helper.make_node("Identity", ["a"], ["b"])]
    assert list(read(model_of(numpy_helper.from_array(WEIGHT, "w"), nodes=nodes)).tensors) == ["w"]


@pytest.mark.parametrize("outputs", [[], ["c"]])
def test_operations_that_make_nothing_are_read(read, outputs):
    nodes = [helper.make_node("Conv", ["x", "w"], outputs), helper.make_node("Add", ["c", "b"], [])]
    tensors = numpy_helper.from_array(WEIGHT.reshape(64, 1, 8, 8), "w"), numpy_helper.from_array(WEIGHT[:64], "b")
    assert list(read(model_of(*tensors, nodes=nodes)).tensors) == ["w", "b"]


def test_operations_that_make_nothing_are_matched(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], []), helper.make_node("MatMul", ["x", "v"], ["y"])]
    tensors = [numpy_helper.from_array(WEIGHT.reshape(64, 64), name) for name in "wv"]
    onnx.save(model_of(*tensors, nodes=nodes), tmp_path / "m.onnx")
    assert convert.plan(tmp_path / "m.onnx", tmp_path / "m.onnx")["matched"] == {"v": "v", "w": "w"}


def test_a_number_that_is_added_can_be_replaced(adapter, tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Add", ["c", "b"], ["y"])]
    tensors = numpy_helper.from_array(WEIGHT.reshape(64, 1, 8, 8), "w"), numpy_helper.from_array(WEIGHT[3], "b")
    onnx.save(model_of(*tensors, nodes=nodes), tmp_path / "m.onnx")
    write_into(adapter, {"b": np.float32(5)}, tmp_path / "m.onnx", tmp_path / "out.onnx")
    assert numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.initializer[1]) == 5


def test_a_data_file_that_becomes_shorter_is_noticed(read, tmp_path):
    model = read(model_of(external({"location": "data.bin"})))
    (tmp_path / "model" / "data.bin").write_bytes(b"short")
    with pytest.raises(ModelError, match="16384 bytes"):
        model.tensors["w"]


@QUICK
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 8))
def test_a_damaged_file_is_read_or_refused_but_nothing_else_happens(adapter, tmp_path, seed, changes):
    weight = numpy_helper.from_array(WEIGHT[:300], "w")
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(WEIGHT[:20], "k"))
    body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("k", 1, [20])])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    data = bytearray(model_of(weight, nodes=[choice]).SerializeToString())
    structure = [i for i in range(len(data)) if i < 40 or i > len(data) - 600]
    rng = random.Random(seed)
    for _ in range(changes):
        data[rng.choice(structure)] = rng.randrange(256)
    (tmp_path / "m.onnx").write_bytes(data)
    try:
        model = adapter.read(tmp_path / "m.onnx")
        adapter.write(dict(model.tensors), model.topology, tmp_path / "out.onnx", force=True)
    except NncError:
        pass
    assert {p.name for p in tmp_path.iterdir()} <= {"m.onnx", "out.onnx"}


@pytest.fixture
def write(adapter, tmp_path):
    """Writes a model from a hostile topology."""

    def call(topology, tensors):
        data = topology if isinstance(topology, bytes) else topology.SerializeToString()
        adapter.write(tensors, Topology(TopologyStorageFormat.NNR_TPL_ONNX, data), tmp_path / "out.onnx")
        return onnx.load(tmp_path / "out.onnx", load_external_data=False)

    return call


STUB = {"location": "nnr"}


def test_an_honest_topology_is_written(write):
    written = write(model_of(external(STUB)), {"w": WEIGHT})
    np.testing.assert_array_equal(numpy_helper.to_array(written.graph.initializer[0]), WEIGHT)


@pytest.mark.parametrize(
    "tensor",
    [
        external({"location": "/etc/passwd"}),
        external({"location": "../secret.bin"}),
        external({}),
        external({"location": "nnr "}),
        external({**STUB, "offset": "0"}, dims=(-1,)),
        external(STUB, dims=(4095,)),
        external(STUB, dims=(1 << 62, 1 << 62)),
        external(STUB, dims=(1,) * 65),
        external(STUB, data_type=TensorProto.STRING),
        external(STUB, data_type=TensorProto.UNDEFINED),
        external(STUB, data_type=99),
        external(STUB, data_type=TensorProto.INT8),
    ],
)
@pytest.mark.parametrize("place", ["initializer", "sparse", "constant", "attribute", "function", "training"])
def test_a_topology_with_a_hostile_reference_is_refused_wherever_it_is(write, tmp_path, tensor, place):
    model = model_of()
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "sparse":
        model.graph.sparse_initializer.add(indices=tensor)
    elif place == "constant":
        model.graph.node.append(helper.make_node("Constant", [], ["w"], value=tensor))
    elif place == "attribute":
        model.graph.node.append(helper.make_node("Custom", [], ["w"], tables=[tensor]))
    elif place == "function":
        model.functions.add(name="f").attribute_proto.append(helper.make_attribute("table", tensor))
    else:
        model.training_info.add().algorithm.initializer.append(tensor)
    with pytest.raises(ModelError, match="'w'"):
        write(model, {"w": WEIGHT})
    assert not list(tmp_path.iterdir())


def test_a_location_that_is_given_twice_is_refused(write):
    tensor = external(STUB)
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(ModelError, match="refers to a file"):
        write(model_of(tensor), {"w": WEIGHT})


def test_many_places_for_one_tensor_take_no_more_room_than_one(write, tmp_path):
    write(model_of(*[external(STUB)] * 1000), {"w": WEIGHT})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * WEIGHT.nbytes + 1000 * 200


@pytest.mark.parametrize("other", [{"dims": (8, 2)}, {"data_type": TensorProto.INT32}])
def test_two_places_for_one_tensor_that_differ_are_refused(write, other):
    with pytest.raises(ModelError, match="two different tensors"):
        write(model_of(external(STUB), external(STUB, **other)), {"w": WEIGHT})


def test_a_message_in_several_pieces_is_merged_before_it_is_judged(write):
    honest = model_of().SerializeToString()
    location = model_of(external(STUB))
    location.ClearField("opset_import")
    assert write(honest + location.SerializeToString(), {"w": WEIGHT}).graph.initializer[0].raw_data
    hidden = TensorProto(name="w", data_type=1, dims=[4096], raw_data=b"")
    split = hidden.SerializeToString() + b"\x70\x81\x00"  # data_location = 1 in two bytes
    graph = b"\x2a" + bytes([len(split)]) + split
    with pytest.raises(ModelError, match="refers to a file"):
        write(honest + b"\x3a" + bytes([len(graph)]) + graph, {"w": WEIGHT})


@pytest.mark.parametrize("data", [b"", b"\0", b"garbage", bytes(1000), b"\x08\x0a"])
def test_a_topology_that_is_not_a_model_is_refused(write, data):
    with pytest.raises(ModelError, match="not an ONNX model"):
        write(data, {})


@QUICK
@given(data=st.binary(max_size=300))
def test_sniffing_never_raises(adapter, tmp_path, data):
    (tmp_path / "m").write_bytes(data)
    assert adapter.sniff(tmp_path / "m") in (True, False)
