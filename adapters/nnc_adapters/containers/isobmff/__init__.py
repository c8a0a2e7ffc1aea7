"""ISO base media files (ISO/IEC 14496-12) with bitstreams as items of type ``nnr1`` (ISO/IEC 14496-15).

Items are found through the ``meta`` box of the file. What else is in a file is kept; an ``nnrC`` property, whose
content is not interpreted, stays with its item.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from nnc_adapters.containers.base import Items, Source, opened
from nnc_adapters.containers.isobmff import meta as metas
from nnc_adapters.containers.isobmff.boxes import Box, box, box_header, boxes, full_box
from nnc_adapters.containers.isobmff.meta import Extent, Location, Meta
from nnc_adapters.shared.files import replacing
from nnc_core.bitstream.parts import MODEL
from nnc_core.errors import LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.syntax import Buffer

__all__ = ["Isobmff"]

_BRAND = b"iso6"
_HANDLER = b"nnet"
_LONGEST_FIRST_BOX = 4096


class Isobmff:
    """One item for each bitstream; the key is the item's name."""

    name: str = "isobmff"
    suffixes: tuple[str, ...] = (".mp4",)
    packages: tuple[str, ...] = ()

    def sniff(self, path: Path) -> bool:
        """Whether it is a file of boxes that has an item of type ``nnr1``."""
        try:
            if not path.is_file():
                return False
            with self.open(path):
                return True
        except (NncError, OSError):
            return False

    def open(self, path: Path, limits: Limits | None = None) -> Items:
        """The items of type ``nnr1``; a lone one without name, and a primary one, are the model."""
        limits = limits or Limits()
        source = Source(path)
        return Items(path, _found(source, limits), source.close, limits)

    def write(self, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write a file of ``ftyp``, ``mdat`` and ``meta``."""
        start = box(b"ftyp", _BRAND, bytes(4), _BRAND)
        with replacing(path, force=force) as stream:
            stream.write(start)
            _append(stream, len(start), None, items)

    def write_into(self, base: Path, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write ``base`` with ``items`` in place of its NNR items; nothing else moves.

        New boxes are appended, and the space of a replaced ``meta`` box is left free. An item that has the name of an
        old one, or is the only one as that was, also has its number, and thus its properties.
        """
        with _located(base), Source(base) as source, replacing(path, force=force) as stream:
            found = _meta(source, Limits())
            with opened(base) as original:
                shutil.copyfileobj(original, stream, 1 << 20)
            _close_last_box(stream, source)
            if found:
                _overwrite(stream, found.box.start + 4, b"free")
            _append(stream, source.size, found, items, source)


def _found(source: Source, limits: Limits) -> Iterator[tuple[str, Callable[[], Buffer]]]:
    with _located(source.path):
        meta = _meta(source, limits)
        items = _nnr_items(meta)
        found = [(item, metas.spans(meta, item, source.size)) for item in items.values()] if meta else []
        for item, spans in found:
            anonymous = MODEL if len(found) == 1 or (meta and item.id == meta.primary) else f"item {item.id}"
            yield item.name or anonymous, partial(_read, source, spans)


def _nnr_items(meta: Meta | None) -> dict[int, metas.Item]:
    return {number: item for number, item in meta.items.items() if item.type == metas.NNR_ITEM} if meta else {}


def _read(source: Source, spans: tuple[tuple[int, int], ...]) -> bytes:
    return b"".join(source.read(start, end - start) for start, end in spans)


def _meta(source: Source, limits: Limits) -> Meta | None:
    found: list[Box] = []
    for count, each in enumerate(boxes(source.read, 0, source.size, top=True), 1):
        limits.check("units", count, "the file's boxes")
        if count == 1 and (each.type not in (b"ftyp", b"styp") or each.end - each.body > _LONGEST_FIRST_BOX):
            raise ModelError("not an ISO base media file: it does not begin with 'ftyp'")
        if each.type == b"meta":
            found.append(each)
    if not source.size:
        raise ModelError("the file is empty")
    if len(found) > 1:
        raise ModelError("the box 'meta' occurs twice")
    return metas.read_meta(source, found[0], limits) if found else None


def _append(
    stream: BinaryIO, at: int, old: Meta | None, items: Mapping[str, Buffer], source: Source | None = None
) -> None:
    """Write the bitstreams and the new ``meta`` box at the end of the file, which is ``at``."""
    sizes = {key: len(items[key]) for key in items}
    if "" in sizes:
        raise ModelError("an item without name cannot be found again", tensor="")
    header = box_header(b"mdat", sum(sizes.values()))
    stream.write(header)
    for key in items:
        stream.write(items[key])
    at += len(header)
    places = {}
    for key, size in sizes.items():
        places[key] = Location(0, 0, (Extent(0, at, size),))
        at += size
    stream.write(_new_meta(old, places, source))


def _new_meta(old: Meta | None, places: Mapping[str, Location], source: Source | None) -> bytes:
    ids = _ids(old, list(places))
    names = {number: key for key, number in ids.items()}
    replaced = _nnr_items(old)
    for number, item in replaced.items():
        if number in names and item.name:
            names[number] = item.name
    gone = replaced.keys() - names.keys()
    kept = {n: item for n, item in old.items.items() if n not in replaced} if old else {}
    located = {n: place for n, place in old.locations.items() if n not in replaced} if old else {}
    located |= {ids[key]: place for key, place in places.items()}
    primary = old.primary if old and old.primary not in gone else None
    primary = ids.get(MODEL) if primary is None else primary
    infos = [item.infe for item in kept.values()] + [metas.encode_infe(n, name) for n, name in names.items()]
    content = [_handler()] if old is None else _kept_children(old, gone)
    content += [metas.encode_pitm(primary)] if primary is not None else []
    content += [metas.encode_iinf(infos), metas.encode_iloc(located)]
    if old and source and old.idat[0]:
        content.append(box(b"idat", source.read(old.idat[0], old.idat[1] - old.idat[0])))
    return full_box(b"meta", 0, *content)


def _ids(old: Meta | None, keys: list[str]) -> dict[str, int]:
    """A number for each item: that of the item it replaces, or one that no item has."""
    replaced = {item.name: number for number, item in _nnr_items(old).items()}
    if len(replaced) == len(keys) == 1:
        return {keys[0]: next(iter(replaced.values()))}
    used = {*old.items, *old.locations} if old else set()
    free = max(used, default=0)
    found = {}
    for key in keys:
        if key not in replaced:
            free += 1
        found[key] = replaced.get(key, free)
    if free >= 1 << 32:
        raise LimitError("item_ID", free, (1 << 32) - 1)
    return found


def _handler() -> bytes:
    return full_box(b"hdlr", 0, struct.pack(">I4s12x", 0, _HANDLER), b"\0")


def _kept_children(old: Meta, gone: set[int]) -> list[bytes]:
    made_anew = (b"pitm", b"iinf", b"iloc")
    children = [(kind, raw) for kind, raw in old.children if kind not in made_anew]
    if gone and any(kind == b"iref" for kind, _ in children):
        raise UnsupportedError("iref", "references between items, of which some would vanish, are not supported")
    return [metas.without_associations(raw, gone) if kind == b"iprp" else raw for kind, raw in children]


def _close_last_box(stream: BinaryIO, source: Source) -> None:
    """Give a box that extends to the end of the file the size it has, so that others can follow."""
    last = list(boxes(source.read, 0, source.size, top=True))[-1]
    if last.open:
        if last.end - last.start >= 1 << 32:
            raise UnsupportedError("a last box without size of more than 4 GiB")
        _overwrite(stream, last.start, struct.pack(">I", last.end - last.start))


def _overwrite(stream: BinaryIO, at: int, data: bytes) -> None:
    stream.seek(at)
    stream.write(data)
    stream.seek(0, 2)


@contextmanager
def _located(path: Path) -> Iterator[None]:
    """Name the file in errors of the block."""
    try:
        yield
    except ModelError as error:
        raise ModelError(error.message, file=error.file or str(path), tensor=error.tensor) from error
