from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from conformance.support.shared import SHARED
from nnc_adapters.onnx import OnnxAdapter
from nnc_core.nnr_model import SourceModel

VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")

RoundTrip = Callable[..., SourceModel]


@pytest.fixture
def adapter() -> OnnxAdapter:
    return OnnxAdapter()


@pytest.fixture
def make_model() -> Callable[..., ModelProto]:
    """A model of nodes and initializers; ``inputs`` and ``outputs`` give shapes of float tensors."""

    def make(
        nodes: Sequence[NodeProto],
        initializers: Sequence[TensorProto] = (),
        *,
        inputs: Mapping[str, Sequence[int]] | None = None,
        outputs: Mapping[str, Sequence[int | None]] | None = None,
        opset: int = 17,
        ir_version: int = 10,
        functions: Sequence[onnx.FunctionProto] = (),
        **kwargs: Any,
    ) -> ModelProto:
        graph = helper.make_graph(
            nodes,
            "graph",
            [_info(name, shape) for name, shape in (inputs or {}).items()],
            [_info(name, shape) for name, shape in (outputs or {"y": [None]}).items()],
            initializers,
            **kwargs,
        )
        imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(f.domain, 1) for f in functions]
        return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=functions)

    return make


def _info(name: str, shape: Sequence[int | None]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.fixture
def round_trip(adapter: OnnxAdapter, tmp_path: Path) -> RoundTrip:
    """Reads a model and writes it with its own tensors; nothing but the place of values may differ."""

    def trip(model: ModelProto | Path, *, writer: OnnxAdapter = adapter) -> SourceModel:
        source = model if isinstance(model, Path) else tmp_path / "source.onnx"
        if isinstance(model, ModelProto):
            onnx.save(model, str(source))
        target = tmp_path / "target.onnx"
        read = adapter.read(source)
        writer.write(read.tensors, read.topology, target, force=True)
        onnx.checker.check_model(str(target))
        assert canonical(onnx.load(str(target))) == canonical(onnx.load(str(source)))
        for name, array in adapter.read(target).tensors.items():
            np.testing.assert_array_equal(array, read.tensors[name], strict=True)
        return read

    return trip


def canonical(model: ModelProto) -> bytes:
    """The model as bytes, with the values of all numeric tensors in ``raw_data``."""
    for tensor in tensors_in(model):
        if tensor.data_type == TensorProto.STRING:
            continue
        data = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        for name in (*VALUES, "external_data", "data_location"):
            tensor.ClearField(name)
        tensor.raw_data = data
    return model.SerializeToString(deterministic=True)


def tensors_in(message: Any) -> Iterator[TensorProto]:
    """Every tensor inside a message, wherever it is."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from tensors_in(inner)


@pytest.fixture
def run() -> Callable[..., list[Any]]:
    """The outputs of a model in onnxruntime; ``weights`` are given to the session instead of a file."""

    def call(model: Path | bytes, feeds: Mapping[str, Any], weights: Mapping[str, Any] | None = None) -> list[Any]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        # kept alive: the session refers to their memory
        held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in (weights or {}).items()}
        if held:
            options.add_external_initializers(list(held), list(held.values()))
        model = str(model) if isinstance(model, Path) else model  # type: ignore[assignment]
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        outputs: list[Any] = session.run(None, dict(feeds))
        return outputs

    return call


@pytest.fixture
def shared_models() -> list[Path]:
    folder = SHARED / "models"
    found = sorted(folder.glob("*.onnx"))
    if not found:
        pytest.skip(f"there are no ONNX models in {folder}; set NNC_SHARED")
    return found


@pytest.fixture
def random_weights() -> Callable[..., np.ndarray[Any, Any]]:
    generator = np.random.default_rng(17)

    def make(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
        return generator.standard_normal(shape).astype(dtype)

    return make
