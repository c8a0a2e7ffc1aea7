"""Where the values of an ONNX model go: from a tensor through copies and reshapes to the operations that use it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from onnx import AttributeProto, FunctionProto, NodeProto

from nnc_adapters.onnx.scopes import Scope

# Operations whose output is their first input in other words: same numbers, other order, shape or type.
_SAME_LAYOUT = frozenset({"Identity", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"})
_OTHER_LAYOUT = frozenset({"Transpose", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Slice", "Concat"})

# Uses that do not depend on the values.
_VALUELESS = frozenset({("Shape", 0), ("Size", 0), ("CastLike", 1)})

# Where the values of an operation begin among the inputs and the outputs of its graphs: those of a loop start with
# the iteration number and the condition, and with the condition.
_CONTROL_FLOW = {"If": (0, 0), "Loop": (2, 1), "Scan": (0, 0)}


class Value(NamedTuple):
    """A name, as it is defined in one scope."""

    scope: Scope
    name: str


@dataclass(eq=False, slots=True)
class Operation:
    """A node that computes something, in its scope; ``kind`` is its type, preceded by any domain but ONNX's own."""

    node: NodeProto
    scope: Scope

    @property
    def kind(self) -> str:
        """``Conv``, or ``com.example::Conv``."""
        domain = self.node.domain
        return self.node.op_type if domain in ("", "ai.onnx") else f"{domain}::{self.node.op_type}"

    def input(self, slot: int) -> Value | None:
        """The value at an input; None where nothing is connected."""
        names = self.node.input
        if slot >= len(names) or not names[slot]:
            return None
        return Value(self.scope.owner(names[slot]), names[slot])

    def attribute(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        return next((a.i for a in self.node.attribute if a.name == name and a.type == AttributeProto.INT), default)


@dataclass(frozen=True, slots=True)
class Use:
    """An operation that a tensor reaches at input ``slot``.

    ``plain`` means that on the way there nothing but transposes of matrices changed its layout, ``transposed`` that
    their number is odd.
    """

    operation: Operation
    slot: int
    plain: bool = True
    transposed: bool = False


class _Edge(NamedTuple):
    target: Value
    plain: bool
    transposes: bool


@dataclass(eq=False)
class Dataflow:
    """The uses of every value, and the operation that makes it."""

    scopes: Sequence[Scope]
    producers: dict[Value, Operation] = field(default_factory=dict)
    results: set[Value] = field(default_factory=set)
    _uses: defaultdict[Value, list[Use]] = field(default_factory=lambda: defaultdict(list))
    _edges: defaultdict[Value, list[_Edge]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        protos = ((scope.proto, scope) for scope in self.scopes)
        functions = {(p.domain, p.name, p.overload): s for p, s in protos if isinstance(p, FunctionProto)}
        for scope in self.scopes:
            self.results.update(Value(scope.owner(name), name) for name in scope.outputs)
            for index, node in enumerate(scope.proto.node):
                operation = Operation(node, scope)
                self.producers.update((Value(scope, name), operation) for name in node.output)
                function = functions.get((node.domain, node.op_type, node.overload))
                if function is not None:
                    self._enter(operation, function, 0, 0)
                else:
                    self._connect(operation, scope.bodies.get(index, []))

    def uses(self, value: Value) -> list[Use]:
        """Every use that ``value`` reaches, those that depend on its shape only excepted."""
        found: list[Use] = []
        seen = {value}
        pending = [(value, True, False)]
        while pending:
            current, plain, transposed = pending.pop()
            found += (
                Use(use.operation, use.slot, plain and use.plain, transposed ^ use.transposed)
                for use in self._uses.get(current, ())
            )
            for target, same, transposes in self._edges.get(current, ()):
                if target not in seen:
                    seen.add(target)
                    pending.append((target, plain and same, transposed ^ transposes))
        return found

    def only_use(self, value: Value) -> Use | None:
        """The use of a value that goes to one operation and nowhere else, without any step between."""
        uses = self._uses.get(value, [])
        if len(uses) != 1 or self._edges.get(value) or value in self.results:
            return None
        return uses[0]

    def _connect(self, operation: Operation, bodies: list[Scope]) -> None:
        kind = operation.kind
        for body in bodies if kind in _CONTROL_FLOW else ():
            self._enter(operation, body, *_CONTROL_FLOW[kind])
        for slot in range(len(operation.node.input)):
            value = operation.input(slot)
            if value is None or (kind, slot) in _VALUELESS:
                continue
            if _passes(kind, slot) and len(operation.node.output) == 1:
                self._edges[value].append(_edge(operation))
            elif kind not in _CONTROL_FLOW:
                self._uses[value].append(Use(operation, slot))

    def _enter(self, operation: Operation, body: Scope, first_input: int, first_output: int) -> None:
        """Join the inputs and outputs of an operation with those of the graph or function that it runs."""
        for slot, name in enumerate(body.inputs):
            value = operation.input(slot) if slot >= first_input else None
            if value is not None:
                self._edges[value].append(_Edge(Value(body, name), True, False))
        for name, result in zip(body.outputs[first_output:], operation.node.output, strict=False):
            self._edges[Value(body.owner(name), name)].append(_Edge(Value(operation.scope, result), True, False))


def _passes(kind: str, slot: int) -> bool:
    return kind == "Concat" or (slot == 0 and kind in _SAME_LAYOUT | _OTHER_LAYOUT)


def _edge(operation: Operation) -> _Edge:
    target = Value(operation.scope, operation.node.output[0])
    swaps = operation.kind == "Transpose" and _permutation(operation.node) in ([], [1, 0])
    return _Edge(target, swaps or operation.kind in _SAME_LAYOUT, swaps)


def _permutation(node: NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
