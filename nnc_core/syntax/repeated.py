"""Headers of data units that differ from earlier ones in nothing but names and nodes: their bits are worked out once.

A header begins with a byte of flags, the name comes next, and then the place in the parameter update tree, if it has
one. What the bits behind it say depends on nothing else where the unit sends all its parameters, and they end where the
header ends.
"""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, NamedTuple

from nnc_core.stored import Bytes
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.driver import UE_PREFIX, UNSIGNED
from nnc_core.syntax.topology import TopologyElementsIdsList
from nnc_core.syntax.unit_types import header_bytes
from nnc_core.tables.code_points import GeneralProfileIdc, NnrUnitType

_MOST: Final = 256
"""How many different headers are remembered."""
_SEEN: Final = 192
"""Bytes of a unit that are looked at."""
_TAIL: Final = 48
"""Bytes behind the name of a header that is remembered, at most."""
_FLAGS: Final = 3
"""Where the header of a data unit starts, after a short size and the common header."""

_NAMES = [field.name for field in fields(CompressedDataUnitHeader)]
_LIST, _NAME = (_NAMES.index(name) for name in ("topology_elements_ids_list", "topology_elem_id"))
_PLACE = slice(_NAMES.index("device_id"), _NAMES.index("put_node_depth") + 1)
_PLACE_ORDERS = (1, 5, 4)
"""Of the exponential-Golomb codes of ``device_id``, ``parameter_id`` and ``put_node_depth``."""
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
        self._known: dict[tuple[bytes, bool, int, int], tuple[Any, ...]] = {}
        self._lengths: list[int] = []

    def find(self, data: Bytes, offset: int, end: int, ctx: SyntaxContext) -> Found | None:
        """The data unit at ``offset``, if its header is like one before and nothing is to be refused."""
        if ctx is not self._ctx:
            return None
        seen = bytes(data[offset : min(end, offset + _SEEN)])
        start = seen.find(0, _FLAGS + 1) + 1
        tail = _tail(seen[start : start + _TAIL], ctx)
        for length in self._lengths:
            over = tail.left - length
            known = self._known.get((seen[2 : _FLAGS + 1], tail.place is not None, length, tail.bits >> max(0, over)))
            if known is not None and over >= 0 and over % 8 == 0:
                break
        else:
            return None
        size, payload = seen[0] << 8 | seen[1], min(len(seen), start + _TAIL) - over // 8
        name = _text(seen[_FLAGS + 1 : start - 1], ctx)
        if name is None or start == 0 or not payload <= size <= end - offset or seen[0] > 127:
            return None
        values = [*known]
        values[_LIST], values[_NAME] = TopologyElementsIdsList(), name
        if tail.place is not None:
            values[_PLACE] = tail.place
        return Found(size, CompressedDataUnitHeader(*values), offset + payload)

    def learn(
        self, data: Bytes, offset: int, payload_offset: int, h: CompressedDataUnitHeader, ctx: SyntaxContext
    ) -> None:
        """Remember the header of the data unit at ``offset``."""
        if ctx is not self._ctx:
            self._ctx, self._known, self._lengths = ctx, {}, []
        seen = bytes(data[offset : min(payload_offset, offset + _SEEN)])
        start = seen.find(0, _FLAGS + 1) + 1
        whole = start and payload_offset - offset == len(seen) <= start + _TAIL
        if whole and not seen[2] & 1 and seen[0] < 128 and _is_plain(h) and len(self._known) < _MOST:
            tail = _tail(seen[start:], ctx)
            self._known[seen[2 : _FLAGS + 1], tail.place is not None, tail.left, tail.bits] = _values(h)
            if tail.left not in self._lengths:
                self._lengths.append(tail.left)


class _Tail(NamedTuple):
    """What follows the name: the place in the parameter update tree, if there is one, and so many bits behind it."""

    place: list[int] | None
    left: int
    bits: int


def _tail(data: bytes, ctx: SyntaxContext) -> _Tail:
    bits, left = int.from_bytes(data, "big"), 8 * len(data)
    if ctx.general_profile_idc != GeneralProfileIdc.EXTENDED or not left or not bits >> (left - 1):
        return _Tail(None, left, bits)
    place, left = [], left - 1  # node_id_present_flag
    for k in _PLACE_ORDERS:
        bits &= (1 << left) - 1
        zeros = left - bits.bit_length()
        left -= 2 * zeros + 1 + k
        if zeros > UE_PREFIX - 1 or left < 0:
            return _Tail(None, 0, 0)
        place.append((bits >> left) - (1 << k))
    return _Tail(place, left, bits & ((1 << left) - 1)) if max(place) in UNSIGNED else _Tail(None, 0, 0)


def _text(name: bytes, ctx: SyntaxContext) -> str | None:
    try:
        return name.decode() if len(name) <= ctx.limits.name_length else None
    except UnicodeDecodeError:
        return None
