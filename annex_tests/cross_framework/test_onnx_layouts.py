"""Between ONNX models that store the same weights in different layouts: `nnc convert` as a program and a function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import Result
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import nnc_adapters
import nnc_core
from annex_tests.support.program import nnc
from nnc_adapters.convert import convert, plan
from nnc_core import ModelError

Array = NDArray[Any]
CHANNELS, CLASSES = 4, 10


def model(path: Path, seed: int, names: str, *, gemm: bool, width: int = 6) -> Path:
    """Convolution, batch normalization, mean over the image, two matrices: by Gemm with rows of outputs, or MatMul."""
    w, b, g, s, m, v, d, e, f, h = (names.format(k) for k in range(10))
    generator = np.random.default_rng(seed)
    shapes = {w: (CHANNELS, 1, 3, 3), b: (CHANNELS,), g: (CHANNELS,), s: (CHANNELS,), m: (CHANNELS,), v: (CHANNELS,)}
    shapes |= {d: (width, CHANNELS), e: (width,), f: (CLASSES, width), h: (CLASSES,)}
    weights = {name: generator.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    if not gemm:
        weights.update({name: weights[name].T.copy() for name in (d, f)})
    nodes = [
        helper.make_node("Conv", ["x", w, b], ["c"]),
        helper.make_node("BatchNormalization", ["c", g, s, m, v], ["n"]),
        helper.make_node("GlobalAveragePool", ["n"], ["p"]),
        helper.make_node("Flatten", ["p"], ["q"]),
    ]
    if gemm:
        nodes.append(helper.make_node("Gemm", ["q", d, e], ["r"], transB=1))
        nodes.append(helper.make_node("Gemm", ["r", f, h], ["y"], transB=1))
    else:
        nodes.append(helper.make_node("MatMul", ["q", d], ["i"]))
        nodes.append(helper.make_node("Add", [e, "i"], ["r"]))
        nodes.append(helper.make_node("MatMul", ["r", f], ["j"]))
        nodes.append(helper.make_node("Add", ["j", h], ["y"]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, CLASSES])],
        # in no useful order, as exporters do
        [numpy_helper.from_array(weights[name], name) for name in sorted(weights, reverse=gemm)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def outputs(path: Path) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(3).standard_normal((2, 1, 8, 8)).astype(np.float32)
    result: Array = session.run(None, {"x": x})[0]
    return result


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return model(tmp_path / "ours.onnx", 1, "our.{}", gemm=True)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return model(tmp_path / "theirs.onnx", 2, "their/{}", gemm=False)


def converted(*arguments: str | Path) -> Result:
    return nnc("convert", *arguments)


def test_a_converted_model_computes_what_the_source_does(ours: Path, theirs: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    for source, into in ((ours, theirs), (theirs, ours)):
        report = convert(source, target, into=into, by="structure", force=True)
        assert (report.tensors, report.kept, report.unused) == (10, [], [])
        np.testing.assert_allclose(outputs(target), outputs(source), atol=1e-5)
        assert onnx.load(target).graph.node == onnx.load(into).graph.node


def test_the_template_is_not_touched_and_a_target_is_replaced_only_by_force(
    ours: Path, theirs: Path, tmp_path: Path
) -> None:
    before = theirs.read_bytes()
    convert(ours, tmp_path / "out.onnx", into=theirs, by="structure")
    assert theirs.read_bytes() == before
    with pytest.raises(FileExistsError, match="force"):
        convert(ours, tmp_path / "out.onnx", into=theirs, by="structure")
    convert(ours, theirs, into=theirs, by="structure", force=True)
    np.testing.assert_allclose(outputs(theirs), outputs(ours), atol=1e-5)


def test_weights_of_a_bitstream_are_the_decoded_ones_and_small_tensors_come_from_its_topology(
    ours: Path, theirs: Path, tmp_path: Path
) -> None:
    nnc_adapters.compress(ours, tmp_path / "ours.nnr")
    nnc_adapters.decompress(tmp_path / "ours.nnr", tmp_path / "decoded.onnx")
    convert(tmp_path / "ours.nnr", tmp_path / "out.onnx", into=theirs, by="structure")
    np.testing.assert_allclose(outputs(tmp_path / "out.onnx"), outputs(tmp_path / "decoded.onnx"), atol=1e-5)
    assert not np.array_equal(outputs(tmp_path / "out.onnx"), outputs(ours))


def test_a_bitstream_for_the_other_layout_is_written(ours: Path, theirs: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.nnr"
    convert(ours, target, into=theirs, by="structure")
    nnc_adapters.compress(theirs, tmp_path / "theirs.nnr")
    with nnc_core.open(target) as file, nnc_core.open(tmp_path / "theirs.nnr") as like:
        assert list(file) == list(like)  # what is small stays in the topology
    nnc_adapters.decompress(target, tmp_path / "back.onnx")
    np.testing.assert_allclose(outputs(tmp_path / "back.onnx"), outputs(ours), rtol=0.03)
    convert(ours, tmp_path / "again.nnr", into=tmp_path / "theirs.nnr", by="structure")
    assert (tmp_path / "again.nnr").read_bytes() == target.read_bytes()


def test_where_every_role_and_shape_occurs_once_nothing_need_be_said(ours: Path, theirs: Path, tmp_path: Path) -> None:
    assert converted(ours, tmp_path / "out.onnx", "--into", theirs).exit_code == 0
    np.testing.assert_allclose(outputs(tmp_path / "out.onnx"), outputs(ours), atol=1e-5)


def test_graphs_tell_biases_of_one_size_apart(tmp_path: Path) -> None:
    ours = model(tmp_path / "ours.onnx", 1, "our.{}", gemm=True, width=CHANNELS)
    theirs = model(tmp_path / "theirs.onnx", 2, "their/{}", gemm=False, width=CHANNELS)
    report = json.loads(converted(ours, tmp_path / "out.onnx", "--into", theirs, "--json").stdout)
    assert report["doubtful"] == []
    assert report["difference"] < 1e-6
    np.testing.assert_allclose(outputs(tmp_path / "out.onnx"), outputs(ours), atol=1e-5)


def test_a_printed_map_can_be_edited_and_used(ours: Path, theirs: Path, tmp_path: Path) -> None:
    printed = converted(ours, "--into", theirs, "--print-map")
    found = json.loads(printed.stdout)
    assert found == plan(ours, theirs)
    assert found["matched"] == {f"their/{k}": f"our.{k}" for k in range(10)}
    found["matched"]["their/9"] = None
    (tmp_path / "map.json").write_text(json.dumps(found))
    options = ("--into", theirs, "--map", tmp_path / "map.json", "--no-check")
    report = json.loads(converted(ours, tmp_path / "out.onnx", *options, "--json").stdout)
    assert (report["tensors"], report["kept"], report["unused"]) == (9, ["their/9"], ["our.9"])
    told = converted(ours, tmp_path / "out.onnx", *options, "-f")
    assert told.exit_code == 0
    assert "kept as they were: their/9\nnot used: our.9\n" in told.stderr


def test_a_map_may_say_a_part_and_the_rest_is_found(ours: Path, theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"their/6": {"from": "our.6", "transpose": [1, 0]}}))
    for by in ([], ["--by", "structure"]):
        told = converted(ours, tmp_path / "out.onnx", "--into", theirs, "--map", tmp_path / "map.json", "-f", *by)
        assert told.exit_code == 0, told.stderr
        np.testing.assert_allclose(outputs(tmp_path / "out.onnx"), outputs(ours), atol=1e-5)


def test_a_map_that_is_wrong_is_found_out_by_running_and_nothing_is_written(
    ours: Path, theirs: Path, tmp_path: Path
) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"their/3": "our.1", "their/1": "our.3"}))
    options = ("--into", theirs, "--map", tmp_path / "map.json")
    told = converted(ours, tmp_path / "out.onnx", *options)
    assert told.exit_code == 1
    assert "compute different things" in told.stderr
    assert not (tmp_path / "out.onnx").exists()
    assert converted(ours, tmp_path / "out.onnx", *options, "--no-check").exit_code == 0


def test_what_cannot_be_asked_for_is_a_usage_error(ours: Path, theirs: Path, tmp_path: Path) -> None:
    assert converted(ours, tmp_path / "out.onnx").exit_code == 2
    assert converted(ours, "--into", theirs).exit_code == 2
    for answer in ("no", "=no", "x=8,4,", "x=8,-4,4", "x=yes"):
        assert converted(ours, tmp_path / "o.onnx", "--into", theirs, "--flatten", answer).exit_code == 2


def test_an_answer_to_what_was_not_asked_is_refused(ours: Path, theirs: Path, tmp_path: Path) -> None:
    told = converted(ours, tmp_path / "out.onnx", "--into", theirs, "--flatten", "their/6=2,1,2")
    assert told.exit_code == 5
    assert "flatten has an answer for their/6, but the question is about: none" in told.stderr


def test_other_networks_are_refused_with_the_first_tensors_and_what_to_do(ours: Path, tmp_path: Path) -> None:
    wide = model(tmp_path / "wide.onnx", 2, "wide.{}", gemm=False, width=7)
    with pytest.raises(
        ModelError, match=r"3 tensors of the target find nothing \(wide\.6 \[4, 7\].*our\.6.*--print-map"
    ):
        convert(ours, tmp_path / "out.onnx", into=wide, by="structure")


def test_the_output_is_not_called_like_another_format(ours: Path, theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the suffix contradicts the format.*model of onnx \(\.onnx\)"):
        convert(ours, tmp_path / "out.keras", into=theirs)


def test_a_bitstream_without_topology_is_refused(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.nnr").write_bytes(nnc_core.encode({"w": np.ones((8, 8), np.float32)}))
    with pytest.raises(ModelError, match="no topology"):
        convert(tmp_path / "bare.nnr", tmp_path / "out.onnx", into=theirs)
