"""Exact updates of one tensor: the differences of bit patterns, ordered by what both ends know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation
from nnc_core.coder.encoder import CodedUnit, Coding
from nnc_core.coder.history import History
from nnc_core.errors import ModelError
from nnc_core.updates import differences
from nnc_core.updates.chain import Left, Link
from nnc_core.updates.coding import coded_update
from nnc_core.updates.differences import Literal
from nnc_core.updates.digest import fingerprint
from nnc_core.updates.naming import Order, unit_names

__all__ = ["TensorUpdate", "after_parts", "exact_update", "ordering", "with_difference"]


class TensorUpdate(NamedTuple):
    """The units that change a tensor, what it is then, and what they leave.

    ``change`` is what a lossy update adds, ``literals`` what cannot be coded of an exact one.
    """

    units: tuple[CodedUnit, ...]
    new: NDArray[Any]
    left: Left
    literals: tuple[Literal, ...] = ()
    change: NDArray[np.float32] | None = None


def exact_update(
    name: str, new: NDArray[Any], base: NDArray[Any], link: Link, residual: bool, order: Order, coding: Coding
) -> TensorUpdate:
    """Code what makes ``new`` of ``base``, two arrays of the same shape and type that differ."""
    by = ordering(base, link, order)
    places = None if by is None else _places(by)
    change = differences.difference(_laid_out(new, places), _laid_out(base, places))
    del places  # which takes more than the tensor
    names = unit_names(name, base.dtype.name, order, len(change.parts))
    history = link.history(residual)
    parts = [Approximation(part.reshape(base.shape or (1,))) for part in change.parts]
    coded = [coded_update(n, part, history, coding) for n, part in zip(names, parts, strict=True)]
    units = [each for each in coded if each is not None]
    after = after_parts(history, [each.history for each in units], len(parts))
    left = Left(fingerprint(new), after, by if order == "base" else None)
    return TensorUpdate(tuple(each.unit for each in units), new, left, change.literals)


def after_parts(before: History, histories: Sequence[History], parts: int) -> History:
    """What the units of one tensor leave: where it has several parts, no further unit looks at their levels.

    A part that is all zero has no unit, as elsewhere.
    """
    if parts == 1:
        return histories[0]
    return replace(before, depth=before.depth + 1, base=None, marks=None)


def with_difference(
    base: NDArray[Any], parts: Sequence[NDArray[np.int32]], literals: Sequence[Literal], link: Link, order: Order
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """``base`` with the differences that were decoded, and the exponents that its link has to keep."""
    by = ordering(base, link, order)
    places = None if by is None else _places(by)
    if any(literal.place >= base.size or literal.bits >> (8 * base.dtype.itemsize) for literal in literals):
        raise ModelError("the update has a literal outside the tensor")
    flat = differences.applied(_laid_out(base, places), [part.reshape(-1) for part in parts], literals)
    if places is not None:
        restored = np.empty_like(flat)
        restored[places] = flat
        flat = restored
    return flat.reshape(base.shape), by if order == "base" else None


def ordering(base: NDArray[Any], link: Link, order: Order) -> NDArray[Any] | None:
    """The exponents by which the elements are ordered; None where they are coded as they lie."""
    if order == "none":
        return None
    if order == "base" and link.exponents is not None:
        return link.exponents
    return differences.exponents(base).reshape(-1)


def _places(exponents: NDArray[Any]) -> NDArray[Any]:
    """The flat indices in coding order: by exponent, then as they lie."""
    places = np.argsort(exponents, kind="stable")
    return places.astype(np.uint32) if places.size < 1 << 32 else places


def _laid_out(array: NDArray[Any], places: NDArray[Any] | None) -> NDArray[Any]:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat if places is None else flat[places]
