"""A model as its parameters: what each tensor is, how it is laid out, and which parts it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from math import prod

from nnc_adapters.convert.axes import Axis
from nnc_adapters.convert.described import Described
from nnc_adapters.convert.layouts import CHANNELS_LAST, Framework, Same, Vector, layout
from nnc_adapters.convert.parts import Layout, Part, PartOf, Shape
from nnc_adapters.convert.trace import Trace
from nnc_core.records import dataclass

__all__ = ["UNKNOWN", "Network", "Parameter", "network"]

UNKNOWN = "unknown in"
"""How the role of a part begins of which nothing is known but where it comes from."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor of floating-point numbers; ``kind`` is a row of `LAYOUTS`, None where it is not known.

    ``fill`` is the value of one that is not in the model, because a layer was made without it. ``assumed`` says that a
    name alone tells the kind.
    """

    name: str
    shape: Shape
    kind: str | None
    layout: Layout
    parts: tuple[Part, ...]
    fill: float | None = None
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """The parameters of a model in its own order; ``framework`` is None where it is not known.

    ``trace`` is None where nothing tells what follows what; ``layers`` are the names of the layers of tensors.
    """

    framework: Framework | None
    parameters: Mapping[str, Parameter]
    trace: Trace | None = None
    layers: Mapping[str, str] = field(default_factory=dict)

    @property
    def channels_last(self) -> bool:
        """Whether images have their channels in the last dimension."""
        return self.framework in CHANNELS_LAST

    def parts(self) -> dict[PartOf, Part]:
        """Every part of every parameter, in order."""
        return {PartOf(p.name, k): part for p in self.parameters.values() for k, part in enumerate(p.parts)}

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is a number in a known network, and no weight of it."""
        if self.trace is None or prod(self.parameters[name].shape) != 1:
            return False
        return PartOf(name, 0) not in self.trace.before

    def is_weight(self, name: str) -> bool:
        """Whether the network computes with a tensor, as far as is known."""
        parameter, part = self.parameters[name], PartOf(name, 0)
        if parameter.fill is not None or prod(parameter.shape) == 1:
            return False
        if self.trace is not None:
            return part in self.trace.before and part not in self.trace.constants
        return parameter.kind not in (None, "other")

    def axis(self, part: PartOf, place: int) -> Axis | None:
        """What an axis of a part consists of; None where it is not known."""
        if self.trace is None or part in self.trace.conflicts:
            return None
        axis = self.trace.axes.get((part, place))
        size = self.parameters[part.name].parts[part.place].shape[place]
        return axis if axis is not None and axis.size == size and axis.is_known else None


def network(
    framework: Framework | None,
    family: str,
    shapes: Mapping[str, Shape],
    kinds: Mapping[str, str | None],
    described: Described | None = None,
    layers: Mapping[str, str] | None = None,
) -> Network:
    """The network of tensors ``shapes``: what ``described`` knows comes first, then what ``kinds`` tell."""
    known = dict(described.kinds) if described else {}
    order = [name for name in known if name in shapes]
    found = {name: _parameter(name, shapes[name], known[name], framework, family) for name in order}
    for name in shapes:
        if name not in found:
            found[name] = _parameter(name, shapes[name], kinds.get(name), framework, family, assumed=True)
    for name, (value, size) in (described.neutral if described else {}).items():
        vector = Vector(known[name])
        found[name] = Parameter(name, (size,), known[name], vector, tuple(vector.parts((size,))), value)
    return Network(framework, found, described.trace if described else None, layers or {})


def _parameter(
    name: str, shape: Shape, kind: str | None, framework: Framework | None, family: str, *, assumed: bool = False
) -> Parameter:
    if framework is not None and kind is not None:
        try:
            found = layout(framework, kind)
            return Parameter(name, shape, kind, found, tuple(found.parts(shape)), assumed=assumed)
        except (KeyError, ValueError):  # it is called like something that it cannot be
            pass
    # the same where both models are of one family and call it by one name
    unknown = Same(f"{UNKNOWN} {family}")
    return Parameter(name, shape, None, unknown, tuple(unknown.parts(shape)), assumed=True)
