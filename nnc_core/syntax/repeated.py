"""Headers of data units that differ from earlier ones in names, nodes and dimensions: other bits are worked out once.

A header that sends all its parameters, and has no codebook, decomposition or entry point, is a byte of flags, the name,
and then, one behind the other:

* a flag and the place in the parameter update tree, if the unit has one;
* flags and numbers whose length follows from the byte of flags: the ``head``;
* the number of dimensions and each of them;
* the unary length and how the tensor is scanned, whose length follows from the number of dimensions: the ``rest``;
* a one, and zeros up to the next byte.

So where flags, head and rest are those of an earlier header, its record holds but for name, place and dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from math import prod
from operator import attrgetter
from typing import Any, Final, NamedTuple

from nnc_core.stored import Bytes
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.driver import UE_PREFIX, UNSIGNED
from nnc_core.syntax.topology import TopologyElementsIdsList
from nnc_core.syntax.unit_types import header_bytes
from nnc_core.syntax.units import LONG, SHORT
from nnc_core.tables.code_points import (
    CompressedParameterTypes,
    GeneralProfileIdc,
    NnrUnitType,
    ParentNodeIdType,
    PayloadType,
)

_MOST: Final = 256
"""How many different headers are remembered."""
_SEEN: Final = 192
"""Bytes of a unit that are looked at."""
_TAIL: Final = 32
"""Bytes behind the name of a header that is recognized, at most."""
_FLAGS: Final = 3
"""Where the header of a data unit starts, after a short size and the common header."""
_SIZES: Final = {_FLAGS: SHORT, _FLAGS + 2: LONG}
"""What is the size in the bytes before, by where the header starts."""

_NAMES = [field.name for field in fields(CompressedDataUnitHeader)]
_LIST, _NAME, _DIMENSIONS, _SCAN_ORDER = (
    _NAMES.index(name) for name in ("topology_elements_ids_list", "topology_elem_id", "tensor_dimensions", "scan_order")
)
_IN_TREE = ("device_id", "parameter_id", "put_node_depth")
_PLACE = slice(_NAMES.index(_IN_TREE[0]), _NAMES.index(_IN_TREE[-1]) + 1)
_PLACE_ORDERS = (1, 5, 4)
"""Of the exponential-Golomb codes of a place in the tree."""
_LARGEST = UNSIGNED[-1]
_COUNT_ORDER, _DIMENSION_ORDER = 1, 7
_PARENT_LENGTH = 2 + 1 + 2
"""The bits of a parent's type, of ``temporal_context_modeling_flag``, and of the device 0."""
_OBJECTS = ("integer_codebook", "topology_tensor_dimension_mapping", "integer_codebook_h")
_OTHERS = ("topology_elements_ids_list", "topology_elem_id", "tensor_dimensions", "entry_points", *_IN_TREE, *_OBJECTS)
_values = attrgetter(*_NAMES)
_numbers = attrgetter(*(name for name in _NAMES if name not in _OTHERS))
_NOT_DECOMPOSED = tuple(types for types in range(16) if not types & CompressedParameterTypes.NNR_CPT_DC)
_EXTENDED = int(GeneralProfileIdc.EXTENDED)
_QUANTIZED = (PayloadType.NNR_PT_FLOAT, PayloadType.NNR_PT_BLOCK)
_HEAD_LENGTHS = [
    6 + 7 * (flags >> 1 & 1) + (flags >> 3 in _QUANTIZED) + (flags >> 3 != PayloadType.NNR_PT_RAW_FLOAT)
    for flags in range(256)
]
"""The bits from ``codebook_present_flag`` to ``compressed_parameter_types``, without what is absent, by the flags."""
_INTEGERS = {int}


def _is_plain(h: CompressedDataUnitHeader) -> bool:
    """Whether a header is of the kind that is remembered."""
    return (
        h.topology_elem_id is not None
        and h.input_parameters_present_flag
        and h.tensor_dimensions_flag
        and h.cabac_unary_length_flag
        and not h.nnr_multiple_topology_elements_present_flag
        and not h.codebook_present_flag
        and h.integer_codebook is None
        and h.integer_codebook_h is None
        and h.topology_tensor_dimension_mapping is None
        and h.compressed_parameter_types in _NOT_DECOMPOSED
        and not h.first_tensor_dimension_shift
        and not h.entry_points
        and (not h.parent_node_id_present_flag or _has_usual_parent(h))
    )


def _has_usual_parent(h: CompressedDataUnitHeader) -> bool:
    """Whether a parent is told by a number, and of the device 0."""
    kind = h.parent_node_id_type
    return h.node_id_present_flag and kind == ParentNodeIdType.ICNN_NDU_ID and h.parent_device_id == 0


class _Cut(NamedTuple):
    """What follows the name of a header, in pieces; head and rest as an integer and its length in bits."""

    place: list[int] | None
    head: tuple[int, int]
    dimensions: Sequence[int]
    rest: tuple[int, int]


def _cut(data: bytes, flags: int, ctx: SyntaxContext) -> tuple[_Cut, int] | None:
    """Cut what follows the name, in a header that begins with these ``flags``, and say how many bytes it takes.

    `None` where the header is not of the kind that is remembered, as far as that shows.
    """
    bits, left, place, length = int.from_bytes(data, "big"), 8 * len(data), None, _HEAD_LENGTHS[flags]
    if ctx.general_profile_idc == _EXTENDED and left:
        left -= 1
        if bits >> left & 1:
            place, left = _read(bits, left, _PLACE_ORDERS)
        if ctx.mps_parent_signalling_enabled_flag:
            length += 1 + _PARENT_LENGTH * (bits >> max(0, left - 1) & 1)
    after = left - length
    count, left = _read(bits, after, (_COUNT_ORDER,))
    if not count or not 0 < count[0] <= ctx.limits.dimensions:
        return None
    head = bits >> after & ((1 << length) - 1), length
    dimensions, left = _read(bits, left, (_DIMENSION_ORDER,) * count[0])
    length = _rest_length(count[0], ctx)
    left -= length
    if left < 1:
        return None
    end = (left - 1) & ~7
    if bits >> end & ((1 << (left - end)) - 1) != 1 << (left - end - 1):  # byte_alignment()
        return None
    return _Cut(place, head, dimensions, (bits >> left & ((1 << length) - 1), length)), len(data) - (end >> 3)


def _joined(cut: _Cut, ctx: SyntaxContext) -> bytes:
    """The bytes that `_cut` cuts."""
    bits = 1  # in front of the others, so that zeros among these count
    if ctx.general_profile_idc == _EXTENDED:
        bits = bits << 1 | (cut.place is not None)
    if cut.place is not None:
        bits = _written(bits, zip(cut.place, _PLACE_ORDERS, strict=True))
    bits = bits << cut.head[1] | cut.head[0]
    bits = _written(bits, [(len(cut.dimensions), _COUNT_ORDER)])
    bits = _written(bits, [(size, _DIMENSION_ORDER) for size in cut.dimensions])
    bits = (bits << cut.rest[1] | cut.rest[0]) << 1 | 1
    length = bits.bit_length() - 1
    bits <<= -length & 7
    size = (length + 7) >> 3
    return (bits ^ 1 << 8 * size).to_bytes(size, "big")


def _read(bits: int, left: int, orders: Iterable[int]) -> tuple[list[int], int]:
    """Exponential-Golomb codes of these orders, which begin the lower ``left`` bits; how many bits follow them.

    These are fewer than 0 where the codes have no end, or a value is beyond ``ue(k)``.
    """
    values: list[int] = []
    for k in orders if left > 0 else ():
        bits &= (1 << left) - 1
        zeros = left - bits.bit_length()
        left -= 2 * zeros + 1 + k
        if left < 0 or zeros >= UE_PREFIX:
            return [], -1
        values.append((bits >> left) - (1 << k))
    return (values, left) if values and max(values) <= _LARGEST else ([], -1)


def _written(bits: int, values: Iterable[tuple[int, int]]) -> int:
    """The bits, and behind them exponential-Golomb codes of values, each with its order."""
    for value, k in values:
        coded = value + (1 << k)
        bits = bits << 2 * coded.bit_length() - 1 - k | coded
    return bits


def _rest_length(axes: int, ctx: SyntaxContext) -> int:
    """How long the rest is: the unary length, first_tensor_dimension_shift 0, and the scan order."""
    return 8 if axes == 1 else 14 if ctx.general_profile_idc == _EXTENDED else 12


def _are_legal(dimensions: Sequence[int], scan_order: int, ctx: SyntaxContext) -> bool:
    """Whether nothing is to be refused about dimensions, and there are no points to enter a tensor of these."""
    return (
        0 < len(dimensions) <= ctx.limits.dimensions
        and min(dimensions) > 0
        and max(dimensions) <= _LARGEST
        and prod(dimensions) <= ctx.limits.tensor_elements
        and (not scan_order or dimensions[0] <= 4 << scan_order)
    )


class WrittenHeaders:
    """Writes the headers of one bitstream's data units."""

    def __init__(self) -> None:
        self._ctx: SyntaxContext | None = None
        self._known: dict[tuple[Any, ...], tuple[bytes, _Cut]] = {}

    def data(self, h: CompressedDataUnitHeader, ctx: SyntaxContext) -> bytes:
        """The bytes of a header; `ElementValueError` for a record that the syntax cannot hold."""
        if ctx.mps_topology_indexed_reference_flag or not _is_plain(h):
            return header_bytes(NnrUnitType.NNR_NDU, h, ctx)
        if ctx is not self._ctx:
            self._ctx, self._known = ctx, {}
        given = len(h.tensor_dimensions) > 1, _numbers(h)
        if given in self._known and (like := self._like(h, *self._known[given], ctx)):
            return like
        coded = header_bytes(NnrUnitType.NNR_NDU, h, ctx)
        if len(self._known) < _MOST and given[1] == _numbers(h):  # what is not sent has its default
            found = _cut(coded[coded.index(0, 1) + 1 :], coded[0], ctx)
            if found is not None:
                self._known[given] = coded[:1], found[0]
        return coded

    def _like(self, h: CompressedDataUnitHeader, flags: bytes, cut: _Cut, ctx: SyntaxContext) -> bytes:
        """The bytes of a header that is like another one; none where there may be something to refuse."""
        name, place = _legal_name(h.topology_elem_id, ctx), _legal_place(h)
        whole = set(map(type, h.tensor_dimensions)) == _INTEGERS
        if name is None or place == [] or not whole or not _are_legal(h.tensor_dimensions, h.scan_order, ctx):
            return b""
        cut = _Cut(place, cut.head, h.tensor_dimensions, cut.rest)
        return b"".join((flags, name, b"\0", _joined(cut, ctx)))


def _legal_name(name: Any, ctx: SyntaxContext) -> bytes | None:
    """The name as text of the bitstream; `None` where there may be something to refuse."""
    try:
        text: bytes = name.encode()
    except (UnicodeEncodeError, AttributeError):
        return None
    return None if 0 in text or len(text) > ctx.limits.name_length else text


def _legal_place(h: CompressedDataUnitHeader) -> list[int] | None:
    """The place of a unit in the tree, `None` if it has none; empty where there may be something to refuse."""
    place: list[Any] = [h.device_id, h.parameter_id, h.put_node_depth]
    if not h.node_id_present_flag:
        return None if place == [None, None, None] else []
    legal = set(map(type, place)) == _INTEGERS and min(place) >= 0 and max(place) <= _LARGEST
    return place if legal else []


class Found(NamedTuple):
    """A data unit: its size in bytes, its header, and where in the data its payload starts."""

    size: int
    header: CompressedDataUnitHeader
    payload_offset: int


class ReadHeaders:
    """Finds the headers of one bitstream's data units that are like those it was shown."""

    def __init__(self) -> None:
        self._ctx: SyntaxContext | None = None
        self._known: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def find(self, data: Bytes, offset: int, end: int, ctx: SyntaxContext) -> Found | None:
        """The data unit at ``offset``, if its header is like one before and nothing is to be refused."""
        if ctx is not self._ctx:
            return None
        seen = bytes(data[offset : min(end, offset + _SEEN)])
        at = _flags_at(seen)
        start = seen.find(0, at + 1) + 1
        found = _cut(seen[start : start + _TAIL], seen[at], ctx) if start else None
        known = None if found is None else self._known.get(_key(seen[at - 1 : at + 1], found[0]))
        if found is None or known is None:
            return None
        cut, payload = found[0], start + found[1]
        size = int.from_bytes(seen[: at - 1], "big") & _SIZES[at]
        name = _text(seen[at + 1 : start - 1], ctx)
        if name is None or not payload <= size <= end - offset:
            return None
        if not _are_legal(cut.dimensions, known[_SCAN_ORDER], ctx):
            return None
        values = [*known]
        values[_LIST], values[_NAME], values[_DIMENSIONS] = TopologyElementsIdsList(), name, tuple(cut.dimensions)
        if cut.place is not None:
            values[_PLACE] = cut.place
        return Found(size, CompressedDataUnitHeader(*values), offset + payload)

    def learn(
        self, data: Bytes, offset: int, payload_offset: int, h: CompressedDataUnitHeader, ctx: SyntaxContext
    ) -> None:
        """Remember the header of the data unit at ``offset``."""
        if ctx is not self._ctx:
            self._ctx, self._known = ctx, {}
        seen = bytes(data[offset : min(payload_offset, offset + _SEEN)])
        at = _flags_at(seen)
        start = seen.find(0, at + 1) + 1
        if not start or seen[at - 1] & 1 or not _is_plain(h) or len(self._known) >= _MOST:
            return
        found = _cut(seen[start:], seen[at], ctx)
        if found is not None and offset + start + found[1] == payload_offset:
            self._known[_key(seen[at - 1 : at + 1], found[0])] = _values(h)


def _flags_at(seen: bytes) -> int:
    """Where the header of a data unit starts."""
    return _FLAGS + 2 * (seen[0] >> 7) if seen else _FLAGS


def _key(flags: bytes, cut: _Cut) -> tuple[Any, ...]:
    """What headers that are alike have in common: the common header, the flags, and what else is not told apart."""
    return flags, cut.place is None, cut.head, cut.rest


def _text(name: bytes, ctx: SyntaxContext) -> str | None:
    try:
        return name.decode() if len(name) <= ctx.limits.name_length else None
    except UnicodeDecodeError:
        return None
