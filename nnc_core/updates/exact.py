"""Exact updates of one tensor: the differences of bit patterns, ordered by what both ends know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.updates import differences
from nnc_core.updates.chain import Link
from nnc_core.updates.coding import CodedUpdate, coded_update
from nnc_core.updates.differences import Literal
from nnc_core.updates.digest import fingerprint
from nnc_core.updates.naming import Order, unit_names

__all__ = ["TensorUpdate", "exact_update", "ordering", "with_difference"]


class TensorUpdate(NamedTuple):
    """The units that change a tensor, what it is then, and the link that they leave."""

    units: tuple[CodedUpdate, ...]
    new: NDArray[Any]
    link: Link
    literals: tuple[Literal, ...] = ()


def exact_update(
    name: str, new: NDArray[Any], base: NDArray[Any], link: Link, device_id: int, order: Order
) -> TensorUpdate:
    """Code what makes ``new`` of ``base``, two arrays of the same shape and type that differ."""
    by = ordering(base, link, order)
    places = None if by is None else _places(by)
    change = differences.difference(_laid_out(new, places), _laid_out(base, places))
    shape = base.shape or (1,)
    names = unit_names(name, base.dtype.name, order, len(change.parts))
    history = link.history(device_id)
    matrices = [part.reshape(shape[0], -1) for part in change.parts]
    units = tuple(coded_update(n, shape, m, history) for n, m in zip(names, matrices, strict=True))
    kept = units[0].history if len(units) == 1 else None
    return TensorUpdate(units, new, link.after(fingerprint(new), kept, **_exponents(by, order)), change.literals)


def with_difference(
    base: NDArray[Any], parts: Sequence[NDArray[np.int32]], literals: Sequence[Literal], link: Link, order: Order
) -> tuple[NDArray[Any], dict[str, Any]]:
    """``base`` with the differences that were decoded, and what else is new in its link."""
    by = ordering(base, link, order)
    places = None if by is None else _places(by)
    if any(literal.place >= base.size or literal.bits >> (8 * base.dtype.itemsize) for literal in literals):
        raise ModelError("the update has a literal outside the tensor")
    flat = differences.applied(_laid_out(base, places), [part.reshape(-1) for part in parts], literals)
    if places is not None:
        restored = np.empty_like(flat)
        restored[places] = flat
        flat = restored
    return flat.reshape(base.shape), _exponents(by, order)


def ordering(base: NDArray[Any], link: Link, order: Order) -> NDArray[Any] | None:
    """The exponents by which the elements are ordered; None where they are coded as they lie."""
    if order == "none":
        return None
    if order == "base" and link.exponents is not None:
        return link.exponents
    return differences.exponents(base).reshape(-1)


def _places(exponents: NDArray[Any]) -> NDArray[np.intp]:
    """The flat indices in coding order: by exponent, then as they lie."""
    return np.argsort(exponents, kind="stable")


def _laid_out(array: NDArray[Any], places: NDArray[np.intp] | None) -> NDArray[Any]:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat if places is None else flat[places]


def _exponents(by: NDArray[Any] | None, order: Order) -> dict[str, Any]:
    """What the link has to keep for the next update in the same order."""
    if order != "base" or by is None:
        return {"exponents": None}
    return {"exponents": by}
