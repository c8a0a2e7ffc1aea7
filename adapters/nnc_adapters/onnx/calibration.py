"""Calibration of ONNX models: onnxruntime runs them, and shows the inputs of their layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto

from nnc_adapters.onnx.layers import Layer, constants_as_initializers, layers_of
from nnc_adapters.onnx.values import Folder
from nnc_adapters.shared.calibration import Recorder, measured, probing
from nnc_adapters.shared.inputs import Expected, batches
from nnc_core.errors import MissingDependencyError, ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel

__all__ = ["calibrated"]

Array = NDArray[Any]


def calibrated(model: SourceModel, path: Path, inputs: Mapping[str, Array], limits: Limits) -> SourceModel:
    """The model in the file ``path`` with what was measured of it on ``inputs``, called by the inputs of its graph."""
    folder = Folder(path, limits)
    proto = onnx.load(str(folder.content))
    constants_as_initializers(proto.graph, model.tensors)
    layers = [layer for layer in layers_of(proto.graph) if layer.weight in model.tensors]
    weights = [t for t in proto.graph.initializer if t.name in model.tensors and t.data_type in _FLOATS]
    session = _Session(proto, layers, weights)
    feeds = list(batches(list(_expected(session.inputs)), inputs))
    recorder = Recorder()
    for feed in feeds:
        shown = session.shown(feed)
        for layer in layers:
            layer.record(recorder, *(shown[name] for name in layer.inputs))
    types = {tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type) for tensor in weights}

    def run(name: str | None, values: Array | None) -> Iterator[Array]:
        changed = {} if name is None or values is None else {name: values.astype(types[name])}
        return (session.outputs({**feed, **changed}) for feed in probing(feeds))

    return measured(model, recorder.layers, types, run)


_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


# --- running ---------------------------------------------------------------------------------------------------------


class _Session:
    """A model whose layers show their inputs, and whose weights can be replaced."""

    def __init__(self, proto: ModelProto, layers: Sequence[Layer], weights: Sequence[TensorProto]) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise MissingDependencyError("onnxruntime", "calibration", "calibration") from error
        initialized = {tensor.name for tensor in proto.graph.initializer}
        declared = {each.name for each in proto.graph.input}
        self._outputs = [each.name for each in proto.graph.output]
        self._shown = sorted({name for layer in layers for name in layer.inputs})
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
