"""What a fuzz run starts from: small ONNX models."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper, numpy_helper

from annex_tests.fuzz.reading import Files, Reader, model, topologies
from conformance.fuzz import damage
from nnc_adapters.base import DEFAULTS, Options
from nnc_adapters.onnx import OnnxAdapter
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

ADAPTER = OnnxAdapter()
_DIVIDING = OnnxAdapter(single_file_bytes=0)  # writes weights into a file beside the model


class _Stripping(OnnxAdapter):
    """Leaves behind what people only read."""

    def read(self, path: Path, options: Options = DEFAULTS) -> SourceModel:
        return super().read(path, replace(options, strip_debug=True))


_STRIPPING = _Stripping()

_FILE = "m.onnx"
_LARGE = np.linspace(-1, 1, 300, dtype=np.float32)  # so large that it is lifted out of the model
_SMALL = np.linspace(-1, 1, 24, dtype=np.float32)


def of_everything() -> ModelProto:
    """A model with tensors in every place where one can be, in several types."""
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(_SMALL, "k"))],
        "body",
        [],
        [helper.make_tensor_value_info("k", TensorProto.FLOAT, [24])],
        [numpy_helper.from_array(_SMALL, "w")],
    )
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("n", "on", "state")]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("on", "next")]
    loop = helper.make_graph([helper.make_node("Gemm", ["state", "w", "b"], ["next"])], "loop", inputs, outputs)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *"stuv"], ["n"]),
        helper.make_node("MatMul", ["n", "m"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("LSTM", ["q", "m", "m", "b"], ["h"], hidden_size=2),
        helper.make_node("Loop", ["steps", "flag", "h"], ["l"], body=loop),
        helper.make_node("If", ["flag"], ["i"], then_branch=body, else_branch=body),
        helper.make_node("Constant", [], ["list"], value_floats=[float(value) for value in _SMALL]),
        helper.make_node("Own", ["c"], ["y"], domain="own"),
        *_of_exact_tensors(),
    ]
    function = helper.make_function(
        *("own", "Own", ["a"], ["z"]),
        [helper.make_node("Transpose", ["a"], ["z"], perm=[1, 0])],
        [helper.make_opsetid("", 17)],
    )
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(_SMALL, "sparse"), numpy_helper.from_array(np.arange(24), "indices"), [100]
    )
    return _model(
        nodes,
        [
            numpy_helper.from_array(_LARGE.reshape(4, 3, 5, 5), "w"),
            *(numpy_helper.from_array(_SMALL, name) for name in "stuv"),
            numpy_helper.from_array(_SMALL.reshape(4, 6), "m"),
            helper.make_tensor("b", TensorProto.FLOAT, [24], _SMALL),
            helper.make_tensor("half", TensorProto.BFLOAT16, [24], _SMALL),
            numpy_helper.from_array(np.arange(24), "steps"),
            helper.make_tensor("words", TensorProto.STRING, [2], [b"one", b"two"]),
            numpy_helper.from_array(np.array(True), "flag"),
            helper.make_tensor("nibbles", TensorProto.INT4, [3], bytes(2), raw=True),
            numpy_helper.from_array(np.arange(-12, 12, dtype=np.int8).reshape(4, 6), "q"),
            numpy_helper.from_array(_SMALL[:, None], "phases"),
            numpy_helper.from_array(np.float32(-0.5), "exponent"),
            helper.make_tensor("eighths", TensorProto.FLOAT8E4M3FN, [24], bytes(24), raw=True),
        ],
        sparse_initializer=[sparse],
        functions=[function],
    )


def _of_exact_tensors() -> list[Any]:
    """Operations that make tensors exact, in several ways; and what people only read."""
    return [
        helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT, doc_string="scaled next"),
        helper.make_node("Mul", ["f", "m"], ["scaled"]),
        helper.make_node("MatMulNBits", ["x", "q", "s"], ["bits"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["q", "t", "z"], ["d"], domain="com.microsoft"),
        helper.make_node("MatMul", ["phases", "x"], ["p"]),
        helper.make_node("Sin", ["p"], ["sine"]),
        helper.make_node("Pow", ["u", "exponent"], ["root"]),
        helper.make_node("Add", ["x", "v"], ["divisor"]),
        helper.make_node("Div", ["x", "divisor"], ["quotient"]),
    ]


def with_shared_data() -> Files:
    """A model with two tensors in the same bytes of another file, and a third in some of them."""
    places = {"e": ([4, 6], 16, 96), "f": ([6, 4], 16, 96), "g": ([16], 48, 64)}
    tensors = [_in_file(name, dims, offset, length) for name, (dims, offset, length) in places.items()]
    nodes = [helper.make_node("MatMul", ["e", "f"], ["h"]), helper.make_node("Div", ["h", "g"], ["y"])]
    return {_FILE: _model(nodes, tensors).SerializeToString(), "data.bin": bytes(16) + _SMALL.tobytes()}


def with_copies() -> ModelProto:
    """A model with a matrix that it has once more, and once transposed."""
    matrix = np.linspace(-1, 1, 1056, dtype=np.float32).reshape(24, 44)
    matrices = {"c": matrix, "d": matrix, "t": np.ascontiguousarray(matrix.T)}
    tensors = [numpy_helper.from_array(array, name) for name, array in matrices.items()]
    nodes = [helper.make_node("MatMul", ["c", "t"], ["h"]), helper.make_node("MatMul", ["h", "d"], ["y"])]
    return _model(nodes, tensors)


def _in_file(name: str, dims: list[int], offset: int, length: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "data.bin", "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def compressed(suffix: str, compress: Any) -> Files:
    """The model of everything in a compressed file."""
    return {f"{_FILE}.{suffix}": compress(of_everything().SerializeToString())}


def with_external_data() -> Files:
    """A model with values in another file."""
    tensor = _in_file("w", [4, 6], 16, 96)
    made = _model([helper.make_node("Identity", ["w"], ["y"])], [tensor])
    return {_FILE: made.SerializeToString(), "data.bin": bytes(16) + _SMALL.tobytes()}


def _model(nodes: list[Any], tensors: list[TensorProto], **more: Any) -> ModelProto:
    functions = more.pop("functions", [])
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])]
    graph = helper.make_graph(nodes, "g", [], outputs, tensors, **more)
    imports = [helper.make_opsetid(domain, 17) for domain in ("", *(f.domain for f in functions))]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)


# Damage ---------------------------------------------------------------------------------------------------------------

_OTHER_NUMBERS = (0, 1, -1, 2, 7, 10, 16, 99, 1 << 20, (1 << 31) - 1, -(1 << 31), (1 << 62), (1 << 63) - 1, -(1 << 63))
_OTHER_TEXTS = ("", "w", "b", "k", "nnr", "nnr.topology_elem_id", "location", "../x", "x" * 5000, "\0", "Loop", "own")


def with_other_field(source: Random, data: bytes) -> bytes:
    """Change a field of any message; what is not a model is damaged in another way."""
    try:
        changed = ModelProto.FromString(data)
    except DecodeError:
        return source.choice(damage.ANY)(source, data)
    message = source.choice(list(_messages(changed)))
    fields = message.ListFields()
    if not fields:
        return source.choice(damage.ANY)(source, data)
    field, value = source.choice(fields)
    if source.random() < 0.15:
        message.ClearField(field.name)
    elif hasattr(value, "append") or hasattr(value, "add"):
        _change_list(source, message, field, value)
    elif field.message_type is None:
        _set(source, message, field)
    return bytes(changed.SerializeToString())


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(inner)


def _change_list(source: Random, message: Any, field: Any, values: Any) -> None:
    at = source.randrange(len(values))
    action = source.randrange(3)
    if action == 0:
        del values[at]
    elif action == 1 or field.message_type is not None:
        values.extend([values[at]] * source.choice((1, 1, 70)))
    else:
        values[at] = _other(source, values[at])


def _set(source: Random, message: Any, field: Any) -> None:
    value = _other(source, getattr(message, field.name))
    try:
        setattr(message, field.name, value)
    except ValueError:  # out of range
        message.ClearField(field.name)


def _other(source: Random, value: Any) -> Any:
    if isinstance(value, str):
        return source.choice(_OTHER_TEXTS)
    if isinstance(value, bytes):
        return source.choice(damage.ANY)(source, value)
    return source.choice((*_OTHER_NUMBERS, value + 1, value - 1)) if isinstance(value, int) else value * 2


# Readers --------------------------------------------------------------------------------------------------------------


def apart(topology: Topology) -> Files:
    """The model in a topology."""
    return {_FILE: topology.data}


def together(files: Files) -> Topology:
    """The topology of a model."""
    return Topology(TopologyStorageFormat.NNR_TPL_ONNX, files.get(_FILE, b""))


def readers() -> list[Reader]:
    """The readers of ONNX models, and of their topologies."""
    seeds = {
        "everything": {_FILE: of_everything().SerializeToString()},
        "external data": with_external_data(),
        "shared data": with_shared_data(),
        "copies": {_FILE: with_copies().SerializeToString()},
    }
    packed = {"gz": partial(gzip.compress, mtime=0), "bz2": bz2.compress, "xz": lzma.compress}
    damages = (*damage.ANY, *[with_other_field] * len(damage.ANY))
    honest = {name: (_FILE, files) for name, files in seeds.items()}
    return [
        Reader("onnx/model", seeds, model(ADAPTER, _FILE), damages),
        Reader("onnx/stripped", {"everything": seeds["everything"]}, model(_STRIPPING, _FILE), damages),
        *(
            Reader(f"onnx/{suffix}", {"file": compressed(suffix, compress)}, model(ADAPTER, f"{_FILE}.{suffix}"))
            for suffix, compress in packed.items()
        ),
        *topologies(ADAPTER, honest, apart, together, damages=damages),
        *topologies(_DIVIDING, {"divided": honest["everything"]}, apart, together, damages=damages),
    ]
