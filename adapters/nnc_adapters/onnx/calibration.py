"""Calibration of ONNX models: onnxruntime runs them, and shows the inputs of their layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from nnc_adapters.onnx.values import Folder
from nnc_adapters.shared.calibration import Convolution, Recorder, measured, same_pads
from nnc_adapters.shared.inputs import Expected, batches
from nnc_core.errors import MissingDependencyError, ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel

__all__ = ["calibrated"]

_COPIES = ("Identity", "Cast")

Array = NDArray[Any]


def calibrated(model: SourceModel, path: Path, inputs: Mapping[str, Array], limits: Limits) -> SourceModel:
    """The model in the file ``path`` with what was measured of it on ``inputs``, called by the inputs of its graph."""
    folder = Folder(path, limits)
    proto = onnx.load(str(folder.content))
    layers = [layer for layer in _layers(proto.graph) if layer.weight in model.tensors]
    weights = [t for t in proto.graph.initializer if t.name in model.tensors and t.data_type in _FLOATS]
    session = _Session(proto, layers, weights)
    feeds = list(batches(list(_expected(session.inputs)), inputs))
    recorder = Recorder()
    for feed in feeds:
        shown = session.shown(feed)
        for layer in layers:
            layer.record(recorder, shown[layer.input])
    types = {tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type) for tensor in weights}

    def run(name: str | None, values: Array | None) -> Iterator[Array]:
        changed = {} if name is None or values is None else {name: values.astype(types[name])}
        return (session.outputs({**feed, **changed}) for feed in feeds)

    return measured(model, recorder.layers, types, run)


_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


# --- layers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layer:
    """A node that multiplies its first input with a weight, which may be transposed on the way."""

    node: NodeProto
    weight: str
    shape: tuple[int, ...]
    transposed: bool

    @property
    def input(self) -> str:
        name: str = self.node.input[0]
        return name

    def record(self, recorder: Recorder, inputs: Array) -> None:
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in self.node.attribute}
        if self.node.op_type == "Conv":
            recorder.convolution(self.weight, inputs, _convolution(self.shape, inputs.shape, attributes))
            return
        rows = inputs.T if attributes.get("transA") else inputs
        first = bool(attributes.get("transB")) == self.transposed
        recorder.product(self.weight, rows, input_first=first)


def _layers(graph: GraphProto) -> Iterator[_Layer]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    weights = {name: (name, False) for name in shapes}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in _COPIES and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        elif node.op_type == "Transpose" and node.input[0] in weights:
            name, transposed = weights[node.input[0]]
            if len(shapes[name]) == 2:
                weights[node.output[0]] = name, not transposed
        elif node.op_type in ("MatMul", "Gemm", "Conv") and node.input[1] in weights:
            name, transposed = weights[node.input[1]]
            is_matrix = len(shapes[name]) == 2
            if node.input[0] not in weights and (not transposed if node.op_type == "Conv" else is_matrix):
                yield _Layer(node, name, shapes[name], transposed)


def _convolution(shape: tuple[int, ...], inputs: tuple[int, ...], attributes: Mapping[str, Any]) -> Convolution:
    kernel = tuple(attributes.get("kernel_shape", shape[2:]))
    ones = (1,) * len(kernel)
    strides, dilations = (tuple(attributes.get(name, ones)) for name in ("strides", "dilations"))
    ends = tuple(attributes.get("pads", (0,) * (2 * len(kernel))))
    pads = tuple(zip(ends[: len(kernel)], ends[len(kernel) :], strict=True))
    automatic = attributes.get("auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = same_pads(inputs[2:], kernel, strides, dilations)
        pads = pads if automatic == b"SAME_UPPER" else tuple(pair[::-1] for pair in pads)
    return Convolution(kernel, strides, dilations, pads, attributes.get("group", 1))


# --- running ---------------------------------------------------------------------------------------------------------


class _Session:
    """A model whose layers show their inputs, and whose weights can be replaced."""

    def __init__(self, proto: ModelProto, layers: Sequence[_Layer], weights: Sequence[TensorProto]) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise MissingDependencyError("onnxruntime", "onnx") from error
        initialized = {tensor.name for tensor in proto.graph.initializer}
        declared = {each.name for each in proto.graph.input}
        self._outputs = [each.name for each in proto.graph.output]
        self._shown = sorted({layer.input for layer in layers})
        for tensor in weights:
            if tensor.name not in declared:
                value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                proto.graph.input.append(value)
        known = {*self._outputs, *declared}
        proto.graph.output.extend(ValueInfoProto(name=name) for name in self._shown if name not in known)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        try:
            data = proto.SerializeToString()
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except (ValueError, EncodeError) as error:
            raise UnsupportedError(f"calibration of a model above 2 GB: {error}") from error
        except Exception as error:  # of many types
            raise ModelError(f"onnxruntime cannot load the model to calibrate it: {error}") from error
        self.inputs = [each for each in self._session.get_inputs() if each.name not in initialized]

    def shown(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs of the layers."""
        names = [name for name in self._shown if name not in feed]
        return {**feed, **dict(zip(names, self._run(names, feed), strict=True))}

    def outputs(self, feed: Mapping[str, Array]) -> Array:
        """The model's floating-point outputs, one after the other."""
        floats = [each for each in self._run(self._outputs, feed) if isinstance(each, np.ndarray)]
        floats = [each.astype(np.float64).reshape(-1) for each in floats if each.dtype.kind == "f"]
        return np.concatenate(floats or [np.zeros(0)])

    def _run(self, names: list[str], feed: Mapping[str, Array]) -> list[Any]:
        if not names:
            return []
        try:
            outputs: list[Any] = self._session.run(names, dict(feed))
        except Exception as error:  # of many types
            raise ModelError(f"onnxruntime cannot run the model on the calibration inputs: {error}") from error
        return outputs


def _expected(inputs: Iterable[Any]) -> Iterator[Expected]:
    for each in inputs:
        shape = tuple(size if isinstance(size, int) else None for size in each.shape)
        yield Expected(each.name, shape, np.dtype(_TYPES.get(each.type, "float32")))


_TYPES = {
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
