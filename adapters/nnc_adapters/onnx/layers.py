"""The layers of an ONNX graph whose weights can be calibrated, and what of their inputs that takes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper

from nnc_adapters.shared.calibration import Convolution, Recorder, same_pads
from nnc_core.records import dataclass

__all__ = ["Layer", "constants_as_initializers", "convolution", "layers_of"]

_COPIES = ("Identity", "Cast")
_STANDARD = ("", "ai.onnx")

Array = NDArray[Any]
Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """A use of the initializer ``weight``; ``record`` takes a recorder and the values of ``inputs``."""

    weight: str
    inputs: tuple[str, ...]
    record: Callable[..., None]


def constants_as_initializers(graph: GraphProto, names: Container[str]) -> None:
    """Move what Constant nodes and inner graphs define under these ``names`` to the initializers of the graph."""
    for inner in _graphs(graph):
        fixed = {each.name for each in inner.output}
        for node in [node for node in inner.node if node.op_type == "Constant" and node.domain in _STANDARD]:
            value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
            if value is not None and node.output[0] in names and node.output[0] not in fixed:
                _add(graph, value, node.output[0])
                inner.node.remove(node)
        for tensor in [each for each in inner.initializer if each.name in names and each.name not in fixed]:
            if inner is not graph:
                _add(graph, tensor, tensor.name)
                inner.initializer.remove(tensor)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _graphs(inner)


def _add(graph: GraphProto, tensor: TensorProto, name: str) -> None:
    graph.initializer.add().CopyFrom(tensor)
    graph.initializer[-1].name = name


def layers_of(graph: GraphProto) -> Iterator[Layer]:
    """Every use of an initializer, or of its transpose, in a layer; hidden states of recurrent ones get names."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    weights = {name: _Weight(name, shape) for name, shape in shapes.items()}
    for node in graph.node:
        if node.domain not in _STANDARD:
            continue
        if node.op_type in _COPIES and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        elif node.op_type == "Transpose" and len(getattr(weights.get(node.input[0]), "shape", ())) == 2:
            weights[node.output[0]] = weights[node.input[0]].turned
        elif node.op_type in _LAYERS and node.input[0] not in weights:
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            yield from _LAYERS[node.op_type](node, weights, attributes)


@dataclass(frozen=True, slots=True)
class _Weight:
    """The initializer that a value is a copy of, and its shape; or its transpose, if it is a matrix."""

    name: str
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def turned(self) -> _Weight:
        return _Weight(self.name, self.shape, not self.transposed)


Weights = Mapping[str, _Weight]


def _product(node: NodeProto, weights: Weights, attributes: Attributes) -> Iterator[Layer]:
    weight = weights.get(node.input[1])
    if weight is None or len(weight.shape) != 2:
        return
    first = bool(attributes.get("transB")) == weight.transposed

    def record(recorder: Recorder, inputs: Array) -> None:
        recorder.product(weight.name, inputs.T if attributes.get("transA") else inputs, input_first=first)

    yield Layer(weight.name, (node.input[0],), record)


def _convolution(node: NodeProto, weights: Weights, attributes: Attributes) -> Iterator[Layer]:
    weight = weights.get(node.input[1])
    if weight is None or weight.transposed:
        return

    def record(recorder: Recorder, inputs: Array) -> None:
        recorder.convolution(weight.name, inputs, convolution(weight.shape, inputs.shape, attributes))

    yield Layer(weight.name, (node.input[0],), record)


def convolution(shape: tuple[int, ...], inputs: tuple[int, ...], attributes: Attributes) -> Convolution:
    """How a Conv node with kernels of a shape takes patches of its inputs."""
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


def _transposed_convolution(node: NodeProto, weights: Weights, attributes: Attributes) -> Iterator[Layer]:
    """Each input is multiplied with all the kernels of its channel; groups share no inputs."""
    weight = weights.get(node.input[1])
    if weight is not None and not weight.transposed and attributes.get("group", 1) == 1:

        def record(recorder: Recorder, inputs: Array) -> None:
            recorder.product(weight.name, np.moveaxis(inputs, 1, -1), input_first=True)

        yield Layer(weight.name, (node.input[0],), record)


def _recurrent(node: NodeProto, weights: Weights, attributes: Attributes) -> Iterator[Layer]:
    """The weights of inputs, and those of states; not where a reset gate changes the states before."""
    inputs, states = weights.get(node.input[1]), weights.get(node.input[2])
    if inputs is not None:
        yield Layer(inputs.name, (node.input[0],), partial(_record_product, inputs.name))
    if states is None or (node.op_type == "GRU" and not attributes.get("linear_before_reset")):
        return
    if not node.output[0]:
        node.output[0] = f"{node.output[1]}.every"
    start = tuple(name for name in node.input[5:6] if name)
    backward = {b"forward": (False,), b"reverse": (True,)}.get(attributes.get("direction", b"forward"), (False, True))
    record = partial(_record_states, states.name, backward, bool(attributes.get("layout")))
    yield Layer(states.name, (node.output[0], *start), record)


def _record_product(name: str, recorder: Recorder, inputs: Array) -> None:
    recorder.product(name, inputs)


def _record_states(
    name: str, backward: tuple[bool, ...], layout: bool, recorder: Recorder, outputs: Array, start: Array | None = None
) -> None:
    """Each way multiplies its start, and all its outputs (steps, ways, batch, width) but for its last."""
    if layout:  # with the batch first
        outputs = outputs.transpose(1, 2, 0, 3)
        start = None if start is None else start.swapaxes(0, 1)
    first = np.zeros_like(outputs[0]) if start is None else start
    groups = []
    for way, reverse in enumerate(backward):
        rest = outputs[1:, way] if reverse else outputs[:-1, way]
        groups.append(np.concatenate([first[way][np.newaxis], rest]))
    recorder.products(name, groups)


_LAYERS: dict[str, Callable[[NodeProto, Weights, Attributes], Iterator[Layer]]] = {
    "MatMul": _product,
    "Gemm": _product,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "RNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
}
