"""``nnr_unit()``: sizes and headers that all units share, and the start unit."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from nnc_core.errors import LimitError
from nnc_core.records import dataclass
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.driver import Buffer, Elements, Syntax
from nnc_core.syntax.writer import Writer
from nnc_core.tables.code_points import GeneralProfileIdc, NnrUnitType

SHORT: Final = (1 << 15) - 1
LONG: Final = (1 << 31) - 1


@dataclass(slots=True)
class UnitHeader:
    """``nnr_unit_size()`` and the part of ``nnr_unit_header()`` that all units share."""

    nnr_unit_size: int = 0
    nnr_unit_type: int = 0
    independently_decodable_flag: bool = True
    partial_data_counter_present_flag: bool = False
    partial_data_counter: int = 0


@dataclass(slots=True)
class StartUnitHeader:
    """``nnr_start_unit_header()``."""

    general_profile_idc: int = 1


def nnr_unit_size(s: Syntax, h: UnitHeader) -> None:
    """``nnr_unit_size()`` (clause 6.3.2); the long form is for sizes that the short one cannot hold."""
    nnr_unit_size_flag = s.flag("nnr_unit_size_flag", h.nnr_unit_size > SHORT)
    h.nnr_unit_size = s.u(31 if nnr_unit_size_flag else 15, "nnr_unit_size", h.nnr_unit_size)


def nnr_unit_header(s: Syntax, h: UnitHeader) -> None:
    """``nnr_unit_header()`` (clause 6.3.3.1), without what depends on the unit type."""
    e = Elements(s, h)
    e.u(6, "nnr_unit_type")
    e.flag("independently_decodable_flag")
    e.flag("partial_data_counter_present_flag")
    e.u(8, "partial_data_counter", when=h.partial_data_counter_present_flag)


def nnr_start_unit_header(s: Syntax, h: StartUnitHeader, ctx: SyntaxContext) -> None:
    """``nnr_start_unit_header()`` (clause 6.3.3.2)."""
    Elements(s, h).u(8, "general_profile_idc", range(len(GeneralProfileIdc)))


def unit_size(header_size: int, payload_size: int, *, in_parts: bool = False) -> int:
    """The bytes of a unit whose type has a header of ``header_size`` bytes; parts have a counter in addition."""
    size = 2 + 1 + in_parts + header_size + payload_size
    return size if size <= SHORT else size + 2


def unit_prefix(nnr_unit_type: NnrUnitType, header: bytes, payload_size: int, partial_data_counter: int = 0) -> bytes:
    """All bytes of a unit up to its payload: size, common header and ``header``, the part that depends on the type.

    ``partial_data_counter`` 0 means that the unit is not a fragment. `LimitError` if no size field can hold the size.
    """
    size = unit_size(len(header), payload_size, in_parts=partial_data_counter > 0)
    if size > LONG:
        raise LimitError("nnr_unit_size", size, LONG)
    return _size_field(size) + _common(nnr_unit_type, partial_data_counter) + header


def _size_field(size: int) -> bytes:
    """What `nnr_unit_size` writes."""
    return size.to_bytes(2, "big") if size <= SHORT else (LONG + 1 + size).to_bytes(4, "big")


@lru_cache
def _common(nnr_unit_type: NnrUnitType, partial_data_counter: int) -> bytes:
    """What `nnr_unit_header` writes, of which there are few."""
    h = UnitHeader(
        nnr_unit_type=nnr_unit_type,
        partial_data_counter_present_flag=partial_data_counter > 0,
        partial_data_counter=partial_data_counter,
    )
    writer = Writer()
    nnr_unit_header(writer, h)
    return writer.data()


def unit(nnr_unit_type: NnrUnitType, header: bytes, payload: Buffer = b"", partial_data_counter: int = 0) -> bytes:
    """Give the bytes of a whole unit; see `unit_prefix`."""
    return unit_prefix(nnr_unit_type, header, len(payload), partial_data_counter) + bytes(payload)
