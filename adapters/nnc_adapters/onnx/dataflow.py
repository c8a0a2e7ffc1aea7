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

    @property
    def result(self) -> Value | None:
        """The output; None where there is not exactly one."""
        outputs = self.node.output
        return Value(self.scope, outputs[0]) if len(outputs) == 1 else None

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


@dataclass(eq=False)
class Dataflow:
    """The operations of a model in order, which of them consume each value at which input, and which one makes it.

    ``crossings`` are the values inside a graph or function that are the same as one outside, and the other way round.
    """

    scopes: Sequence[Scope]
    operations: list[Operation] = field(default_factory=list)
    producers: dict[Value, Operation] = field(default_factory=dict)
    results: set[Value] = field(default_factory=set)
    consumers: defaultdict[Value, list[Use]] = field(default_factory=lambda: defaultdict(list))
    crossings: defaultdict[Value, list[Value]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        protos = ((scope.proto, scope) for scope in self.scopes)
        functions = {(p.domain, p.name, p.overload): s for p, s in protos if isinstance(p, FunctionProto)}
        for scope in self.scopes:
            self.results.update(Value(scope.owner(name), name) for name in scope.outputs)
            for index, node in enumerate(scope.proto.node):
                operation = Operation(node, scope)
                self.operations.append(operation)
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

        def go_on(target: Value, plain: bool, transposed: bool) -> None:
            if target not in seen:
                seen.add(target)
                pending.append((target, plain, transposed))

        while pending:
            current, plain, transposed = pending.pop()
            for inner in self.crossings.get(current, ()):
                go_on(inner, plain, transposed)
            for use in self.consumers.get(current, ()):
                operation = use.operation
                target = operation.result if _passes(operation.kind, use.slot) else None
                if target is None:
                    found.append(Use(operation, use.slot, plain, transposed))
                else:
                    swaps = _swaps(operation)
                    go_on(target, plain and (swaps or operation.kind in _SAME_LAYOUT), transposed ^ swaps)
        return found

    def only_use(self, value: Value) -> Use | None:
        """The use of a value that goes to one operation and nowhere else, without any step between."""
        consumers = self.consumers.get(value, [])
        if len(consumers) != 1 or self.crossings.get(value) or value in self.results:
            return None
        use = consumers[0]
        passed_on = _passes(use.operation.kind, use.slot) and use.operation.result is not None
        return None if passed_on else use

    def _connect(self, operation: Operation, bodies: list[Scope]) -> None:
        kind = operation.kind
        if kind in _CONTROL_FLOW:
            for body in bodies:
                self._enter(operation, body, *_CONTROL_FLOW[kind])
            return
        for slot in range(len(operation.node.input)):
            value = operation.input(slot)
            if value is not None and (kind, slot) not in _VALUELESS:
                self.consumers[value].append(Use(operation, slot))

    def _enter(self, operation: Operation, body: Scope, first_input: int, first_output: int) -> None:
        """Join the inputs and outputs of an operation with those of the graph or function that it runs."""
        for slot, name in enumerate(body.inputs):
            value = operation.input(slot) if slot >= first_input else None
            if value is not None:
                self.crossings[value].append(Value(body, name))
        for name, result in zip(body.outputs[first_output:], operation.node.output, strict=False):
            self.crossings[Value(body.owner(name), name)].append(Value(operation.scope, result))


def _passes(kind: str, slot: int) -> bool:
    return kind == "Concat" or (slot == 0 and kind in _SAME_LAYOUT | _OTHER_LAYOUT)


def _swaps(operation: Operation) -> bool:
    """Whether it transposes a matrix."""
    return operation.kind == "Transpose" and _permutation(operation.node) in ([], [1, 0])


def _permutation(node: NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
