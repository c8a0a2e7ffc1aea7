"""What a fuzz run starts from: pairs of small models that are the same network, and the file that says what is what."""

from __future__ import annotations

import io
import json

import h5py
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from annex_tests.fuzz.guard import Box
from annex_tests.fuzz.reading import LIMITS, Files, Reader
from annex_tests.support import handmade_pytorch
from conformance.fuzz import damage
from nnc_adapters.convert import convert

_MATRIX = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
_BIAS = np.linspace(0, 1, 8, dtype=np.float32)
_SOURCE, _INTO, _MAPPING = "source", "into", "mapping.json"


def state_dict() -> bytes:
    """A dense layer of PyTorch, as safetensors."""
    header = {
        "fc.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]},
        "fc.bias": {"dtype": "F32", "shape": [8], "data_offsets": [128, 160]},
    }
    return handmade_pytorch.safetensors(header, _MATRIX.tobytes() + _BIAS.tobytes())


def keras() -> bytes:
    """The same layer of Keras."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = _MATRIX.T
        file["layers/dense/vars/1"] = _BIAS
    return stream.getvalue()


def graph() -> bytes:
    """The same layer in a graph of ONNX."""
    tensors = [numpy_helper.from_array(_MATRIX, "fc.weight"), numpy_helper.from_array(_BIAS, "fc.bias")]
    nodes = [helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["y"], transB=1)]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])] for name, size in (("x", 4), ("y", 8))
    )
    made = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    found: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    ).SerializeToString()
    return found


def pairs() -> dict[str, Files]:
    """Models of two frameworks."""
    transposed = {"layers/dense/vars/0": {"from": "fc.weight", "transpose": [1, 0]}, "layers/dense/vars/1": "fc.bias"}
    parts = {"layers/dense/vars/0": {"from": ["fc.weight"], "part": [0]}, "layers/dense/vars/1": "fc.bias"}
    found = {
        "transposed": (state_dict(), keras(), transposed),
        "parts": (state_dict(), keras(), parts),
        "graph": (graph(), keras(), None),
        "names": (graph(), state_dict(), None),
    }
    return {
        name: {_SOURCE: source, _INTO: into} | ({_MAPPING: json.dumps(mapping).encode()} if mapping else {})
        for name, (source, into, mapping) in found.items()
    }


def use(files: Files, box: Box) -> None:
    """Convert, with the mapping if there is one."""
    box.put(files, _INTO)
    source = box.put(files, _SOURCE)
    mapping = source.with_name(_MAPPING) if _MAPPING in files else None
    target = box.target("target")
    with box.step(target):
        convert(source, target, into=source.with_name(_INTO), mapping=mapping, check=False, threads=1, limits=LIMITS)


def readers() -> list[Reader]:
    """The readers of mapping files, and of what models have in common."""
    mappings = {name: files for name, files in pairs().items() if _MAPPING in files}
    fixed = {name: dict(files) for name, files in mappings.items()}
    return [
        Reader("convert/models", pairs(), use, (*damage.ANY, damage.with_other_json), slow=True),
        Reader(
            "convert/mapping",
            {name: {_MAPPING: files.pop(_MAPPING)} for name, files in fixed.items()},
            lambda files, box: use({**fixed["parts"], **files}, box),
            (*damage.ANY, *[damage.with_other_json] * 3),
        ),
    ]
