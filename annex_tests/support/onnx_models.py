"""Small ONNX models, and what the command line makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from conformance.support.shared import shared
from nnc_core.nnr_model import SourceModel

node = helper.make_node
Arrays = Mapping[str, NDArray[Any]]
Read = Callable[..., SourceModel]
RNG = np.random.default_rng(6)


def floats(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def whole(*shape: int, dtype: Any = np.int8) -> NDArray[Any]:
    bounds = np.iinfo(dtype)
    return RNG.integers(max(bounds.min, -8), min(bounds.max, 7), shape, endpoint=True).astype(dtype)


def model_of(nodes: Sequence[NodeProto], tensors: Arrays, **more: Any) -> ModelProto:
    """A model; inputs are called ``x`` (floats) and ``n`` (whole numbers), the output ``y``."""
    used = {name for each in nodes for name in each.input}
    kinds = {"x": TensorProto.FLOAT, "n": TensorProto.INT64}
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items() if name in used]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    domains = dict.fromkeys(("", "com.microsoft", *(each.domain for each in nodes)))
    imports = [helper.make_opsetid(domain, 1 if domain else 21) for domain in domains]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **more)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def outputs(path: Path, feeds: Arrays) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, dict(feeds))
    return found


def case(name: str) -> Path:
    return shared(f"cases/onnx/{name}")


def sqnr(original: NDArray[Any], decoded: NDArray[Any]) -> float:
    noise = float(((original.astype(np.float64) - decoded) ** 2).sum())
    return 10 * float(np.log10((original.astype(np.float64) ** 2).sum() / noise)) if noise else np.inf
