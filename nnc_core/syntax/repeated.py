"""Headers of data units that differ from earlier ones in nothing but the name: their bits are worked out once.

A header begins with a byte of flags, the name comes next, and all that follows is whole bytes. What these say depends
on nothing else where the unit sends all its parameters, and they end where the header ends.
"""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, NamedTuple

from nnc_core.stored import Bytes
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.topology import TopologyElementsIdsList
from nnc_core.syntax.unit_types import header_bytes
from nnc_core.tables.code_points import NnrUnitType

_MOST: Final = 256
"""How many different headers are remembered."""
_SEEN: Final = 192
"""Bytes of a unit that are looked at."""
_FLAGS: Final = 3
"""Where the header of a data unit starts, after a short size and the common header."""

_NAMES = [field.name for field in fields(CompressedDataUnitHeader)]
_LIST, _NAME = (_NAMES.index(name) for name in ("topology_elements_ids_list", "topology_elem_id"))
_OBJECTS = ("integer_codebook", "topology_tensor_dimension_mapping", "integer_codebook_h")
_OTHERS = ("topology_elements_ids_list", "topology_elem_id", *_OBJECTS)
_values = attrgetter(*_NAMES)
_numbers = attrgetter(*(name for name in _NAMES if name not in _OTHERS))


def _is_plain(h: CompressedDataUnitHeader) -> bool:
    """Whether all that a header says is in its name and numbers, and all is sent."""
    return (
        h.topology_elem_id is not None
        and h.input_parameters_present_flag
        and h.tensor_dimensions_flag
        and h.cabac_unary_length_flag
        and not h.nnr_multiple_topology_elements_present_flag
        and h.integer_codebook is None
        and h.integer_codebook_h is None
        and h.topology_tensor_dimension_mapping is None
        and not h.entry_points
    )


class WrittenHeaders:
    """Writes the headers of one bitstream's data units."""

    def __init__(self) -> None:
        self._ctx: SyntaxContext | None = None
        self._known: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}

    def data(self, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> bytes:
        """The bytes of a header; `ElementValueError` for a record that the syntax cannot hold."""
        if ctx.mps_topology_indexed_reference_flag or not _is_plain(h):
            return header_bytes(NnrUnitType.NNR_NDU, h, ctx)
        if ctx is not self._ctx:
            self._ctx, self._known = ctx, {}
        given = _numbers(h)
        if given in self._known and (name := _legal_name(h.topology_elem_id, ctx)):
            return name.join(self._known[given])
        coded = header_bytes(NnrUnitType.NNR_NDU, h, ctx)
        if len(self._known) < _MOST and given == _numbers(h):  # what is not sent has its default
            self._known[given] = coded[:1], coded[coded.index(0, 1) :]
        return coded


def _legal_name(name: Any, ctx: SyntaxContext) -> bytes:
    """The name as text of the bitstream; empty where there may be something to refuse."""
    try:
        text: bytes = name.encode()
    except (UnicodeEncodeError, AttributeError):
        return b""
    return b"" if 0 in text or len(text) > ctx.limits.name_length else text


class Found(NamedTuple):
    """A data unit: its size in bytes, its header, and where in the data its payload starts."""

    size: int
    header: CompressedDataUnitHeader
    payload_offset: int


class ReadHeaders:
    """Finds the headers of one bitstream's data units that are like those it was shown."""

    def __init__(self) -> None:
        self._ctx: SyntaxContext | None = None
        self._known: dict[bytes, tuple[Any, ...]] = {}
        self._lengths: list[int] = []

    def find(self, data: Bytes, offset: int, end: int, ctx: SyntaxContext) -> Found | None:
        """The data unit at ``offset``, if its header is like one before and nothing is to be refused."""
        if ctx is not self._ctx:
            return None
        seen = bytes(data[offset : min(end, offset + _SEEN)])
        rest = seen.find(0, _FLAGS + 1) + 1
        for length in self._lengths:
            known = self._known.get(seen[2 : _FLAGS + 1] + seen[rest : rest + length])
            if known is not None:
                break
        else:
            return None
        size = seen[0] << 8 | seen[1]
        name = _text(seen[_FLAGS + 1 : rest - 1], ctx)
        if name is None or not rest + length <= size <= end - offset or seen[0] > 127:
            return None
        values = [*known]
        values[_LIST], values[_NAME] = TopologyElementsIdsList(), name
        return Found(size, CompressedDataUnitHeader(*values), offset + rest + length)

    def learn(
        self, data: Bytes, offset: int, payload_offset: int, h: CompressedDataUnitHeader, ctx: SyntaxContext
    ) -> None:
        """Remember the header of the data unit at ``offset``."""
        if ctx is not self._ctx:
            self._ctx, self._known, self._lengths = ctx, {}, []
        seen = bytes(data[offset : min(payload_offset, offset + _SEEN)])
        rest = seen.find(0, _FLAGS + 1) + 1
        length = payload_offset - offset - rest
        whole, is_part = rest and rest + length == len(seen), seen[2] & 1
        if whole and not is_part and seen[0] < 128 and _is_plain(h) and len(self._known) < _MOST:
            self._known[seen[2 : _FLAGS + 1] + seen[rest:]] = _values(h)
            if length not in self._lengths:
                self._lengths.append(length)


def _text(name: bytes, ctx: SyntaxContext) -> str | None:
    try:
        return name.decode() if len(name) <= ctx.limits.name_length else None
    except UnicodeDecodeError:
        return None
