"""What the variables of an NNEF graph are for, and which must be exact, from the operations that use them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from nnc_adapters.nnef.syntax import Operation, Text, Value, parsed
from nnc_adapters.shared.sensitivity import ROOT, TO_WHOLE, Constant, Sensitivity, Step
from nnc_core.nnr_model import ParameterType

__all__ = ["Graph"]

_Role = tuple[str, str]  # an operation, and one of its parameters

_ROLES: dict[_Role, ParameterType] = {
    **{(name, "filter"): "conv.weight" for name in ("conv", "deconv")},
    **{(name, "bias"): "conv.bias" for name in ("conv", "deconv", "separable_conv", "separable_deconv")},
    **{(name, "plane_filter"): "conv.weight" for name in ("separable_conv", "separable_deconv")},
    **{(name, "point_filter"): "conv.weight" for name in ("separable_conv", "separable_deconv")},
    ("linear", "filter"): "fc.weight",
    ("linear", "bias"): "fc.bias",
    ("matmul", "A"): "fc.weight",
    ("matmul", "B"): "fc.weight",
    # an embedding: a matrix product with a one-hot vector
    **{(name, "input"): "fc.weight" for name in ("gather", "tract_core_gather")},
    ("batch_normalization", "mean"): "bn.mean",
    ("batch_normalization", "variance"): "bn.var",
    ("batch_normalization", "offset"): "bn.beta",
    ("batch_normalization", "scale"): "bn.gamma",
}
# Operations on each number: a table that is added or multiplied may be anything, such as the places of anchors.
_ELEMENTWISE: Final = frozenset(
    {
        *("add", "sub", "mul", "div", "min", "max", "pow", "lt", "gt", "le", "ge", "eq", "ne", "select", "clamp"),
        *("neg", "abs", "sin", "cos", "floor", "ceil", "round", "sqrt", "rcp", "exp", "log", "update", "prelu"),
    }
)
_PASSING: Final = {
    **dict.fromkeys(("transpose", "reshape", "squeeze", "unsqueeze", "tract_core_cast"), "input"),
    "copy": "x",
}

_X, _XY, _INPUT = ("x",), ("x", "y"), ("input",)
# The operations of NNEF and of a widely used extension as those of ONNX: kind, and what its inputs are called.
_KINDS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    **{name: (name.capitalize(), _X) for name in ("neg", "abs", "exp", "log", "sqrt", "sin", "cos", "tan")},
    **{name: (name.capitalize(), _X) for name in ("floor", "ceil", "round", "sign", "relu", "softplus")},
    **{name: (name.capitalize(), _XY) for name in ("add", "sub", "mul", "div", "min", "max", "pow")},
    **dict.fromkeys(("lt", "gt", "le", "ge", "eq", "ne"), ("Less", _XY)),
    **dict.fromkeys(("rcp", "rsqrt", "rsqr"), ("Reciprocal", _X)),
    **{
        name: (name.capitalize(), _INPUT)
        for name in ("transpose", "reshape", "squeeze", "unsqueeze", "slice", "pad", "tile")
    },
    "log2": ("Log", _X),
    "sqr": ("Pow", _X),
    "copy": ("Identity", _X),
    "leaky_relu": ("LeakyRelu", _X),
    "clamp": ("Clip", ("x", "a", "b")),
    "select": ("Where", ("condition", "true_value", "false_value")),
    "split": ("Split", ("value",)),
    "unstack": ("Split", ("value",)),
    "concat": ("Concat", ("values",)),
    "stack": ("Concat", ("values",)),
    "gather": ("Gather", ("input", "indices")),
    "matmul": ("MatMul", ("A", "B")),
    "linear": ("Gemm", ("input", "filter", "bias")),
    "conv": ("Conv", ("input", "filter", "bias")),
    "update": ("nnef::update", ("variable", "value")),
    "linear_quantize": ("QuantizeLinear", ("x", "min", "max")),
    "min_max_linear_quantize": ("QuantizeLinear", ("x", "min", "max")),
    "zero_point_linear_quantize": ("QuantizeLinear", ("x", "zero_point", "scale")),
    "logarithmic_quantize": ("QuantizeLinear", ("x", "max")),
    "tract_core_gather": ("Gather", ("input", "indices")),
    "tract_core_cast": ("Cast", _INPUT),
    "tract_core_round_even": ("Round", _INPUT),
    "tract_core_broadcast": ("Expand", _INPUT),
    "tract_core_einsum": ("Einsum", ("inputs",)),
}
_WHOLE: Final = ("i", "u", "bool")


@dataclass(frozen=True)
class Graph:
    """What can be understood of a graph; ``shapes`` are those of its variables by label."""

    text: Text
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
        """The graph in the bytes of graph.nnef."""
        return cls(parsed(data), shapes)

    @cached_property
    def roles(self) -> dict[str, ParameterType]:
        """The roles of variables that have one and the same wherever they are used, by label."""
        found = {label: self._role(values) for label, values in self._values.items()}
        return {label: role for label, role in found.items() if role is not None}

    def reasons(self, quantized: frozenset[str]) -> dict[str, str]:
        """Why variables must be exact, by label; those that are ``quantized`` are integers."""
        labels = {value: label for label, values in self._values.items() for value in values}
        constants = {value: Constant(self.shapes[label], label in quantized) for value, label in labels.items()}
        found = Sensitivity(list(map(_step, self.text.operations)), constants, self._crossings)
        meant = {labels[value]: found.reason(value) for value in constants}
        return {label: reason for label, reason in meant.items() if reason is not None}

    @cached_property
    def _values(self) -> dict[str, list[Value]]:
        """What the variables are called, by label."""
        found: defaultdict[str, list[Value]] = defaultdict(list)
        for operation in self.text.operations:
            label = operation.arguments.get("label")
            if operation.name == "variable" and isinstance(label, str) and label in self.shapes:
                found[label] += operation.results
        return found

    @cached_property
    def _crossings(self) -> dict[Value, list[Value]]:
        """From the arguments of fragments to their parameters, and from their results to those of the call."""
        found: defaultdict[Value, list[Value]] = defaultdict(list)
        for operation in self.text.operations:
            for value, parameter in self._entered(operation):
                found[value].append(parameter)
            fragment = self.text.fragments.get(operation.name)
            for name, result in zip(fragment.results if fragment else (), operation.results, strict=False):
                found[Value(operation.name, name)].append(result)
        return found

    def _entered(self, operation: Operation) -> Iterator[tuple[Value, Value]]:
        """The values that become parameters: of a fragment that is called, or named as the body of a loop."""
        for slot, argument in operation.arguments.items():
            if operation.name in self.text.fragments:
                yield from ((value, Value(operation.name, slot)) for value in _flat(argument))
        body = operation.arguments.get("body")
        if isinstance(body, str) and body in self.text.fragments:
            pairs = (pair for argument in operation.arguments.values() for pair in _pairs(argument))
            yield from ((value, Value(body, name)) for name, value in pairs)

    @cached_property
    def _consumers(self) -> dict[Value, list[tuple[Operation, str]]]:
        found: defaultdict[Value, list[tuple[Operation, str]]] = defaultdict(list)
        for operation in self.text.operations:
            for slot, argument in operation.arguments.items():
                for value in _flat(argument):
                    found[value].append((operation, slot))
        return found

    def _role(self, values: list[Value]) -> ParameterType | None:
        uses = set(self._uses(values))
        roles = {_ROLES.get(use) for use in uses}
        if roles == {None}:
            # of an operation that is not known, nothing is known
            return "unspecified" if all(name in _ELEMENTWISE for name, _ in uses) else None
        return roles.pop() if len(roles) == 1 else None

    def _uses(self, values: list[Value]) -> Iterator[_Role]:
        """The operations and parameters that values reach as they are, or in another shape."""
        seen, pending = set(values), list(values)
        while pending:
            value = pending.pop()
            following = list(self._crossings.get(value, ()))
            for operation, slot in self._consumers.get(value, ()):
                if _PASSING.get(operation.name) == slot:
                    following += operation.results
                elif operation.name not in self.text.fragments and "body" not in operation.arguments:
                    yield operation.name, slot
            pending += (value for value in following if value not in seen)
            seen.update(following)


def _flat(argument: object) -> Iterator[Value]:
    """The values in an argument."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from _flat(item)


def _pairs(argument: object) -> Iterator[tuple[str, Value]]:
    """The values in an argument that stand behind a name, as in ``[("state", h), ("weight", w)]``."""
    if isinstance(argument, tuple) and not isinstance(argument, Value):
        if len(argument) > 1 and isinstance(argument[0], str) and isinstance(argument[1], Value):
            yield argument[0], argument[1]
        for item in argument:
            yield from _pairs(item)


def _step(operation: Operation) -> Step:
    kind, slots = _KINDS.get(operation.name, (f"nnef::{operation.name}", tuple(operation.arguments)))
    several = (tuple(_flat(operation.arguments.get(slot))) for slot in slots)
    inputs = tuple(value for values in several for value in values or (None,))
    return Step(_kind(kind, operation.arguments), operation.name, inputs, operation.results)


def _kind(kind: str, arguments: Mapping[str, object]) -> str:
    exponent, target = arguments.get("y"), arguments.get("to")
    if kind == "Pow" and isinstance(exponent, float) and exponent < 1:
        return ROOT
    return TO_WHOLE if kind == "Cast" and isinstance(target, str) and target.lower().startswith(_WHOLE) else kind
