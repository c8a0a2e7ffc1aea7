"""Which floating-point tensors of a network must come back unchanged, from where their values go, and why.

A small relative error of a weight is a small error of the result. That is not so for scales of quantized numbers, which
multiply a whole layer; for what divides, as a value near zero can become zero; for phases, which grow with the position
before they reach a sine; and for what is rounded, as a step in between changes the result by one.

Operations have the names and the inputs of ONNX here, whatever the format of the model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Final

__all__ = ["ROOT", "TO_WHOLE", "Constant", "Sensitivity", "Step", "is_argument"]

ROOT: Final = "root"
"""The kind of a power with an exponent below 1: a root, or a division in other words."""

TO_WHOLE: Final = "cast to whole numbers"
"""The kind of a cast to integers or truth values."""

Value = Hashable

_ALL, _REST = range(1 << 20), range(1, 1 << 20)
_Slots = range | tuple[int, ...]

# Inputs that are arguments of an operation, not weights: a small change of value can change what it does.
_ARGUMENTS: dict[str, _Slots] = {
    **dict.fromkeys(("Resize", "Upsample", "Clip", "Pad", "TopK", "Tile", "Pow", ROOT, "NonMaxSuppression"), _REST),
    **dict.fromkeys(
        ("Gather", "GatherElements", "GatherND", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Slice"), _REST
    ),
    **dict.fromkeys(("Range", "OneHot", "ConstantOfShape", "Mod"), _ALL),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _ALL),
    "LSTM": (5, 6),
    "GRU": (5,),
    "RNN": (5,),
    "nnef::update": _ALL,
}
_SENSITIVE: dict[str, _Slots] = {
    **dict.fromkeys(("Sin", "Cos", "Tan", "Log", "Sqrt", "Reciprocal", ROOT), (0,)),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Sign", TO_WHOLE), (0,)),
    "Div": (1,),
    # cosines and sines of angles by position, which other models compute from frequencies
    "RotaryEmbedding": (1, 2),
    "com.microsoft::RotaryEmbedding": (2, 3),
    "com.microsoft::GroupQueryAttention": (7, 8),
    "com.microsoft::SparseAttention": (9, 10),
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
    **dict.fromkeys(("Clip", "Pow", ROOT, "Relu", "LeakyRelu", "Exp", "Softplus"), (0,)),
    "Where": (1, 2),
    "Gemm": (2,),
}
_PRODUCTS: dict[str, _Slots] = {"MatMul": _ALL, "Einsum": _ALL, "Gemm": (0, 1)}
_MEETINGS = ("Mul", "Div", "Add", "Sub")
_INTEGER_PRODUCTS = ("MatMulInteger", "ConvInteger")
_UNPACKING = ("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod", "Concat")
_CONTROL_FLOW = ("If", "Loop", "Scan")

# From this size on integers are quantized numbers rather than arguments.
_FEWEST_QUANTIZED = 16
# A tensor with at most so many rows or columns of its longest side is a vector, or some beside each other.
_THIN = 4
# So many sums and the like between a value and where it matters: further away, much else has been added.
_MOST_SUMS = 2


@dataclass(frozen=True, slots=True)
class Step:
    """An operation: ``kind`` as in ONNX, or with ``::`` in it for one that ONNX does not have; a missing input is None.

    ``name`` is what the model calls it.
    """

    kind: str
    name: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]

    def at(self, slots: Collection[int]) -> Iterator[Value]:
        """The values at some of the inputs."""
        return (value for slot, value in enumerate(self.inputs) if slot in slots and value is not None)


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor of the model; ``quantized`` are integers or float8, but not indices."""

    shape: tuple[int, ...]
    quantized: bool = False

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


def is_argument(kind: str, slot: int) -> bool:
    """Whether an operation takes this input as an argument rather than as weights."""
    return slot in _ARGUMENTS.get(kind, ())


@dataclass(frozen=True)
class Sensitivity:
    """What is known of the values of a model.

    ``steps`` are in an order in which they can be computed; ``constants`` are all tensors; ``crossings`` lead from a
    value to those that it is called inside or outside of a graph or function.
    """

    steps: Sequence[Step]
    constants: Mapping[Any, Constant]
    crossings: Mapping[Any, Sequence[Value]] = field(default_factory=dict)

    def reason(self, value: Value) -> str | None:
        """Why a tensor must be exact, in a few words; None where it may change."""
        constant = self.constants[value]
        if constant.size <= _THIN * max(constant.shape, default=1):
            return self._reaching.get(value) or self._factors.get(value)
        return self._closely.get(value)

    @cached_property
    def _reaching(self) -> dict[Value, str]:
        """Values that reach a sensitive input by some arithmetic with what is computed from the network's inputs."""
        found = self._closely
        for _ in range(_MOST_SUMS):
            sums = ((step, found[value]) for value, step in self._producers.items() if value in found)
            before = {value: why for step, why in sums for value in step.at(_ARITHMETIC.get(step.kind, ()))}
            found = self._back(before | found)
        return found

    @cached_property
    def _closely(self) -> dict[Value, str]:
        """Those that reach it as they are, but for a factor or what is computed from constants."""
        return self._back(self._starts)

    @cached_property
    def _factors(self) -> dict[Value, str]:
        """Those of which a product, such as the outer one of frequencies and positions, reaches it."""
        starts: dict[Value, str] = {}
        for step in self.steps:
            reasons = (self._reaching[value] for value in step.outputs if value in self._reaching)
            for reason in reasons if step.kind in _PRODUCTS else ():
                starts |= dict.fromkeys(step.at(_PRODUCTS[step.kind]), reason)
        return self._back(starts)

    def _back(self, starts: dict[Value, str]) -> dict[Value, str]:
        """The values that lead to ``starts`` as they are or by a factor, with the reason there."""
        found = dict(starts)
        pending = list(starts)
        while pending:
            value = pending.pop()
            before = list(self._origins.get(value, ()))
            step = self._producers.get(value)
            if step is not None:
                before += step.at([slot for slot in range(len(step.inputs)) if self._keeps(step, slot)])
            for origin in before:
                if origin not in found:
                    found[origin] = found[value]
                    pending.append(origin)
        return found

    def _keeps(self, step: Step, slot: int) -> bool:
        constant = all(value in self._constant for value in step.outputs)
        return _moves(step, slot) or slot in _SCALINGS.get(step.kind, ()) or (constant and _computes(step, slot))

    @cached_property
    def _producers(self) -> dict[Value, Step]:
        return {value: step for step in self.steps for value in step.outputs}

    @cached_property
    def _consumers(self) -> dict[Value, list[tuple[Step, int]]]:
        found: defaultdict[Value, list[tuple[Step, int]]] = defaultdict(list)
        for step in self.steps:
            for slot, value in enumerate(step.inputs):
                found[value].append((step, slot))
        return found

    @cached_property
    def _origins(self) -> dict[Value, list[Value]]:
        found: defaultdict[Value, list[Value]] = defaultdict(list)
        for outer, inner in self.crossings.items():
            for value in inner:
                found[value].append(outer)
        return found

    @cached_property
    def _starts(self) -> dict[Value, str]:
        """The values at sensitive inputs, and why these are."""
        found: dict[Value, str] = {}
        for step in self.steps:
            for slot, value in enumerate(step.inputs):
                reason = self._demand(step, slot)
                if value is not None and reason is not None:
                    found.setdefault(value, reason)
        return found

    def _demand(self, step: Step, slot: int) -> str | None:
        if self._is_scale(step, slot):
            return f"quantization scale or zero point of {step.name}"
        if slot in _SENSITIVE.get(step.kind, ()):
            return f"divisor in {step.name}" if step.kind in ("Div", "Reciprocal") else f"reaches {step.name}"
        if self._is_centre(step, slot):
            return "subtracted before a division"
        return f"argument of {step.name}" if is_argument(step.kind, slot) else None

    def _is_scale(self, step: Step, slot: int) -> bool:
        name = step.kind.rpartition("::")[2]
        if step.kind in _MEETINGS:
            return any(value in self._integers for value in step.at((1 - slot,)))
        if step.inputs[slot] not in self._constant:
            return False
        if slot == 0 and _looks_up(step, self._constant):
            return any(value in self._integers for value in step.at((1,)))
        if _QUANTIZING.match(name):
            return slot > 0
        return bool(_QUANTIZED.match(name)) or ("::" in step.kind and self._scales_integers(step, slot))

    def _scales_integers(self, step: Step, slot: int) -> bool:
        """Whether an unknown operation takes more quantized numbers, as constants, than there are at ``slot``."""
        most = max((self._quantized.get(value, 0) for value in step.at(_ALL)), default=0)
        sizes = (self.constants[value].size for value in step.at((slot,)) if value in self.constants)
        return most > 0 and all(size <= most for size in sizes)

    def _is_centre(self, step: Step, slot: int) -> bool:
        """Whether it is taken off what a vector then divides, and could be small and the divisor as well."""
        if step.kind != "Sub" or slot != 1:
            return False
        uses = (use for value in step.outputs for use in self._consumers.get(value, ()))
        scales = (value for after, at in uses if after.kind in ("Mul", "Div") for value in after.at((1 - at,)))
        return any(value in self._constant and self._size(value) > 1 for value in scales)

    def _size(self, value: Value) -> int:
        """The number of elements, where it is known; else more than one."""
        return self.constants[value].size if value in self.constants else 2

    @cached_property
    def _quantized(self) -> dict[Value, int]:
        """The sizes of tensors of quantized numbers."""
        sizes = {value: constant.size for value, constant in self.constants.items() if constant.quantized}
        return {value: size for value, size in sizes.items() if size >= _FEWEST_QUANTIZED}

    @cached_property
    def _constant(self) -> set[Value]:
        """Tensors, and what is computed from nothing else."""

        def computes(step: Step, found: set[Value]) -> bool:
            inputs = list(step.at(_ALL))
            return bool(inputs) and step.kind not in _CONTROL_FLOW and all(value in found for value in inputs)

        return self._forward(self.constants, computes)

    @cached_property
    def _integers(self) -> set[Value]:
        """Quantized numbers, as integers or as floats that have not been scaled yet."""

        def keeps(step: Step, found: set[Value]) -> bool:
            if step.kind in _MEETINGS:
                shifts = step.kind in ("Add", "Sub") or all(value in self._constant for value in step.outputs)
                return shifts and any(value in found for value in step.at(_ALL))
            if step.kind in _UNPACKING or _looks_up(step, self._constant):
                return any(value in found for value in step.at(_ALL))
            moved = step.kind in _MOVES and any(value in found for value in step.at((0,)))
            return moved or step.kind in _INTEGER_PRODUCTS

        return self._forward(self._quantized, keeps)

    def _forward(self, starts: Iterable[Value], keeps: Callable[[Step, set[Value]], bool]) -> set[Value]:
        """``starts``, and the results of operations that ``keeps`` allows for what is found so far."""
        found: set[Value] = set()

        def add(some: Iterable[Value]) -> None:
            pending = list(some)
            while pending:
                value = pending.pop()
                if value not in found:
                    found.add(value)
                    pending += self.crossings.get(value, ())

        add(starts)
        for step in self.steps:
            if keeps(step, found):
                add(step.outputs)
        return found


def _looks_up(step: Step, constant: set[Value]) -> bool:
    """Whether a table has the values of numbers that do not change, as a codebook has."""
    return step.kind == "Gather" and all(value in constant for value in step.outputs)


def _moves(step: Step, slot: int) -> bool:
    return step.kind == "Concat" or (slot == 0 and step.kind in _MOVES)


def _computes(step: Step, slot: int) -> bool:
    return slot in _SCALINGS.get(step.kind, ()) or slot in _ARITHMETIC.get(step.kind, ())
