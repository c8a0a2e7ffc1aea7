"""The trace of a TensorFlow Lite model, from its operators and the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from nnc_adapters.convert.axes import Axis
from nnc_adapters.convert.described import Described
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.trace import Trace, Traced
from nnc_adapters.tensorflow import tflite
from nnc_adapters.tensorflow.content import of_file
from nnc_adapters.tensorflow.flatbuffer import Table, root
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["describe_tflite"]

# fields of Model, SubGraph, Tensor, Operator and OperatorCode
_CODES, _SUBGRAPHS, _BUFFERS = 1, 2, 4
_TENSORS, _INPUTS, _OUTPUTS, _OPERATORS = 0, 1, 2, 3
_SHAPE, _BUFFER, _NAME = 0, 2, 3
_OPCODE, _OPERANDS, _RESULTS = 0, 1, 2
_OLD_CODE, _CODE = 0, 3

_NAMES = {
    0: "add", 41: "sub", 18: "mul", 42: "div", 2: "concat", 3: "conv", 4: "depthwise", 67: "deconv", 9: "dense",
    1: "pool", 17: "pool", 97: "pool", 23: "pool", 34: "pool", 60: "pool", 22: "reshape", 43: "reshape", 70: "reshape",
    39: "transpose", 40: "mean", 74: "mean", 82: "mean", 54: "prelu", 36: "gather", 126: "product",
    19: "relu", 21: "relu6", 14: "sigmoid", 28: "tanh", 25: "softmax", 98: "leaky_relu", 117: "hardswish", 111: "elu",
    47: "exp", 76: "rsqrt", 75: "sqrt", 53: "same", 6: "same", 150: "gelu", 99: "ordered", 55: "ordered", 57: "ordered",
}  # fmt: skip
# where the options of an operator have its activation
_OPTIONS = 4
_FUSED = {"conv": 3, "depthwise": 4, "dense": 0, "add": 0, "mul": 0, "sub": 0, "pool": 5}
_ACTIVATIONS = {1: "relu", 2: "hardtanh", 3: "relu6", 4: "tanh"}
_VECTOR_OPS = {"add": "bias", "sub": "bias", "mul": "scale"}


def describe_tflite(file: Path, shapes: Mapping[str, tuple[int, ...]], limits: Limits) -> Described | None:
    """Follow the first graph; None where the file has several."""
    data = of_file(file).raw().data
    model = root(data)
    graphs = list(model.tables(_SUBGRAPHS))
    if len(graphs) != 1:
        return None
    codes = [max(table.number(_OLD_CODE, 1), table.number(_CODE, 4)) for table in model.tables(_CODES)]
    weights = {v.spans[0].offset: v.name for v in tflite.variables(data, "model", limits) if v.name in shapes}
    buffers = [table.vector(0, 1) for table in model.tables(_BUFFERS)]
    graph = _Graph(data, graphs[0], buffers, weights)
    for number in graphs[0].numbers(_INPUTS):
        graph.known[number] = graph.result.trace.input(graph.shapes[number])
    for operator in graphs[0].tables(_OPERATORS):
        graph.follow(_NAMES.get(_code(codes, operator), "other"), operator)
    for number in graphs[0].numbers(_OUTPUTS):
        if number in graph.known:
            graph.result.trace.result(graph.known[number])
    return graph.result


def _code(codes: list[int], operator: Table) -> int:
    code = operator.number(_OPCODE, 4)
    if not 0 <= code < len(codes):
        raise ModelError(f"an operator has code {code}, there are {len(codes)}")
    return codes[code]


class _Graph:
    """Tensors by their numbers, and what they are."""

    def __init__(
        self, data: memoryview, graph: Table, buffers: list[tuple[int, int]], weights: Mapping[int, str]
    ) -> None:
        self.result = Described()
        self.known: dict[int, Traced] = {}
        self.weights: dict[int, str] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.numbers: dict[int, list[int]] = {}
        for number, tensor in enumerate(graph.tables(_TENSORS)):
            self.shapes[number] = tuple(max(size, 1) for size in tensor.numbers(_SHAPE))
            index = tensor.number(_BUFFER, 4)
            start, size = buffers[index] if 0 <= index < len(buffers) else (0, 0)
            if size and start in weights:
                self.weights[number] = weights[start]
            elif 0 < size <= 64 and size % 4 == 0:
                self.numbers[number] = [int(n) for n in np.frombuffer(data[start : start + size], "<i4")]

    def follow(self, name: str, operator: Table) -> None:
        """Run one operator."""
        inputs, outputs = operator.numbers(_OPERANDS), operator.numbers(_RESULTS)
        if not outputs or not any(number in self.known for number in inputs):
            return
        call = _Call(self, name, inputs, outputs)
        try:
            found = HANDLERS[name](call) if name in HANDLERS else None
        except (LookupError, ValueError):
            found = None
        step = _fused(name, operator)
        for place, number in enumerate(outputs):
            if found is not None and place == 0:
                self.known[number] = self.result.trace.elementwise([found], step) if step else found
            else:
                values = [
                    call.value(k) for k in range(len(inputs)) if inputs[k] in self.known or inputs[k] in self.weights
                ]
                self.known[number] = self.result.trace.opaque(values, self.shapes.get(number, ()), name)


def _fused(name: str, operator: Table) -> str:
    """The activation that an operator applies itself."""
    options = operator.table(_OPTIONS) if name in _FUSED else None
    return _ACTIVATIONS.get(options.number(_FUSED[name], 1), "") if options is not None else ""


@dataclass
class _Call:
    graph: _Graph
    name: str
    inputs: list[int]
    outputs: list[int]

    @property
    def trace(self) -> Trace:
        return self.graph.result.trace

    @property
    def shape(self) -> tuple[int, ...]:
        return self.graph.shapes[self.outputs[0]]

    def is_weight(self, slot: int) -> bool:
        return slot < len(self.inputs) and self.inputs[slot] in self.graph.weights

    def value(self, slot: int) -> Traced:
        number = self.inputs[slot]
        if number in self.graph.weights and prod(self.graph.shapes[number]) == 1:
            return Traced(tuple(Axis(1) for _ in self.graph.shapes[number]))  # a number, not a weight
        if number in self.graph.weights:
            return self.trace.constant(self.part(slot, "bias"), self.graph.shapes[number])
        return self.graph.known[number]

    def part(self, slot: int, kind: str) -> PartOf:
        return self.graph.result.part(self.graph.weights[self.inputs[slot]], kind)

    def biased(self, value: Traced, slot: int) -> Traced:
        return self.trace.vector(value, self.part(slot, "bias"), [-1]) if self.is_weight(slot) else value


Handler = Callable[[_Call], "Traced | None"]


def _conv(call: _Call) -> Traced:
    x, part = call.value(0), call.part(1, "conv")
    grouped = call.graph.shapes[call.inputs[1]][-1] != x.shape[-1]
    return call.biased(call.trace.convolution(x, call.shape, -1, part, grouped=grouped), 2)


def _depthwise(call: _Call) -> Traced:
    return call.biased(call.trace.depthwise(call.value(0), call.shape, -1, call.part(1, "depthwise")), 2)


def _deconv(call: _Call) -> Traced:
    x, part = call.value(2), call.part(1, "deconv")
    return call.biased(call.trace.convolution(x, call.shape, -1, part, grouped=False, first=0), 3)


def _dense(call: _Call) -> Traced:
    x, part, size = call.value(0), call.part(1, "dense"), call.graph.shapes[call.inputs[1]]
    if x.shape[-1] != size[1]:
        x = call.trace.reshape(x, (prod(x.shape) // size[1], size[1]), "flatten")
    return call.trace.reshape(call.biased(call.trace.dense(x, part, size[0]), 2), call.shape)


def _reshape(call: _Call) -> Traced:
    return call.trace.reshape(call.value(0), call.shape, "flatten")


def _transpose(call: _Call) -> Traced:
    return call.trace.permute(call.value(0), call.graph.numbers[call.inputs[1]])


def _concat(call: _Call) -> Traced:
    values = [call.value(slot) for slot in range(len(call.inputs))]
    differing = [k for k, size in enumerate(call.shape) if size != values[0].shape[k]]
    return call.trace.concatenate(values, differing[0])


def _pool(call: _Call) -> Traced | None:
    x = call.value(0)
    return (
        call.trace.pool(x, call.shape, -1) if len(x.axes) == len(call.shape) and x.shape[-1] == call.shape[-1] else None
    )


def _mean(call: _Call) -> Traced:
    x = call.value(0)
    return call.trace.reduce(x, call.graph.numbers[call.inputs[1]], keep=len(call.shape) == len(x.axes))


def _operands(call: _Call) -> Traced | None:
    data = [slot for slot in range(2) if not call.is_weight(slot)]
    if len(data) == 1:
        slot, x = 1 - data[0], call.value(data[0])
        size = call.graph.shapes[call.inputs[slot]]
        places = [k - len(size) for k, n in enumerate(size) if n != 1]
        if prod(size) == 1:
            return call.trace.elementwise([x])
        if all(x.shape[place] == size[place] for place in places):
            return call.trace.vector(x, call.part(slot, _VECTOR_OPS[call.name]), places)
        return None
    return call.trace.elementwise([call.value(0), call.value(1)])


def _prelu(call: _Call) -> Traced:
    size = call.graph.shapes[call.inputs[1]]
    places = [k - len(size) for k, n in enumerate(size) if n != 1]
    return call.trace.vector(call.value(0), call.part(1, "scale"), places)


def _gather(call: _Call) -> Traced | None:
    return call.trace.embedding(call.value(1), call.part(0, "embedding"), call.shape) if call.is_weight(0) else None


HANDLERS: dict[str, Handler] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "deconv": _deconv,
    "dense": _dense,
    "reshape": _reshape,
    "mean": _mean,
    "transpose": _transpose,
    "concat": _concat,
    "pool": _pool,
    "add": _operands,
    "mul": _operands,
    "sub": _operands,
    "prelu": _prelu,
    "gather": _gather,
    "same": lambda call: call.value(0),
}
for _step in (
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "softmax",
    "leaky_relu",
    "hardswish",
    "elu",
    "exp",
    "rsqrt",
    "sqrt",
    "gelu",
):
    HANDLERS[_step] = lambda call, step=_step: call.trace.elementwise([call.value(0)], step)  # type: ignore[misc]
