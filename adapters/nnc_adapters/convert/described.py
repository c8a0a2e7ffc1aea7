"""What a front end finds out about a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.trace import Trace, Traced

__all__ = ["Described"]

ONE, ZERO = " (ones)", " (zeros)"


@dataclass
class Described:
    """``kinds`` of tensors, rows of the table of layouts; ``neutral`` are weights that a layer could have and does
    not, with the value that leaves everything as it is; ``trace`` is the network, ``traced`` says that all of it was
    understood."""

    trace: Trace = field(default_factory=Trace)
    kinds: dict[str, str] = field(default_factory=dict)
    neutral: dict[str, tuple[float, int]] = field(default_factory=dict)
    joint: bool = False

    def part(self, name: str, kind: str, place: int = 0) -> PartOf:
        """Part ``place`` of the tensor ``name``, which is of this kind; the first use decides."""
        self.kinds.setdefault(name, kind)
        return PartOf(name, place)

    def fill(self, name: str, kind: str, value: float, size: int) -> PartOf:
        """A weight that is not there, in a layer that others have with it."""
        self.neutral.setdefault(name, (value, size))
        return self.part(name, kind)

    def normalized(
        self, value: Traced, axis: int, names: dict[str, str | None], beside: str, epsilon: float | None
    ) -> Traced:
        """Batch normalization: ``names`` of its mean, variance, scale and shift."""
        size = value.axes[axis].size
        for role, filling in (("mean", 0.0), ("variance", 1.0), ("scale", 1.0), ("shift", 0.0)):
            name = names.get(role)
            if name is None:
                part = self.fill(f"{beside}{ONE if filling else ZERO}", role, filling, size)
            else:
                part = self.part(name, role)
            if epsilon is not None:
                self.trace.settings[part]["epsilon"] = epsilon
            value = self.trace.vector(value, part, [axis])
        return value
