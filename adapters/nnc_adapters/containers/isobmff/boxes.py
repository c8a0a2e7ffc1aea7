"""Boxes of ISO/IEC 14496-12: walking over them, and making them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from nnc_core.errors import ModelError

__all__ = ["Box", "Cursor", "box", "box_header", "boxes", "full_box"]

_LARGE = 1 << 32


class Box(NamedTuple):
    """A box at ``start``, with its content from ``body`` to ``end``; ``open`` if its size says "to the end"."""

    type: bytes
    start: int
    body: int
    end: int
    open: bool


def boxes(read: Callable[[int, int], bytes], start: int, end: int, *, top: bool = False) -> Iterator[Box]:
    """The boxes that fill the bytes ``start`` to ``end``; ``read`` takes an offset and a size.

    `ModelError` for a size that the bytes do not have. Only at the ``top`` may a box extend to the end of the file.
    """
    at = start
    while at < end:
        if end - at < 8:
            raise ModelError(f"{end - at} bytes at {at} are not a box")
        size, kind = struct.unpack(">I4s", read(at, 8))
        body, to_the_end = at + 8, top and size == 0
        if size == 1 and end - at >= 16:
            (size,) = struct.unpack(">Q", read(at + 8, 8))
            body += 8
        if to_the_end:
            size = end - at
        if not body - at <= size <= end - at:
            raise ModelError(f"a box {kind!r} of {size} bytes at {at}, where {end - at} are left")
        yield Box(kind, at, body, at + size, to_the_end)
        at += size


def box_header(kind: bytes, size: int) -> bytes:
    """What precedes ``size`` bytes of content."""
    if size + 8 < _LARGE:
        return struct.pack(">I4s", size + 8, kind)
    return struct.pack(">I4sQ", 1, kind, size + 16)


def box(kind: bytes, *content: bytes) -> bytes:
    """A box."""
    data = b"".join(content)
    return box_header(kind, len(data)) + data


def full_box(kind: bytes, version: int, *content: bytes) -> bytes:
    """A box that starts with a version and flags of zero."""
    return box(kind, struct.pack(">I", version << 24), *content)


class Cursor:
    """Reads numbers and texts from the content of a box; `ModelError` past its end."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._at = 0

    def u(self, size: int) -> int:
        """An unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > len(self._data) - self._at:
            raise ModelError(f"the box {self._name!r} is too short")
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self) -> str:
        """A UTF-8 text up to a zero byte."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ModelError(f"a text in the box {self._name!r} has no end")
        data = self.take(end - self._at)
        self._at += 1
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ModelError(f"a text in the box {self._name!r} is not UTF-8: {error}") from None

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._data)
