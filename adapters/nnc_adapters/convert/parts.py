"""What tensors hold: the parts that are the same in every framework, whatever tensors they are stored in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

__all__ = ["Array", "Layout", "Part", "PartOf", "Shape"]

Array = NDArray[Any]
Shape = tuple[int, ...]


class PartOf(NamedTuple):
    """One part of a tensor, by the tensor's name and the part's place in it."""

    name: str
    place: int


class Part(NamedTuple):
    """What a tensor, or a piece of it, is to the network, and its canonical shape."""

    role: str
    shape: Shape


class Layout(Protocol):
    """How a tensor of one shape holds its parts; ValueError for a shape that this layout cannot have."""

    def parts(self, shape: Shape) -> list[Part]:
        """The parts that a tensor of this shape holds."""
        ...

    def split(self, array: Array) -> list[Array]:
        """The parts of a tensor in canonical form."""
        ...

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """The tensor of this shape that holds the canonical ``parts``."""
        ...
