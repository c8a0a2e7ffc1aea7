"""Weights that are constants of a graph: in a frozen graph, or in the graph of a SavedModel.

A constant keeps its size when it gets other values, so these are replaced where they are, as everywhere here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

from nnc_adapters.shared import protobuf
from nnc_adapters.shared.names import free
from nnc_adapters.tensorflow.bundle import TYPES
from nnc_adapters.tensorflow.content import Content
from nnc_adapters.tensorflow.messages import Message
from nnc_adapters.tensorflow.model import Opened, Span, Variable
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import ParameterType
from nnc_core.records import dataclass

__all__ = ["FROZEN", "is_graph", "of_saved_model", "open_frozen"]

FROZEN = "frozen"
_FILE = "graph.pb"
_LEAST = 16

# fields of SavedModel, MetaGraphDef, GraphDef, FunctionDefLibrary, FunctionDef, OpDef, NodeDef, AttrValue, TensorProto
_META_GRAPHS, _GRAPH_DEF = 2, 2
_NODES, _LIBRARY, _VERSIONS = 1, 2, 4
_FUNCTIONS, _SIGNATURE, _FUNCTION_NODES, _ARGUMENTS = 1, 1, 3, 2
_NAME, _OP, _INPUTS, _ATTRIBUTES = 1, 2, 3, 5
_KEY, _VALUE, _TENSOR, _FUNCTION = 1, 2, 8, 10
_DATA_TYPE, _SHAPE, _CONTENT = 1, 2, 4
_DIM, _DIM_SIZE = 2, 1

_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_MOVING = {"Identity", "Cast", "Reshape", "Transpose", "ExpandDims", "Squeeze", "Pack", "StopGradient"}
_DENSE: dict[int, ParameterType] = {0: "fc.weight", 1: "fc.weight"}
_CONVOLUTION: dict[int, ParameterType] = {1: "conv.weight"}
_TABLE: dict[int, ParameterType] = {0: "fc.weight"}
_NORM: dict[int, ParameterType] = {1: "bn.gamma", 2: "bn.beta", 3: "bn.mean", 4: "bn.var"}
# What inputs are weights of, by operation; constants that anything else is computed from are exact.
_ROLES: Mapping[str, Mapping[int, ParameterType]] = {
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "_FusedMatMul", "Einsum"), _DENSE),
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), _CONVOLUTION),
    **dict.fromkeys(("_FusedConv2D", "_FusedDepthwiseConv2dNative"), _CONVOLUTION),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), _CONVOLUTION),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _NORM),
    **dict.fromkeys(("Gather", "GatherV2"), _TABLE),
    "BiasAdd": {1: "fc.bias"},
}


@dataclass(frozen=True, slots=True)
class _Constant:
    """Numbers of ``data_type``, which begin at byte ``offset``."""

    data_type: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    op: str
    inputs: list[str]
    function: str
    constant: _Constant | None


@dataclass(frozen=True, slots=True)
class _Scope:
    """A graph, or a function with its ``arguments``; ``uses`` has the nodes that take what is called so, and where."""

    prefix: str
    arguments: list[str]
    nodes: list[_Node]
    uses: Mapping[str, list[tuple[_Node, int]]]


def is_graph(content: Content) -> bool:
    """Whether the file looks like a GraphDef: nodes with names and operations."""
    data = content.raw().data
    try:
        first = next(protobuf.fields(data, 0, len(data)), None)
        if first is None or (first.number, first.wire_type) != (_NODES, protobuf.LENGTH_DELIMITED):
            return False
        node = Message(data, first.value, first.end)
        return bool(node.text(_NAME) and node.text(_OP)) and _ends_well(data)
    except protobuf.WireError:
        return False


def _ends_well(data: memoryview) -> bool:
    return all(field.number <= _VERSIONS + 1 for field in protobuf.fields(data, 0, len(data)))


def open_frozen(content: Content, limits: Limits) -> Opened:
    """Open a frozen graph; `ModelError` where it is damaged."""
    data = content.raw().data
    try:
        return Opened(FROZEN, {_FILE: content}, list(_variables(data, [(0, len(data))], _FILE, limits)))
    except protobuf.WireError as error:
        raise ModelError(f"the graph is damaged: {error}") from error


def of_saved_model(content: Content, path: str, limits: Limits) -> list[Variable]:
    """The constants in the graphs of a SavedModel's file ``path``; nothing where that is not such a message."""
    data = content.raw().data
    try:
        graphs = [
            (graph.value, graph.end)
            for meta in _messages(data, 0, len(data), _META_GRAPHS)
            for graph in _messages(data, meta.value, meta.end, _GRAPH_DEF)
        ]
        return list(_variables(data, graphs, path, limits))
    except protobuf.WireError:
        return []


def _messages(data: memoryview, start: int, end: int, number: int) -> Iterator[protobuf.Field]:
    for each in protobuf.fields(data, start, end):
        if each.number == number and each.wire_type == protobuf.LENGTH_DELIMITED:
            yield each


def _variables(data: memoryview, graphs: list[tuple[int, int]], path: str, limits: Limits) -> Iterator[Variable]:
    taken: Counter[str] = Counter()
    for start, end in graphs:
        scopes = {scope.prefix: scope for scope in _scopes(data, start, end)}
        for scope, node in ((each, node) for each in scopes.values() for node in each.nodes):
            if node.constant is None:
                continue
            limits.check("dimensions", len(node.constant.shape), f"constant {node.name!r}")
            roles = set(_roles(scope, node.name, scopes, set()))
            role = next(iter(roles)) if len(roles) == 1 else None
            exact = "" if roles and None not in roles else "constant that is computed with"
            span, dtype = Span(path, node.constant.offset), TYPES[node.constant.data_type][0]
            yield Variable(
                free(scope.prefix + node.name, taken), dtype, node.constant.shape, (span,), role, exact=exact
            )


def _scopes(data: memoryview, start: int, end: int) -> Iterator[_Scope]:
    """A graph, and each of its functions."""
    yield _scope("", [], [_node(data, each) for each in _messages(data, start, end, _NODES)])
    for library in _messages(data, start, end, _LIBRARY):
        for function in _messages(data, library.value, library.end, _FUNCTIONS):
            signature = next(Message(data, function.value, function.end).messages(_SIGNATURE), None)
            if signature is None:
                continue
            arguments = [argument.text(_NAME) for argument in signature.messages(_ARGUMENTS)]
            nodes = _messages(data, function.value, function.end, _FUNCTION_NODES)
            yield _scope(signature.text(_NAME) + "/", arguments, [_node(data, each) for each in nodes])


def _scope(prefix: str, arguments: list[str], nodes: list[_Node]) -> _Scope:
    uses: dict[str, list[tuple[_Node, int]]] = {}
    for node in nodes:
        for slot, text in enumerate(node.inputs):
            uses.setdefault(text.partition(":")[0], []).append((node, slot))
    return _Scope(prefix, arguments, nodes, uses)


def _node(data: memoryview, where: protobuf.Field) -> _Node:
    message = Message(data, where.value, where.end)
    inputs = [_text(data, each) for each in _messages(data, where.value, where.end, _INPUTS)]
    op = message.text(_OP)
    function = (
        "".join(_text(data, each) for each in _inside(data, where, "f", _FUNCTION, _NAME)) if op in _CALLS else ""
    )
    constant = (
        next(map(partial(_constant, data), _inside(data, where, "value", _TENSOR)), None) if op == "Const" else None
    )
    return _Node(message.text(_NAME), op, inputs, function, constant)


def _text(data: memoryview, where: protobuf.Field) -> str:
    return bytes(data[where.value : where.end]).decode("utf-8", "replace")


def _inside(data: memoryview, node: protobuf.Field, attribute: str, *numbers: int) -> Iterator[protobuf.Field]:
    """What is in the attribute of a node, at the end of a path of fields."""
    for each in _messages(data, node.value, node.end, _ATTRIBUTES):
        if Message(data, each.value, each.end).text(_KEY) == attribute:
            found = list(_messages(data, each.value, each.end, _VALUE))
            for number in numbers:
                found = [inner for outer in found for inner in _messages(data, outer.value, outer.end, number)]
            yield from found


def _constant(data: memoryview, where: protobuf.Field) -> _Constant | None:
    """The constant in a tensor whose values are there as they are in memory, and are enough."""
    message = Message(data, where.value, where.end)
    content = message.field(_CONTENT, protobuf.LENGTH_DELIMITED)
    data_type = message.number(_DATA_TYPE)
    if content is None or data_type not in TYPES:
        return None
    shape = tuple(dim.number(_DIM_SIZE) for each in message.messages(_SHAPE) for dim in each.messages(_DIM))
    elements = math.prod(shape)
    if elements < _LEAST or elements * TYPES[data_type][1] != content.end - content.value:
        return None
    return _Constant(data_type, shape, content.value)


def _roles(
    scope: _Scope, name: str, scopes: Mapping[str, _Scope], seen: set[tuple[str, str]]
) -> Iterator[ParameterType | None]:
    """What the values called ``name`` are used as; None for uses in which they must be exact."""
    if (scope.prefix, name) in seen:
        return
    seen.add((scope.prefix, name))
    for user, slot in scope.uses.get(name, []):
        function = scopes.get(user.function + "/")
        if user.op in _MOVING and slot == 0:
            yield from _roles(scope, user.name, scopes, seen)
        elif user.op in _CALLS and function is not None and slot < len(function.arguments):
            yield from _roles(function, function.arguments[slot], scopes, seen)
        else:
            yield _ROLES.get(user.op, {}).get(slot)
