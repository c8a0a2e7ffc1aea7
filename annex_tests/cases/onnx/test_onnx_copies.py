"""Weights that a model has twice, or once more as the transpose, are coded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import nnc_adapters
import nnc_core
from annex_tests.support.onnx_models import model_of, node
from annex_tests.support.program import checked
from nnc_adapters.base import EVERYTHING, Options
from nnc_adapters.onnx import OnnxAdapter
from nnc_core import ModelError
from nnc_core.nnr_model import Topology


def floats(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


NODES = [
    node("Gather", ["table", "n"], ["e"]),
    node("MatMul", ["e", "same"], ["h"]),
    node("MatMul", ["h", "again"], ["k"]),
    node("MatMul", ["k", "turned"], ["y"]),
]


def doubled() -> dict[str, NDArray[Any]]:
    table, square = floats(1, 96, 40), floats(2, 40, 40)
    return {"table": table, "same": square, "again": square.copy(), "turned": np.ascontiguousarray(table.T)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(model_of(NODES, doubled()), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def restored(tmp_path: Path) -> Callable[[Path], ModelProto]:
    """Compress as ``m.nnr``, verify, restore with the command line: the model that comes back."""

    def call(source: Path) -> ModelProto:
        checked("compress", source, "-o", tmp_path / "m.nnr")
        checked("verify", source, tmp_path / "m.nnr")
        (tmp_path / "back").mkdir()
        checked("decompress", tmp_path / "m.nnr", "-o", tmp_path / "back/m.onnx")
        return onnx.load(tmp_path / "back/m.onnx")

    return call


def test_what_is_stored_twice_or_transposed_is_coded_once(path: Path, restored: Callable[[Path], ModelProto]) -> None:
    back = restored(path)
    bitstream = path.with_suffix(".nnr")
    assert list(nnc_core.decode(bitstream)) == ["table", "same"]
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in back.graph.initializer}
    np.testing.assert_array_equal(found["again"], found["same"])
    np.testing.assert_array_equal(found["turned"], found["table"].T)
    assert not any(tensor.metadata_props for tensor in back.graph.initializer)
    assert not list(path.parent.rglob("*.data"))
    loaded = nnc_adapters.load_tensors(bitstream)
    assert {name: array.shape for name, array in loaded.items()} == {n: a.shape for n, a in doubled().items()}


def test_lossless_a_model_with_copies_comes_back_as_it_was(path: Path) -> None:
    bitstream, back = path.with_suffix(".nnr"), path.with_name("back.onnx")
    nnc_adapters.compress(path, bitstream, parameters=nnc_core.CodingParameters(lossless=True))
    nnc_adapters.decompress(bitstream, back)
    assert onnx.load(back) == onnx.load(path)


def test_copies_in_a_file_of_external_data_come_back(tmp_path: Path, restored: Callable[[Path], ModelProto]) -> None:
    onnx.save(
        model_of(NODES, doubled()), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    back = restored(tmp_path / "m.onnx")
    assert {t.name: list(t.dims) for t in back.graph.initializer} == {n: [*a.shape] for n, a in doubled().items()}


@pytest.mark.parametrize("what", ["few numbers", "one number throughout", "other bits"])
def test_what_may_be_equal_by_chance_is_not_seen_as_a_copy(tmp_path: Path, what: str) -> None:
    tensors = doubled()
    if what == "few numbers":
        tensors = {name: array[:24, :24].copy() for name, array in tensors.items()}
    elif what == "one number throughout":
        tensors = {name: np.zeros_like(array) for name, array in tensors.items()}
    else:
        tensors["again"][-1, -1] += 1e-3
        tensors["turned"][-1, -1] += 1e-3
    onnx.save(model_of(NODES, tensors), tmp_path / "m.onnx")
    assert list(OnnxAdapter().read(tmp_path / "m.onnx").tensors) == list(tensors)


def test_copies_have_names_of_their_own_where_they_are_asked_for(path: Path) -> None:
    for options in (Options(all_floats=True), Options(chosen=EVERYTHING), Options(chosen=EVERYTHING, bits=True)):
        assert list(OnnxAdapter().read(path, options).tensors) == list(doubled())
    assert list(OnnxAdapter().tensors(path)) == list(doubled())


def test_copies_go_into_an_existing_model_too(path: Path) -> None:
    template = path.with_name("template.onnx")
    onnx.save(model_of(NODES, {name: floats(7, *array.shape) for name, array in doubled().items()}), template)
    nnc_adapters.compress(path)
    nnc_adapters.decompress(path.with_suffix(".nnr"), path.with_name("out.onnx"), into=template)
    found = OnnxAdapter().tensors(path.with_name("out.onnx"))
    for name, array in doubled().items():
        np.testing.assert_allclose(found[name], array, atol=0.02)


def test_branches_with_the_same_weights_are_as_small_as_one(tmp_path: Path) -> None:
    weights = floats(3, 64, 64)

    def branch(name: str, used: str) -> Any:
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        tensor = numpy_helper.from_array(weights, used)
        return helper.make_graph([node("MatMul", ["x", used], [name])], name, [], [made], [tensor])

    nodes = [node("If", ["flag"], ["y"], then_branch=branch("a", "u"), else_branch=branch("b", "v"))]
    onnx.save(model_of(nodes, {"flag": np.array(True)}), tmp_path / "two.onnx")
    onnx.save(model_of([node("MatMul", ["x", "u"], ["y"])], {"u": weights}), tmp_path / "one.onnx")
    two, one = (nnc_adapters.compress(tmp_path / f"{name}.onnx").bytes_after for name in ("two", "one"))
    assert two < one + 200


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_a_table_that_onnxruntime_has_transposed_is_as_small_as_before(tmp_path: Path, level: str) -> None:
    nodes = [
        node("Gather", ["table", "n"], ["e"]),
        node("Transpose", ["table"], ["t"], perm=[1, 0]),
        node("MatMul", ["e", "t"], ["y"]),
    ]
    plain, optimized = tmp_path / "plain.onnx", tmp_path / "optimized.onnx"
    onnx.save(model_of(nodes, {"table": floats(4, 300, 48)}), plain)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level, options.intra_op_num_threads = str(optimized), 4, 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    onnxruntime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    assert optimized.stat().st_size > 1.8 * plain.stat().st_size
    before, after = (nnc_adapters.compress(path).bytes_after for path in (plain, optimized))
    assert after < before + 200


@pytest.mark.parametrize(
    ("dims", "way", "message"),
    [((40, 96), "equal", "different"), ((20, 192), "transposed", "different"), ((3840,), "transposed", "not a matrix")],
)
def test_a_topology_that_lies_about_copies_is_refused(
    path: Path, tmp_path: Path, dims: tuple[int, ...], way: str, message: str
) -> None:
    model = OnnxAdapter().read(path)
    assert model.topology is not None
    graph = onnx.ModelProto.FromString(model.topology.data)
    (turned,) = (tensor for tensor in graph.graph.initializer if tensor.name == "turned")
    turned.dims[:] = dims
    next(entry for entry in turned.metadata_props if entry.key == "nnr.copy").value = way
    hostile = Topology(model.topology.storage_format, graph.SerializeToString())
    with pytest.raises(ModelError, match=message):
        OnnxAdapter().write(model.tensors, hostile, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
