"""The graphs of an ONNX model, inside each other, and the tensors that lie in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from nnc_core.limits import Limits


@dataclass(eq=False)
class Scope:
    """A graph or function: the names it defines, and the graphs in the attributes of its nodes.

    ``bodies`` has the graphs of the node at each index, in the order of the attributes; ``carried`` is false where
    tensors are not weights (training information).
    """

    path: str
    proto: GraphProto | FunctionProto
    parent: Scope | None = None
    carried: bool = True
    defined: set[str] = field(default_factory=set)
    bodies: dict[int, list[Scope]] = field(default_factory=dict)

    @property
    def inputs(self) -> Sequence[str]:
        """The names of the formal inputs."""
        if isinstance(self.proto, FunctionProto):
            return list(self.proto.input)
        return [value.name for value in self.proto.input]

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the formal outputs."""
        if isinstance(self.proto, FunctionProto):
            return list(self.proto.output)
        return [value.name for value in self.proto.output]

    def owner(self, name: str) -> Scope:
        """The scope that defines ``name`` as it is seen from here."""
        scope = self
        while name not in scope.defined and scope.parent is not None:
            scope = scope.parent
        return scope


@dataclass(eq=False)
class Site:
    """A place of a tensor: ``name`` is what nodes call it, empty where no node can; ``scope`` is where it lies."""

    tensor: TensorProto
    scope: Scope
    name: str = ""


def scopes(model: ModelProto, limits: Limits) -> list[Scope]:
    """Every graph and function of a model, each before the graphs inside it; `LimitError` past ``limits.nesting``."""
    found: list[Scope] = []
    _collect(Scope("", model.graph), found, limits, 0)
    for function in model.functions:
        name = ":".join(filter(None, (function.domain, function.name, function.overload)))
        _collect(Scope(name, function), found, limits, 0)
    for index, training in enumerate(model.training_info):
        for part in ("initialization", "algorithm"):
            graph = getattr(training, part)
            _collect(Scope(f"training_info[{index}].{part}", graph, found[0], False), found, limits, 0)
    return found


def _collect(scope: Scope, found: list[Scope], limits: Limits, depth: int) -> None:
    limits.check("nesting", depth, f"graph {scope.path!r}")
    found.append(scope)
    scope.defined.update(scope.inputs)
    if isinstance(scope.proto, GraphProto):
        scope.defined.update(t.name for t in scope.proto.initializer)
        scope.defined.update(s.values.name for s in scope.proto.sparse_initializer)
    for node in scope.proto.node:
        scope.defined.update(node.output)
    for index, node in enumerate(scope.proto.node):
        for path, graph in _bodies(node, index):
            body = Scope(f"{scope.path}/{path}" if scope.path else path, graph, scope, scope.carried)
            scope.bodies.setdefault(index, []).append(body)
            _collect(body, found, limits, depth + 1)


def _bodies(node: NodeProto, index: int) -> Iterator[tuple[str, GraphProto]]:
    for attribute in node.attribute:
        path = f"{node.name or index}.{attribute.name}"
        if attribute.HasField("g"):
            yield path, attribute.g
        for number, graph in enumerate(attribute.graphs):
            yield f"{path}[{number}]", graph


def sites(scope: Scope) -> Iterator[Site]:
    """Every tensor of a scope, graphs inside it excluded, in the order of the model."""
    if isinstance(scope.proto, GraphProto):
        for tensor in scope.proto.initializer:
            yield Site(tensor, scope, tensor.name)
        for sparse in scope.proto.sparse_initializer:
            yield from _sparse(sparse, scope, sparse.values.name)
    else:
        for attribute in scope.proto.attribute_proto:
            yield from _attribute(attribute, scope, "")
    for node in scope.proto.node:
        constant = node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.output) == 1
        for attribute in node.attribute:
            yield from _attribute(attribute, scope, node.output[0] if constant else "")


def _attribute(attribute: AttributeProto, scope: Scope, name: str) -> Iterator[Site]:
    if attribute.HasField("t"):
        yield Site(attribute.t, scope, name)
    if attribute.HasField("sparse_tensor"):
        yield from _sparse(attribute.sparse_tensor, scope, name)
    for tensor in attribute.tensors:
        yield Site(tensor, scope)
    for sparse in attribute.sparse_tensors:
        yield from _sparse(sparse, scope, "")


def _sparse(sparse: SparseTensorProto, scope: Scope, name: str) -> Iterator[Site]:
    yield Site(sparse.values, scope, name)
    yield Site(sparse.indices, scope)
