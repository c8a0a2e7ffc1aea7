"""The ``meta`` box of a file: which items there are, and where their bytes lie."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import NamedTuple, TypeVar

from nnc_adapters.containers.base import Source
from nnc_adapters.containers.isobmff.boxes import Box, Cursor, box, boxes, full_box
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.records import dataclass

__all__ = ["NNR_ITEM", "Extent", "Item", "Location", "Meta", "encode_iinf", "encode_iloc", "encode_infe", "read_meta"]

NNR_ITEM = b"nnr1"

_SINGLE = (b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp", b"idat", b"iref")
_WIDTHS = (0, 4, 8)
_SHORT = 0xFFFF

T = TypeVar("T")


class Extent(NamedTuple):
    """A run of bytes of an item."""

    reference: int
    offset: int
    length: int


class Location(NamedTuple):
    """Where an item lies: method 0 in the file, 1 in ``idat``; the base offset is in the offsets already."""

    method: int
    data_reference_index: int
    extents: tuple[Extent, ...]


class Item(NamedTuple):
    """An entry of the ``iinf`` box; ``infe`` are its bytes."""

    id: int
    type: bytes
    name: str
    protected: bool
    infe: bytes


@dataclass(slots=True)
class Meta:
    """What the ``meta`` box says; ``children`` are its boxes as they are, ``box`` is where it lies."""

    box: Box
    children: list[tuple[bytes, bytes]] = field(default_factory=list)
    items: dict[int, Item] = field(default_factory=dict)
    locations: dict[int, Location] = field(default_factory=dict)
    primary: int | None = None
    idat: tuple[int, int] = (0, 0)  # start and end in the file


def read_meta(source: Source, meta: Box, limits: Limits) -> Meta:
    """Read the box but for its ``idat``, which is only located.

    `ModelError` for damaged boxes and for items or boxes that occur twice, `LimitError` for more bytes or items than
    ``limits`` allow.
    """
    found = Meta(meta)
    if source.read(meta.body, min(4, meta.end - meta.body)) != bytes(4):
        raise ModelError("the box 'meta' has an unknown version")
    limits.check("topology_bytes", meta.end - meta.start, "the box 'meta'")
    content: dict[bytes, bytes] = {}
    for count, child in enumerate(boxes(source.read, meta.body + 4, meta.end), 1):
        limits.check("units", count, "the boxes in 'meta'")
        if child.type in content and child.type in _SINGLE:
            raise ModelError(f"the box {child.type!r} occurs twice")
        if child.type == b"idat":
            found.idat = child.body, child.end
            content[child.type] = b""
        else:
            raw = source.read(child.start, child.end - child.start)
            found.children.append((child.type, raw))
            content[child.type] = raw[child.body - child.start :]
    _interpret(found, content, limits)
    return found


def _interpret(found: Meta, content: Mapping[bytes, bytes], limits: Limits) -> None:
    if b"iinf" in content:
        found.items = dict(_unique("iinf", _infos(content[b"iinf"], limits)))
    if b"iloc" in content:
        found.locations = dict(_unique("iloc", _locations(content[b"iloc"], limits)))
    if b"pitm" in content:
        cursor = Cursor(content[b"pitm"], "pitm")
        found.primary = cursor.u(4 if cursor.u(4) >> 24 else 2)


def _unique(name: str, entries: Iterable[tuple[int, T]]) -> Iterator[tuple[int, T]]:
    seen: set[int] = set()
    for key, value in entries:
        if key in seen:
            raise ModelError(f"the item {key} is in the box {name!r} twice")
        seen.add(key)
        yield key, value


def _infos(data: bytes, limits: Limits) -> Iterator[tuple[int, Item]]:
    cursor = Cursor(data, "iinf")
    count = cursor.u(4 if cursor.u(4) >> 24 else 2)
    rest = cursor.rest()
    entries = list(_children(rest, limits))
    if len(entries) != count:
        raise ModelError(f"the box 'iinf' has {len(entries)} entries, expected {count}")
    for entry in entries:
        if entry.type == b"infe":
            item = _info(rest[entry.body : entry.end], rest[entry.start : entry.end])
            yield item.id, item


def _children(data: bytes, limits: Limits) -> Iterator[Box]:
    for count, child in enumerate(boxes(lambda at, size: data[at : at + size], 0, len(data)), 1):
        limits.check("units", count, "the box 'iinf'")
        yield child


def _info(body: bytes, infe: bytes) -> Item:
    cursor = Cursor(body, "infe")
    version = cursor.u(4) >> 24
    number = cursor.u(4 if version == 3 else 2)
    protection = cursor.u(2)
    if version not in (2, 3):
        return Item(number, b"", "", False, infe)
    return Item(number, cursor.take(4), cursor.text(), protection != 0, infe)


def _locations(data: bytes, limits: Limits) -> Iterator[tuple[int, Location]]:
    cursor = Cursor(data, "iloc")
    version = cursor.u(4) >> 24
    if version > 2:
        raise ModelError(f"the box 'iloc' has version {version}")
    sizes = cursor.u(2)
    widths = [sizes >> shift & 15 for shift in (12, 8, 4, 0)]
    widths[3] *= version > 0
    if any(width not in _WIDTHS for width in widths):
        raise ModelError(f"the box 'iloc' has numbers of {widths} bytes")
    if not widths[1]:
        raise UnsupportedError("an 'iloc' box without lengths")
    count = limits.check("units", cursor.u(4 if version == 2 else 2), "the box 'iloc'")
    for _ in range(count):
        yield cursor.u(4 if version == 2 else 2), _location(cursor, version, widths, limits)
    if not cursor.done:
        raise ModelError("bytes follow the last entry of the box 'iloc'")


def _location(cursor: Cursor, version: int, widths: list[int], limits: Limits) -> Location:
    offset_size, length_size, base_offset_size, index_size = widths
    method = cursor.u(2) & 15 if version else 0
    data_reference_index = cursor.u(2)
    base = cursor.u(base_offset_size)
    extents = []
    for _ in range(limits.check("units", cursor.u(2), "an item's extents")):
        reference = cursor.u(index_size)
        extents.append(Extent(reference, base + cursor.u(offset_size), cursor.u(length_size)))
    return Location(method, data_reference_index, tuple(extents))


def spans(meta: Meta, item: Item, size: int) -> tuple[tuple[int, int], ...]:
    """Start and end in the file of each run of the item's bytes; ``size`` is that of the file.

    `ModelError` where they are not inside the file, or are more than all of it; `UnsupportedError` for protected
    items, and items in other files or in terms of each other.
    """
    location = meta.locations.get(item.id)
    if location is None:
        raise ModelError("the item has no place in the box 'iloc'", tensor=item.name)
    if item.protected or location.data_reference_index or location.method > 1:
        raise UnsupportedError("an item that is protected, in another file or part of another item")
    start, end = (0, size) if location.method == 0 else meta.idat
    found = tuple((start + extent.offset, start + extent.offset + extent.length) for extent in location.extents)
    if not found or any(not start <= a < b <= end for a, b in found) or sum(b - a for a, b in found) > size:
        raise ModelError("the item's bytes are not in the file", tensor=item.name)
    return found


def encode_infe(number: int, name: str) -> bytes:
    """The entry of an NNR item."""
    version, form = (2, ">HH4s") if number <= _SHORT else (3, ">IH4s")
    return full_box(b"infe", version, struct.pack(form, number, 0, NNR_ITEM), name.encode() + b"\0")


def encode_iinf(entries: list[bytes]) -> bytes:
    """The ``iinf`` box with these ``infe`` boxes."""
    long = len(entries) > _SHORT
    return full_box(b"iinf", int(long), struct.pack(">I" if long else ">H", len(entries)), *entries)


def encode_pitm(number: int) -> bytes:
    """The ``pitm`` box."""
    long = number > _SHORT
    return full_box(b"pitm", int(long), struct.pack(">I" if long else ">H", number))


def encode_iloc(locations: Mapping[int, Location]) -> bytes:
    """The ``iloc`` box."""
    version = 2 if max((*locations, len(locations))) > _SHORT else 1
    extents = [extent for location in locations.values() for extent in location.extents]
    largest = max((max(extent.offset, extent.length) for extent in extents), default=0)
    width = 4 if largest < 1 << 32 else 8
    index_width = 4 * any(extent.reference for extent in extents)
    widths = struct.pack(">BB", width << 4 | width, index_width)
    wide = 4 if version == 2 else 2  # bytes of an item ID
    parts = [widths, len(locations).to_bytes(wide, "big")]
    for number, location in locations.items():
        count = len(location.extents)
        parts.append(number.to_bytes(wide, "big"))
        parts.append(struct.pack(">HHH", location.method, location.data_reference_index, count))
        for extent in location.extents:
            parts.append(extent.reference.to_bytes(index_width, "big"))
            parts.append(extent.offset.to_bytes(width, "big") + extent.length.to_bytes(width, "big"))
    return full_box(b"iloc", version, *parts)


def without_associations(iprp: bytes, gone: set[int]) -> bytes:
    """The ``iprp`` box without what it says of the items ``gone``; properties stay, they go by their number."""
    head = 8 if iprp[:4] != b"\0\0\0\1" else 16
    children = []
    for child in boxes(lambda at, size: iprp[at : at + size], head, len(iprp)):
        raw = iprp[child.start : child.end]
        children.append(_filtered(raw[child.body - child.start :], gone) if child.type == b"ipma" else raw)
    return box(b"iprp", *children)


def _filtered(ipma: bytes, gone: set[int]) -> bytes:
    cursor = Cursor(ipma, "ipma")
    head = cursor.u(4)
    wide_id, wide_index = 4 if head >> 24 else 2, 2 if head & 1 else 1
    kept = []
    for _ in range(cursor.u(4)):
        number = cursor.take(wide_id)
        count = cursor.take(1)
        associations = cursor.take(count[0] * wide_index)
        if int.from_bytes(number, "big") not in gone:
            kept.append(number + count + associations)
    return box(b"ipma", struct.pack(">II", head, len(kept)), *kept)
