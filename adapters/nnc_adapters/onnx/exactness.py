"""Which floating-point tensors of an ONNX model must come back unchanged, from where their values go, and why.

A small relative error of a weight is a small error of the result. That is not so for scales of quantized numbers, which
multiply a whole layer; for what divides, as a value near zero can become zero; for phases, which grow with the position
before they reach a sine; and for what is rounded, as a step in between changes the result by one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx import TensorProto

from nnc_adapters.onnx import values
from nnc_adapters.onnx.dataflow import Dataflow, Operation, Value
from nnc_adapters.onnx.scopes import Site

_ALL, _REST = range(1 << 10), range(1, 1 << 10)
_Slots = range | tuple[int, ...]

# Inputs that are arguments of an operation, not weights: a small change of value can change what it does.
_ARGUMENTS: dict[str, _Slots] = {
    **dict.fromkeys(("Resize", "Upsample", "Clip", "Pad", "TopK", "Tile", "Pow", "NonMaxSuppression"), _REST),
    **dict.fromkeys(
        ("Gather", "GatherElements", "GatherND", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Slice"), _REST
    ),
    **dict.fromkeys(("Range", "OneHot", "ConstantOfShape", "Mod"), _ALL),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _ALL),
    "LSTM": (5, 6),
    "GRU": (5,),
    "RNN": (5,),
}
_SENSITIVE: dict[str, _Slots] = {
    **dict.fromkeys(("Sin", "Cos", "Tan", "Log", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Sign"), (0,)),
    "Div": (1,),
}
# Operations of any domain all of whose numbers with a fraction are scales; the first input of some is what they scale.
_QUANTIZED = re.compile(r"Q[A-Z]|(DynamicQuantize|MatMulInteger|ConvInteger|MatMulNBits|MatMulBnb4|GatherBlockQ)")
_QUANTIZING = re.compile(r"(Deq|Q)uantize|DynamicQuantizeLinear")

_MOVES = frozenset(
    {
        *("Identity", "Cast", "CastLike", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Slice", "Flatten"),
        *("Tile", "Pad", "Split", "Dropout", "Gather", "GatherElements", "GatherND", "Compress"),
    }
)
_SCALINGS: dict[str, _Slots] = {"Mul": _ALL, "Div": (0,), "Neg": (0,), "Abs": (0,)}
_ARITHMETIC: dict[str, _Slots] = {
    **dict.fromkeys(("Add", "Sub", "Sum", "Min", "Max", "Mean"), _ALL),
    **dict.fromkeys(("Clip", "Pow", "Relu", "LeakyRelu", "Exp", "Softplus"), (0,)),
    "Where": (1, 2),
    "Gemm": (2,),
}
_PRODUCTS: dict[str, _Slots] = {"MatMul": _ALL, "Einsum": _ALL, "Gemm": (0, 1)}
_MEETINGS = ("Mul", "Div", "Add", "Sub")
_INTEGER_PRODUCTS = ("MatMulInteger", "ConvInteger")
_CONTROL_FLOW = ("If", "Loop", "Scan")

_WHOLE_NUMBERS = values.INTEGERS | {TensorProto.UINT64, TensorProto.BOOL}
_FLOAT8 = (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ)
_QUANTIZED_TYPES = (values.INTEGERS - {TensorProto.INT64}) | {
    *(TensorProto.INT4, TensorProto.UINT4, TensorProto.DataType.Value("FLOAT4E2M1"), *_FLOAT8),
}
# From this size on integers are quantized numbers rather than arguments.
_FEWEST_QUANTIZED = 16
# A tensor with at most so many rows or columns of its longest side is a vector, or some beside each other.
_THIN = 4


def is_argument(sites: Iterable[Site], flow: Dataflow) -> bool:
    """Whether any operation takes a tensor in one of these places as an argument rather than as weights."""
    uses = (use for site in sites for use in flow.uses(Value(site.scope, site.name)))
    return any(use.slot in _ARGUMENTS.get(use.operation.kind, ()) for use in uses)


@dataclass(frozen=True)
class Exactness:
    """What is known of the values of a model; ``sites`` are all its tensors, ``folder`` is where they may lie."""

    flow: Dataflow
    sites: Sequence[Site]
    folder: values.Folder

    def reason(self, sites: Iterable[Site]) -> str | None:
        """Why a tensor in these places must be exact, in a few words; None where it may change, or has no fraction."""
        reasons = (self._reason_of(site) for site in sites if site.tensor.data_type in values.FLOATS)
        return next((reason for reason in reasons if reason is not None), None)

    def _reason_of(self, site: Site) -> str | None:
        value = Value(site.scope, site.name)
        if _is_thin(site.tensor):
            return self._reaching.get(value) or self._factors.get(value)
        return self._closely.get(value)

    @cached_property
    def _reaching(self) -> dict[Value, str]:
        """Values that reach a sensitive input by any arithmetic."""
        return self._back(self._starts, lambda operation, slot: _moves(operation, slot) or _computes(operation, slot))

    @cached_property
    def _closely(self) -> dict[Value, str]:
        """Those that reach it as they are, but for a factor or what is computed from constants."""
        return self._back(self._starts, self._keeps)

    @cached_property
    def _factors(self) -> dict[Value, str]:
        """Those of which a product, such as the outer one of frequencies and positions, reaches it."""
        starts: dict[Value, str] = {}
        for operation in self.flow.operations:
            reasons = (self._reaching[result] for result in _outputs(operation) if result in self._reaching)
            for reason in reasons if operation.kind in _PRODUCTS else ():
                starts |= dict.fromkeys(_inputs(operation, _PRODUCTS[operation.kind]), reason)
        return self._back(starts, self._keeps)

    def _keeps(self, operation: Operation, slot: int) -> bool:
        constant = operation.result in self._constants
        return (
            _moves(operation, slot)
            or slot in _SCALINGS.get(operation.kind, ())
            or (constant and _computes(operation, slot))
        )

    def _back(self, starts: dict[Value, str], follows: Callable[[Operation, int], bool]) -> dict[Value, str]:
        """The values that lead to ``starts`` through operations that ``follows`` allows, with the reason there."""
        found = dict(starts)
        pending = list(starts)
        while pending:
            value = pending.pop()
            operation = self.flow.producers.get(value)
            before = self._origins.get(value, [])
            if operation is not None:
                slots = [slot for slot in range(len(operation.node.input)) if follows(operation, slot)]
                before = [*before, *_inputs(operation, slots)]
            for origin in before:
                if origin not in found:
                    found[origin] = found[value]
                    pending.append(origin)
        return found

    @cached_property
    def _origins(self) -> dict[Value, list[Value]]:
        found: defaultdict[Value, list[Value]] = defaultdict(list)
        for outer, inner in self.flow.crossings.items():
            for value in inner:
                found[value].append(outer)
        return found

    @cached_property
    def _starts(self) -> dict[Value, str]:
        """The values at sensitive inputs, and why these are."""
        found: dict[Value, str] = {}
        for operation in self.flow.operations:
            for slot in range(len(operation.node.input)):
                value = operation.input(slot)
                reason = self._demand(operation, slot)
                if value is not None and reason is not None:
                    found.setdefault(value, reason)
        return found

    def _demand(self, operation: Operation, slot: int) -> str | None:
        name = operation.node.op_type
        if self._is_scale(operation, slot):
            return f"quantization scale or zero point of {name}"
        if slot in _SENSITIVE.get(operation.kind, ()) or self._is_root(operation, slot):
            return f"divisor in {name}" if name in ("Div", "Reciprocal") else f"reaches {name}"
        if operation.kind == "Cast" and operation.attribute("to") in _WHOLE_NUMBERS:
            return "cast to whole numbers"
        if self._is_centre(operation, slot):
            return "subtracted before a division"
        return f"argument of {name}" if slot in _ARGUMENTS.get(operation.kind, ()) else None

    def _is_scale(self, operation: Operation, slot: int) -> bool:
        name = operation.node.op_type
        if operation.kind in _MEETINGS:
            return any(value in self._integers for value in _inputs(operation, (1 - slot,)))
        if operation.input(slot) not in self._constants:
            return False
        if _QUANTIZING.match(name):
            return slot > 0
        return bool(_QUANTIZED.match(name)) or ("::" in operation.kind and self._scales_integers(operation, slot))

    def _scales_integers(self, operation: Operation, slot: int) -> bool:
        """Whether an unknown operation takes more quantized numbers, as constants, than there are at ``slot``."""
        most = max((self._quantized.get(value, 0) for value in _inputs(operation, _ALL)), default=0)
        return most > 0 and all(self._sizes.get(value, 0) <= most for value in _inputs(operation, (slot,)))

    def _is_root(self, operation: Operation, slot: int) -> bool:
        """Whether it is a power with an exponent below 1, such as a root, or a division in other words."""
        exponents = _inputs(operation, (1,)) if operation.kind == "Pow" and slot == 0 else ()
        tensors = (self._named[value].tensor for value in exponents if value in self._named)
        floats = (tensor for tensor in tensors if tensor.data_type in values.FLOATS)
        return any(bool((values.load(tensor, self.folder) < 1).any()) for tensor in floats)

    def _is_centre(self, operation: Operation, slot: int) -> bool:
        """Whether it is taken off what a vector then divides, and could be small and the divisor as well."""
        if operation.kind != "Sub" or slot != 1 or operation.result is None:
            return False
        after = (use for use in self.flow.consumers.get(operation.result, ()) if use.operation.kind in ("Mul", "Div"))
        scales = (value for use in after for value in _inputs(use.operation, (1 - use.slot,)))
        return any(value in self._constants and self._sizes.get(value, 2) > 1 for value in scales)

    @cached_property
    def _named(self) -> dict[Value, Site]:
        return {Value(site.scope, site.name): site for site in self.sites if site.name}

    @cached_property
    def _sizes(self) -> dict[Value, int]:
        return {value: values.count(site.tensor) for value, site in self._named.items()}

    @cached_property
    def _quantized(self) -> dict[Value, int]:
        """The sizes of tensors of quantized numbers."""
        named = self._named.items()
        sizes = {value: self._sizes[value] for value, site in named if site.tensor.data_type in _QUANTIZED_TYPES}
        return {value: size for value, size in sizes.items() if size >= _FEWEST_QUANTIZED}

    @cached_property
    def _constants(self) -> set[Value]:
        """Tensors, and what is computed from nothing else."""

        def computes(operation: Operation, found: set[Value]) -> bool:
            inputs = list(_inputs(operation, _ALL))
            return bool(inputs) and operation.kind not in _CONTROL_FLOW and all(value in found for value in inputs)

        return self._forward(self._named, computes)

    @cached_property
    def _integers(self) -> set[Value]:
        """Quantized numbers, as integers or as floats that have not been scaled yet."""

        def keeps(operation: Operation, found: set[Value]) -> bool:
            if operation.kind in _MEETINGS:
                shifts = operation.kind in ("Add", "Sub") or operation.result in self._constants
                return shifts and any(value in found for value in _inputs(operation, _ALL))
            moved = operation.kind in _MOVES and any(value in found for value in _inputs(operation, (0,)))
            return moved or operation.kind in _INTEGER_PRODUCTS

        return self._forward(self._quantized, keeps)

    def _forward(self, starts: Iterable[Value], keeps: Callable[[Operation, set[Value]], bool]) -> set[Value]:
        """``starts``, and the results of operations that ``keeps`` allows for what is found so far."""
        found: set[Value] = set()

        def add(some: Iterable[Value]) -> None:
            pending = list(some)
            while pending:
                value = pending.pop()
                if value not in found:
                    found.add(value)
                    pending += self.flow.crossings.get(value, ())

        add(starts)
        for operation in self.flow.operations:
            if keeps(operation, found):
                add(_outputs(operation))
        return found


def _is_thin(tensor: TensorProto) -> bool:
    return values.count(tensor) <= _THIN * max(tensor.dims, default=1)


def _moves(operation: Operation, slot: int) -> bool:
    return operation.kind == "Concat" or (slot == 0 and operation.kind in _MOVES)


def _computes(operation: Operation, slot: int) -> bool:
    kind = operation.kind
    return slot in _SCALINGS.get(kind, ()) or slot in _ARITHMETIC.get(kind, ())


def _inputs(operation: Operation, slots: Iterable[int]) -> Iterator[Value]:
    for slot in range(len(operation.node.input)):
        value = operation.input(slot) if slot in slots else None
        if value is not None:
            yield value


def _outputs(operation: Operation) -> Iterator[Value]:
    return (Value(operation.scope, name) for name in operation.node.output if name)
