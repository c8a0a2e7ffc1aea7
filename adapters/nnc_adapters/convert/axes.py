"""What an axis of a tensor consists of: an image that was flattened, inputs that were concatenated.

Frameworks flatten images in different orders, so that the rows of a matrix are permuted between them. Axes are followed
through a network; each has one *canonical* order, the channels before the rows and columns of the image, to and from
which the weights along it are permuted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHANNEL", "UNKNOWN", "Axis", "Indices", "Order", "joined", "merged", "reshaped", "spatial"]

Indices = NDArray[np.intp]
Order = Literal["stored", "first", "last"]

CHANNEL = "c"
UNKNOWN = "?"
"""The tag of an axis of which nothing is known, not even that it is not a flattened image."""


def spatial(number: int) -> str:
    """The tag of the axis of an image with this number: 0 for rows."""
    return f"s{number}"


class Axis:
    """``size`` positions. ``parts`` are the axes whose product it is, the last varies fastest; ``pieces`` those that
    are concatenated in it. An axis that has neither is a leaf, and may be split later."""

    __slots__ = ("parts", "pieces", "size", "tag")

    def __init__(self, size: int, tag: str = "") -> None:
        self.size = size
        self.tag = tag
        self.parts: tuple[Axis, ...] = ()
        self.pieces: tuple[Axis, ...] = ()

    @property
    def is_leaf(self) -> bool:
        """Whether nothing is inside."""
        return not (self.parts or self.pieces)

    def leaves(self) -> list[Axis]:
        """The axes that this is a product of, none of which is a product itself."""
        if not self.parts:
            return [self]
        return [leaf for part in self.parts for leaf in part.leaves()]

    def mark(self, tag: str) -> None:
        """Say what a leaf is; what is known already stays."""
        leaves = self.leaves()
        if len(leaves) == 1 and leaves[0].tag in ("", UNKNOWN):
            leaves[0].tag = tag

    def contains(self, other: Axis) -> bool:
        """Whether ``other`` is this axis or inside it."""
        return self is other or any(inner.contains(other) for inner in (*self.parts, *self.pieces))

    @property
    def is_known(self) -> bool:
        """Whether every leaf is known."""
        if self.parts or self.pieces:
            return all(inner.is_known for inner in (*self.parts, *self.pieces))
        return self.tag != UNKNOWN

    def indices(self, order: Mapping[int, Order] | None = None) -> Indices:
        """Where the canonical positions are: position k is at ``indices()[k]``.

        ``order`` says of flattened images, by their `id`, whether they have their channels first or last in place of
        what is stored here.
        """
        if self.pieces:
            found = [piece.indices(order) for piece in self.pieces]
            starts = np.cumsum([0, *(len(indices) for indices in found)])
            return np.concatenate([start + indices for start, indices in zip(starts, found, strict=False)])
        leaves = self.leaves()
        if leaves == [self]:
            return np.arange(self.size)
        places = _canonical(leaves)
        chosen = (order or {}).get(id(self.resolved), "stored") if self.is_image else "stored"
        if chosen != "stored":
            # as if the leaves were stored in their canonical order, or in that with the channels at the end
            leaves = [leaves[place] for place in places]
            count = sum(leaf.tag == CHANNEL for leaf in leaves) if chosen == "last" else 0
            leaves = leaves[count:] + leaves[:count]
            places = _canonical(leaves)
        stored: Indices = np.arange(self.size).reshape([leaf.size for leaf in leaves])
        for place, leaf in enumerate(leaves):
            stored = np.take(stored, leaf.indices(order), place)
        return np.ravel(stored.transpose(places))

    @property
    def is_image(self) -> bool:
        """Whether it is the product of channels and of something else."""
        tags = [leaf.tag == CHANNEL for leaf in self.leaves() if leaf.size > 1]
        return any(tags) and not all(tags)

    @property
    def image(self) -> tuple[int, ...]:
        """The sizes of the leaves, the channels first."""
        leaves = self.leaves()
        return tuple(leaves[place].size for place in _canonical(leaves))

    def images(self) -> list[Axis]:
        """The flattened images in it."""
        if self.pieces:
            return [image for piece in self.pieces for image in piece.images()]
        found = [image for leaf in self.leaves() if leaf is not self for image in leaf.images()]
        return [self.resolved, *found] if self.is_image else found

    @property
    def resolved(self) -> Axis:
        """The axis that this one is another name of."""
        return self.parts[0].resolved if len(self.parts) == 1 else self

    def signature(self) -> tuple[Any, ...]:
        """What two axes must have in common for their canonical orders to mean the same."""
        if self.pieces:
            return ("pieces", *(piece.signature() for piece in self.pieces))
        leaves = [leaf for leaf in self.leaves() if leaf.size > 1]
        if len(leaves) == 1:
            return leaves[0].signature() if leaves[0].pieces else (self.size,)
        return tuple((leaf.tag, leaf.size) for leaf in (leaves[place] for place in _canonical(leaves)))


def _concatenated(found: Sequence[Indices]) -> Indices:
    starts = np.cumsum([0, *(len(indices) for indices in found)])
    return np.concatenate([start + indices for start, indices in zip(starts, found, strict=False)])


def _canonical(leaves: Sequence[Axis]) -> list[int]:
    """The places of the leaves: channels first, then the axes of images, then all else as it is."""
    rank = {CHANNEL: 0, **{spatial(number): 1 + number for number in range(8)}}
    return sorted(range(len(leaves)), key=lambda place: rank.get(leaves[place].tag, len(rank)))


def merged(axes: Sequence[Axis]) -> Axis:
    """The axis that runs through all of ``axes``, the last fastest."""
    real = [axis for axis in axes if axis.size != 1]
    if len(real) == 1:
        return real[0]
    whole = Axis(prod(axis.size for axis in axes))
    whole.parts = tuple(real)
    return whole


def reshaped(axes: Sequence[Axis], shape: Sequence[int]) -> list[Axis]:
    """The axes of a reshaped tensor; `UNKNOWN` ones where old and new boundaries do not meet."""
    leaves = [leaf for axis in axes for leaf in axis.leaves() if leaf.size != 1]
    if prod(leaf.size for leaf in leaves) != prod(shape):
        return [Axis(size, UNKNOWN) for size in shape]
    found: list[Axis] = []
    for size in shape:
        taken = _taken(leaves, size)
        if taken is None:
            return [*found, *(Axis(rest, UNKNOWN) for rest in shape[len(found) :])]
        found.append(merged(taken) if taken else Axis(1))
    return found


def _taken(leaves: list[Axis], size: int) -> list[Axis] | None:
    """Axes from the front of ``leaves``, removed from it, that make ``size``; the last one is split if need be."""
    taken: list[Axis] = []
    rest = size
    while rest > 1:
        leaf = leaves.pop(0)
        if rest % leaf.size == 0:
            rest //= leaf.size
        elif leaf.size % rest == 0 and leaf.is_leaf:
            leaf.parts = (Axis(rest, leaf.tag), Axis(leaf.size // rest, leaf.tag))
            leaves.insert(0, leaf.parts[1])
            leaf, rest = leaf.parts[0], 1
        else:
            return None
        taken.append(leaf)
    return taken


def joined(one: Axis, other: Axis) -> Axis:
    """The axis of two operands that belong together, position by position: what is known of one is of both."""
    if one is other or one.size != other.size or one.contains(other) or other.contains(one):
        return one
    if other.is_leaf:
        _alias(other, one)
        return one
    if one.is_leaf:
        _alias(one, other)
        return other
    first, second = one.leaves(), other.leaves()
    if len(first) == len(second):
        for inner, outer in zip(first, second, strict=True):
            if inner is not one and outer is not other:
                joined(inner, outer)
    return one


def _alias(leaf: Axis, known: Axis) -> None:
    if known.is_leaf and known.tag in ("", UNKNOWN):
        known.tag = leaf.tag if leaf.tag not in ("", UNKNOWN) or known.tag == UNKNOWN else known.tag
    leaf.parts = (known,)
