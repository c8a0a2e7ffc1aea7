"""Bounds on what a bitstream may ask for, checked before anything is allocated."""

from __future__ import annotations

from dataclasses import replace

from nnc_core.errors import LimitError
from nnc_core.records import dataclass

EXPANSION = 1 << 14
"""How many times its size a file may decode to; row after row of zeros takes a thousandth of that."""
HARMLESS = 1 << 28
"""Bytes that a file of any size may decode to, and a description in it inflate to: masks are often parts of that."""
INFLATION = 1 << 6
"""How many times its size a description in a file may inflate to; that of a network takes a twentieth of its size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for reading and writing; on by default, changed with ``dataclasses.replace`` or the constructor.

    What has its default value here follows the size of the file at hand, see `following`: a large file may hold more
    without being asked for, a tiny one less.

    ``tensor_elements`` is per tensor, ``decoded_bytes`` and ``units`` per bitstream; its reference lists have no more
    names than it may have ``units``, and these no more than ``name_bytes`` in all. ``name_length`` is per string in
    UTF-8 bytes, ``dimensions``, ``codebook_size`` and ``entry_points`` per data unit, ``list_entries`` per bitstream:
    entries of codebooks, entry points, and places of units in aggregates. ``topology_bytes`` is after inflating,
    ``nesting`` for graphs inside graphs.
    """

    tensor_elements: int = 1 << 29
    decoded_bytes: int = 1 << 34
    units: int = 1 << 17
    name_length: int = 4096
    dimensions: int = 64
    name_bytes: int = 1 << 25
    codebook_size: int = 1 << 16
    entry_points: int = 1 << 17
    list_entries: int = 1 << 21
    topology_bytes: int = (1 << 31) - 1
    nesting: int = 64

    def following(self, size: int) -> Limits:
        """The limits for a file of ``size`` bytes: those that have their default values follow it.

        So a file may decode to one weight for each of its bits, and have a tensor for each KiB; more needs to be asked
        for where it is beyond the defaults as well. Less is allowed where it is more than `HARMLESS` bytes that a file
        would decode to, and `EXPANSION` times its size, as no sparse model does, or that a description would inflate
        to, and `INFLATION` times the size of the file.
        """
        decoded = max(HARMLESS, EXPANSION * size)
        bounds = {
            "tensor_elements": max(min(_DEFAULTS.tensor_elements, decoded // 4), 8 * size),
            "decoded_bytes": max(min(_DEFAULTS.decoded_bytes, decoded), 32 * size),
            "units": max(_DEFAULTS.units, size >> 10),
            "name_bytes": max(_DEFAULTS.name_bytes, size),
            "entry_points": max(_DEFAULTS.entry_points, size >> 10),
            "list_entries": max(_DEFAULTS.list_entries, size >> 4),
            "topology_bytes": min(_DEFAULTS.topology_bytes, max(HARMLESS, INFLATION * size)),
        }
        changed = {name: bound for name, bound in bounds.items() if getattr(self, name) == getattr(_DEFAULTS, name)}
        return replace(self, **changed)

    def check(self, limit: str, value: int, where: str = "") -> int:
        """Return ``value`` if it is within the bound called ``limit``, else raise `LimitError`."""
        maximum: int = getattr(self, limit)
        if value > maximum:
            raise LimitError(limit, value, maximum, where)
        return value


_DEFAULTS = Limits()
