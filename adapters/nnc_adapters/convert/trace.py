"""A network as it runs: values go through operations, and leave traces at the weights they meet.

A front end (Keras, ONNX, TensorFlow Lite, PyTorch) calls one method of `Trace` for each operation of its model. What
comes out is the same for all: which weights follow which, and what the axes of each weight consist of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from nnc_adapters.convert.axes import CHANNEL, UNKNOWN, Axis, joined, merged, reshaped, spatial
from nnc_adapters.convert.parts import PartOf

__all__ = ["Direction", "Reach", "Trace", "Traced"]

_MOST_PATHS = 48


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a value comes from: a weight or an input of the model, and what happened on the way."""

    origin: PartOf | int
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Traced:
    """A value: its axes, and the weights that reach it without meeting others."""

    axes: tuple[Axis, ...]
    reach: frozenset[Reach] = frozenset()

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return tuple(axis.size for axis in self.axes)


@dataclass(frozen=True, slots=True)
class Direction:
    """The weights of one direction of a recurrent cell; biases may be missing."""

    input: PartOf
    state: PartOf
    biases: tuple[PartOf, ...] = ()


@dataclass
class Trace:
    """``before`` has what reaches each weight, ``axes`` what its canonical axes are, ``names`` what flattened images
    are called, ``settings`` what layers say beside their weights, ``indices`` which inputs are rows of tables,
    ``constants`` which weights are values themselves."""

    before: dict[PartOf, set[Reach]] = field(default_factory=dict)
    results: list[frozenset[Reach]] = field(default_factory=list)
    axes: dict[tuple[PartOf, int], Axis] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    settings: dict[PartOf, dict[str, object]] = field(default_factory=lambda: defaultdict(dict))
    inputs: list[Traced] = field(default_factory=list)
    indices: set[int] = field(default_factory=set)
    conflicts: set[PartOf] = field(default_factory=set)
    constants: set[PartOf] = field(default_factory=set)

    # what has no weights

    def input(self, shape: Sequence[int]) -> Traced:
        """The next input of the model."""
        value = Traced(tuple(Axis(size) for size in shape), frozenset([Reach(len(self.inputs))]))
        self.inputs.append(value)
        return value

    def result(self, value: Traced) -> None:
        """An output of the model."""
        self.results.append(value.reach)

    def opaque(self, values: Iterable[Traced], shape: Sequence[int], step: str = "") -> Traced:
        """An operation of which nothing is known but the shape of its result."""
        return Traced(tuple(Axis(size, UNKNOWN) for size in shape), _reach(values, step))

    def elementwise(self, values: Sequence[Traced], step: str = "", *, ordered: bool = False) -> Traced:
        """Position by position, with broadcasting."""
        rank = max(len(value.axes) for value in values)
        axes = tuple(self._broadcast(values, place - rank) for place in range(rank))
        several = ordered and len(values) > 1
        reach = frozenset().union(*(_reach([v], f"{step}{k}" if several else step) for k, v in enumerate(values)))
        return Traced(axes, _bounded(reach))

    def _broadcast(self, values: Sequence[Traced], place: int) -> Axis:
        axes = [value.axes[place] for value in values if len(value.axes) >= -place]
        wide = [axis for axis in axes if axis.size != 1]
        if not wide:
            return axes[0]
        found = wide[0]
        for axis in wide[1:]:
            found = joined(found, axis)
        return found

    def permute(self, value: Traced, order: Sequence[int]) -> Traced:
        """Axes in another order."""
        return replace(value, axes=tuple(value.axes[place] for place in order))

    def reshape(self, value: Traced, shape: Sequence[int], name: str = "") -> Traced:
        """The same numbers in another shape; ``name`` is what a flattened image is called."""
        before = {id(axis) for axis in value.axes}
        axes = reshaped(value.axes, shape)
        for axis in axes:
            if name and axis.parts and id(axis) not in before:
                self.names.setdefault(id(axis), name)
        return replace(value, axes=tuple(axes))

    def concatenate(self, values: Sequence[Traced], place: int) -> Traced:
        """One value behind the other."""
        place %= len(values[0].axes)
        axes = [self._broadcast(values, k - len(values[0].axes)) for k in range(len(values[0].axes))]
        axes[place] = Axis(sum(value.axes[place].size for value in values))
        axes[place].pieces = tuple(value.axes[place] for value in values)
        reach = frozenset().union(*(_reach([v], f"concatenated {k}") for k, v in enumerate(values)))
        return Traced(tuple(axes), _bounded(reach))

    def piece(self, value: Traced, place: int, start: int, size: int) -> Traced:
        """A part of one axis."""
        place %= len(value.axes)
        axes = list(value.axes)
        if axes[place].size == size:
            return value
        axes[place] = _piece(axes[place], start, size)
        return Traced(tuple(axes), _reach([value], f"piece {start}:{start + size}"))

    def pool(self, value: Traced, shape: Sequence[int], channel: int) -> Traced:
        """Other rows and columns, the same channels."""
        places = self._image(value, channel)
        axes = [
            axis if shape[k] == axis.size else Axis(shape[k], places.get(k, axis.tag))
            for k, axis in enumerate(value.axes)
        ]
        return replace(value, axes=tuple(axes))

    def expand(self, value: Traced, shape: Sequence[int]) -> Traced:
        """Repeated along axes of size 1 and new ones in front."""
        new = len(shape) - len(value.axes)
        kept = [a if a.size == size else Axis(size) for a, size in zip(value.axes, shape[new:], strict=True)]
        return replace(value, axes=(*map(Axis, shape[:new]), *kept))

    def reduce(self, value: Traced, places: Iterable[int], *, keep: bool) -> Traced:
        """Some axes become one number."""
        gone = {place % len(value.axes) for place in places}
        axes = [Axis(1) if k in gone else axis for k, axis in enumerate(value.axes) if keep or k not in gone]
        return replace(value, axes=tuple(axes))

    def product(self, one: Traced, other: Traced, shape: Sequence[int], turned: bool = False) -> Traced:
        """A matrix product of two values; ``turned`` where the second has its columns before its rows."""
        first, second = one.axes, other.axes
        if not first or not second:
            return self.opaque([one, other], shape)
        joined(first[-1], second[-1 if turned or len(second) == 1 else -2])
        columns = second[-2 if turned else -1] if len(second) > 1 else Axis(1)
        axes = [Axis(size) for size in shape]
        if len(shape) >= 2 and len(first) > 1:
            axes[-2:] = [first[-2], columns]
            axes[:-2] = [a for a in first[:-2] if len(first) == len(shape)] or axes[:-2]
        reach = _reach([one], "left") | _reach([other], "right")
        return Traced(tuple(axes), _bounded(reach))

    def attend(self, query: Traced, key: Traced, value: Traced) -> Traced:
        """Attention, as the products it consists of."""
        reach = _reach([query], "left", "softmax", "left") | _reach([key], "right", "softmax", "left")
        reach |= _reach([value], "right")
        return Traced((*query.axes[:-1], value.axes[-1]), _bounded(reach))

    # what has weights

    def convolution(
        self, value: Traced, shape: Sequence[int], channel: int, weight: PartOf, *, grouped: bool, first: int = 1
    ) -> Traced:
        """A convolution; the canonical weight has its inputs in axis ``first``, 0 for transposed ones."""
        channel %= len(shape)
        self._image(value, channel)
        axes = [Axis(size, spatial(k - (k > channel) - 1)) for k, size in enumerate(shape)]
        axes[0] = value.axes[0]
        axes[channel] = Axis(shape[channel], CHANNEL)
        if not grouped:
            self._attach(weight, first, value.axes[channel])
            self._attach(weight, 1 - first, axes[channel])
        elif first == 1:
            self._attach(weight, 0, axes[channel])
        return Traced(tuple(axes), self._visit(weight, value.reach))

    def depthwise(self, value: Traced, shape: Sequence[int], channel: int, weight: PartOf) -> Traced:
        """A convolution of each channel for itself."""
        result = self.convolution(value, shape, channel, weight, grouped=True)
        channel %= len(shape)
        if shape[channel] == value.axes[channel].size:
            axes = list(result.axes)
            axes[channel] = joined(value.axes[channel], axes[channel])
            result = replace(result, axes=tuple(axes))
        return result

    def dense(self, value: Traced, weight: PartOf, size: int) -> Traced:
        """A matrix ``[size, I]`` times the last axis."""
        last = Axis(size)
        self._attach(weight, 1, value.axes[-1])
        self._attach(weight, 0, last)
        return Traced((*value.axes[:-1], last), self._visit(weight, value.reach))

    def vector(self, value: Traced, part: PartOf, places: Sequence[int]) -> Traced:
        """A number for each position along some axes, added or multiplied."""
        self._attach(part, 0, merged([value.axes[place] for place in places]))
        return replace(value, reach=self._visit(part, value.reach))

    def recurrent(self, value: Traced, directions: Sequence[Direction], state: int, shape: Sequence[int]) -> Traced:
        """A recurrent layer; the states of all directions are in the last axis."""
        reach: frozenset[Reach] = frozenset()
        for direction in directions:
            self._attach(direction.input, 1, value.axes[-1])
            found = self._visit(direction.input, value.reach)
            for part in (direction.state, *direction.biases):
                found = self._visit(part, found)
            reach |= found
        axes = [value.axes[k] if k < len(value.axes) - 1 else Axis(size) for k, size in enumerate(shape)]
        axes[-1] = merged([Axis(len(directions)), Axis(state)])
        return Traced(tuple(axes), reach)

    def embedding(self, value: Traced, table: PartOf, shape: Sequence[int]) -> Traced:
        """Rows of a table."""
        last = Axis(shape[-1])
        self._attach(table, 1, last)
        self.indices.update(reach.origin for reach in value.reach if isinstance(reach.origin, int))
        return Traced((*value.axes[: len(shape) - 1], last), self._visit(table, _reach([value], "index")))

    def constant(self, part: PartOf, shape: Sequence[int]) -> Traced:
        """A weight that is a value itself."""
        self.constants.add(part)
        axes = tuple(Axis(size) for size in shape)
        self._attach(part, 0, merged(axes))
        return Traced(axes, self._visit(part, frozenset()))

    def _image(self, value: Traced, channel: int) -> dict[int, str]:
        channel %= len(value.axes)
        tags = {k: spatial(k - (k > channel) - 1) for k in range(1, len(value.axes)) if k != channel}
        if len(value.axes) > channel > 0:
            value.axes[channel].mark(CHANNEL)
            for place, tag in tags.items():
                value.axes[place].mark(tag)
        return tags

    def _visit(self, part: PartOf, reach: frozenset[Reach]) -> frozenset[Reach]:
        self.before.setdefault(part, set()).update(reach)
        return frozenset([Reach(part)])

    def _attach(self, part: PartOf, place: int, axis: Axis) -> None:
        known = self.axes.setdefault((part, place), axis)
        if known is not axis:
            joined(known, axis)
            if known.signature() != axis.signature():
                self.conflicts.add(part)


def _reach(values: Iterable[Traced], *steps: str) -> frozenset[Reach]:
    found = [reach for value in values for reach in value.reach]
    path = tuple(step for step in steps if step)
    return frozenset(Reach(reach.origin, reach.path + path) for reach in found)


def _bounded(reach: frozenset[Reach]) -> frozenset[Reach]:
    """Without the paths where there are too many."""
    if len(reach) <= _MOST_PATHS:
        return reach
    return frozenset(Reach(each.origin, ("many",)) for each in reach)


def _piece(axis: Axis, start: int, size: int) -> Axis:
    for piece in axis.pieces:
        if (start, size) == (0, piece.size):
            return piece
        start -= piece.size
        if start < 0:
            break
    if axis.is_leaf:
        # positions next to each other are what the whole is
        return Axis(size, axis.tag)
    return Axis(size, UNKNOWN)
