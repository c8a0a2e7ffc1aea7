"""What stands in a text twice only once, however far apart: deflate looks back no more than 32 KiB.

Graphs of models repeat themselves, and such descriptions are most of a small model's bitstream. A shortened text is the
number of repeats, for each of them the bytes before it that are new, then for each where it stood before, relative to
the end of the one before, then for each its length, all as variable-length numbers; behind them all bytes that are new.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from nnc_adapters.shared import protobuf

__all__ = ["restored", "shortened"]

_BLOCK, _STEP, _LEAST = 48, 12, 64
_SHORTEST, _LONGEST = 1 << 15, 1 << 23
_WORTHWHILE = 256

_Repeat = tuple[int, int, int]
"""New bytes before it, where it stood, and its length."""


def shortened(data: bytes) -> bytes | None:
    """``data`` without repeats; None where it is not a text of the kind, or deflate does as well."""
    if not _SHORTEST < len(data) <= _LONGEST or 2 * len(zlib.compress(data, 1)) > len(data):
        return None
    found = list(_repeats(data))
    short = _numbers(found) + b"".join(_new(data, found))
    return short if len(zlib.compress(short, 9)) + _WORTHWHILE < len(zlib.compress(data, 9)) else None


def _repeats(data: bytes) -> Iterator[_Repeat]:
    known: dict[bytes, int] = {}
    at = done = indexed = 0
    while at + _BLOCK <= len(data):
        while indexed + _BLOCK <= at:
            known.setdefault(data[indexed : indexed + _BLOCK], indexed)
            indexed += _STEP
        source = known.get(data[at : at + _BLOCK])
        if source is None:
            at += 1
            continue
        back = _same_before(data, source, at, done)
        size = min(back + _same(data, source, at), at - source)  # a repeat ends before it begins again
        if size < _LEAST:
            at += 1
            continue
        yield at - back - done, source - back, size
        at = done = at - back + size


def _same(data: bytes, source: int, at: int) -> int:
    """How many bytes from both places are the same, up to where the second begins."""
    most, size = min(at - source, len(data) - at), _BLOCK
    while size < most and data[source + size] == data[at + size]:
        size += 1
    return min(size, most)


def _same_before(data: bytes, source: int, at: int, done: int) -> int:
    size = 0
    while at - size > done and source > size and data[source - size - 1] == data[at - size - 1]:
        size += 1
    return size


def _new(data: bytes, found: list[_Repeat]) -> Iterator[bytes]:
    at = 0
    for new, _, size in found:
        yield data[at : at + new]
        at += new + size
    yield data[at:]


def _numbers(found: list[_Repeat]) -> bytes:
    gaps = b"".join(protobuf.encoded(new) for new, _, _ in found)
    sizes = b"".join(protobuf.encoded(size) for _, _, size in found)
    ends = [0, *(source + size for _, source, size in found)]
    steps = (source - end for (_, source, _), end in zip(found, ends, strict=False))
    sources = b"".join(protobuf.encoded(2 * step if step >= 0 else -2 * step - 1) for step in steps)
    return protobuf.encoded(len(found)) + gaps + sources + sizes


def restored(short: bytes, size: int) -> bytes:
    """The ``size`` bytes that `shortened` was given; `ValueError` where ``short`` is not what it gave."""
    view, out = memoryview(short), bytearray()
    count, at = protobuf.varint(view, 0, len(view))
    if count > len(short):
        raise ValueError(f"{len(short)} bytes cannot have {count} repeats")
    numbers = []
    for _ in range(3 * count):
        number, at = protobuf.varint(view, at, len(view))
        numbers.append(number)
    end = 0
    for new, step, length in zip(numbers[:count], numbers[count : 2 * count], numbers[2 * count :], strict=True):
        start = end + (-(step + 1) // 2 if step % 2 else step // 2)
        end = start + length
        out += view[at : at + new]
        at += new
        if not 0 <= start <= end <= len(out) or len(out) + length > size or at > len(view):
            raise ValueError("a repeat is not of what was there before")
        out += out[start:end]
    out += view[at:]
    if len(out) != size:
        raise ValueError(f"{len(out)} bytes are there, not {size}")
    return bytes(out)
