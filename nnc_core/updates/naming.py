"""What the units of an exact update are called.

A unit holds the differences of a tensor's bit patterns, which any decoder reads as integers. No parameter has such a
name, so that no decoder adds them to the weights by mistake:

==========================================  ============================================================================
``w@bfloat16.difference-base``              the differences of the bfloat16 tensor ``w``, ordered by the chain's base
``w@float64.difference-none.high``          the upper halves of 64-bit differences; it is followed by
``w@float64.difference-none.low``           the lower halves
==========================================  ============================================================================
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

__all__ = ["HALVES", "Order", "UnitName", "read_name", "tensor_name", "unit_names"]

Order = Literal["none", "base", "parent"]
"""How the elements are ordered: as they lie, or by the exponents of the chain's base, or of the model before."""

HALVES = ("high", "low")

_ORDERS: tuple[Order, ...] = get_args(Order)
_NAME = re.compile(
    rf"(?P<tensor>.*)@(?P<dtype>\w+)\.difference-(?P<order>{'|'.join(_ORDERS)})(?:\.(?P<half>high|low))?",
    re.DOTALL,
)


class UnitName(NamedTuple):
    """What the name of a unit says: of which tensor it is, the type and order of its elements, and which half."""

    tensor: str
    dtype: str
    order: Order
    half: str | None = None


def unit_names(tensor: str, dtype: str, order: Order, parts: int) -> tuple[str, ...]:
    """The names of the units that carry an exact difference in ``parts`` parts."""
    name = f"{tensor}@{dtype}.difference-{order}"
    return (name,) if parts == 1 else tuple(f"{name}.{half}" for half in HALVES)


def read_name(name: str) -> UnitName | None:
    """Read the name of a unit; None for that of a tensor itself."""
    found = _NAME.fullmatch(name)
    if not found:
        return None
    order = next(order for order in _ORDERS if order == found["order"])
    return UnitName(found["tensor"], found["dtype"], order, found["half"])


def tensor_name(name: str) -> str:
    """The tensor that a unit of this name belongs to."""
    found = read_name(name)
    return name if found is None else found.tensor
