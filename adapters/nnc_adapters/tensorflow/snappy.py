"""Snappy, as far as it has to be undone: a length, then literals and copies of what came before.

A format of one page, of which the packages that know it bring native code for the other direction.
"""

from __future__ import annotations

from nnc_adapters.shared import protobuf

__all__ = ["uncompressed"]

_LITERAL = 0
_MOST_FOR_A_BYTE = 22  # a copy of 64 bytes takes three


def uncompressed(data: memoryview, most: int) -> bytes:
    """The bytes that ``data`` were; `protobuf.WireError` where they are damaged or more than ``most``."""
    size, at = protobuf.varint(data, 0, len(data))
    if size > min(most, _MOST_FOR_A_BYTE * len(data)):
        raise protobuf.WireError(f"a block of {len(data)} bytes cannot become {size}")
    out = bytearray()
    while at < len(data):
        at = _literal(data, at, out) if data[at] & 3 == _LITERAL else _copy(data, at, out)
        if len(out) > size:
            raise protobuf.WireError(f"a block of {size} bytes has more")
    if len(out) != size:
        raise protobuf.WireError(f"a block of {size} bytes ends after {len(out)}")
    return bytes(out)


def _literal(data: memoryview, at: int, out: bytearray) -> int:
    size = (data[at] >> 2) + 1
    at += 1
    if size > 60:  # then it stands in so many bytes
        width = size - 60
        size = _number(data, at, width) + 1
        at += width
    _check(data, at + size)
    out += data[at : at + size]
    return at + size


def _copy(data: memoryview, at: int, out: bytearray) -> int:
    tag, kind = data[at], data[at] & 3
    size = (tag >> 2 & 7) + 4 if kind == 1 else (tag >> 2) + 1
    width = (1, 2, 4)[kind - 1]
    distance = _number(data, at + 1, width) | (tag >> 5 << 8 if kind == 1 else 0)
    if not 0 < distance <= len(out):
        raise protobuf.WireError(f"a copy from {distance} bytes before, of {len(out)}")
    start = len(out) - distance
    piece = bytes(out[start : start + size])
    out += (piece * (size // len(piece) + 1))[:size]  # it may go on with what it makes
    return at + 1 + width


def _number(data: memoryview, at: int, width: int) -> int:
    _check(data, at + width)
    return int.from_bytes(data[at : at + width], "little")


def _check(data: memoryview, end: int) -> None:
    if end > len(data):
        raise protobuf.WireError("a compressed block ends too early")
