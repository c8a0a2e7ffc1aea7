"""Bounds on what a bitstream may ask for, checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nnc_core.errors import LimitError


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for reading and writing; on by default, changed with ``dataclasses.replace`` or the constructor.

    A file that is large itself may hold more without being asked for: what has its default value here follows the size
    of the file at hand, see `following`.

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

    def following(self, size: int) -> Limits:
        """The limits for a file of ``size`` bytes: those that have their default values grow with it.

        So a file may decode to one weight for each of its bits, and have a tensor for each KiB; more needs to be asked
        for where it is beyond the defaults as well.
        """
        grown = {"tensor_elements": 8 * size, "decoded_bytes": 32 * size, "units": size >> 10}
        raised = {
            name: value for name, value in grown.items() if getattr(self, name) == getattr(_DEFAULTS, name) < value
        }
        return replace(self, **raised) if raised else self

    def check(self, limit: str, value: int, where: str = "") -> int:
        """Return ``value`` if it is within the bound called ``limit``, else raise `LimitError`."""
        maximum: int = getattr(self, limit)
        if value > maximum:
            raise LimitError(limit, value, maximum, where)
        return value


_DEFAULTS = Limits()
