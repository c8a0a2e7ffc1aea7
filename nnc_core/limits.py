"""Bounds on what a bitstream may ask for, checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from nnc_core.errors import LimitError


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for reading; on by default, raised with ``dataclasses.replace`` or the constructor.

    ``tensor_elements`` is per tensor, ``decoded_bytes`` and ``units`` per bitstream; its reference lists have no more
    names than it may have ``units``. ``name_length`` is per string in UTF-8 bytes, ``dimensions`` per tensor,
    ``topology_bytes`` after inflating, ``nesting`` for graphs inside graphs.
    """

    tensor_elements: int = 1 << 29
    decoded_bytes: int = 1 << 34
    units: int = 1 << 17
    name_length: int = 4096
    dimensions: int = 64
    topology_bytes: int = (1 << 31) - 1
    nesting: int = 64

    def check(self, limit: str, value: int, where: str = "") -> int:
        """Return ``value`` if it is within the bound called ``limit``, else raise `LimitError`."""
        maximum: int = getattr(self, limit)
        if value > maximum:
            raise LimitError(limit, value, maximum, where)
        return value
