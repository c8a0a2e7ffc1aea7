"""Ways to damage data of any kind: each takes a source of chance and bytes, and gives other bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

Damage = Callable[[Random, bytes], bytes]

EXTREMES = (0, 1, 2, 7, 255, 1 << 10, 1 << 16, (1 << 20) + 1, (1 << 29) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)

_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
_SIGNALLING = (0x7C01, 0x7F81, 0x7F800001, 0x7FF0000000000001)  # NaN of which arithmetic warns, of all sizes
_LARGER = (*EXTREMES, *_SIGNALLING, (1 << 32) + 1, (1 << 62) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_NUMBER = re.compile(rb"-?\d+")
_OTHER_NUMBERS = (b"-1", b"-0", b"1e3", b"1.5", b"1e999", b"NaN", b"true", b"0x10", b"1_0", b"9" * 30, b"9" * 5000)


def flipped(source: Random, data: bytes) -> bytes:
    """Flip a few bits."""
    changed = bytearray(data or b"\0")
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
    return bytes(changed)


def overwritten(source: Random, data: bytes) -> bytes:
    """Set a few bytes."""
    changed = bytearray(data or b"\0")
    for _ in range(source.choice((1, 1, 2, 4))):
        changed[source.randrange(len(changed))] = source.choice((*_BYTES, source.randrange(256)))
    return bytes(changed)


def inserted_or_deleted(source: Random, data: bytes) -> bytes:
    """Insert or take out a few bytes."""
    at = source.randrange(len(data) or 1)
    count = source.choice((1, 2, 3, 8, 40))
    if source.random() < 0.5:
        return data[:at] + data[at + count :]
    filling = source.choice((source.randbytes(count), bytes(count), b"\xff" * count))
    return data[:at] + filling + data[at:]


def with_chunks_moved(source: Random, data: bytes) -> bytes:
    """Remove, repeat, or move a piece of any size."""
    size = 1 << source.randrange(max(1, len(data).bit_length()))
    at, to = source.randrange(len(data) or 1), source.randrange(len(data) + 1)
    piece = data[at : at + size]
    action = source.randrange(4)
    if action == 0:
        return data[:at] + data[at + size :]
    if action == 1:
        return data[:at] + piece * source.choice((1, 2, 50)) + data[at:]
    if action == 2:
        return data[:to] + piece + data[to:]
    return data[:to] + piece + data[to + len(piece) :]


def with_extreme_number(source: Random, data: bytes) -> bytes:
    """Put an extreme number in the place of any other: of any width and byte order, or of variable length."""
    value = source.choice((*_LARGER, len(data), max(0, len(data) - 1), len(data) + 1))
    width = source.choice((1, 2, 2, 4, 4, 8))
    at = source.randrange(len(data) or 1)
    if source.random() < 0.5:
        at -= at % width
    if source.random() < 0.2:
        return data[:at] + _varint(value) + data[at + 1 :]
    number = (value & ((1 << 8 * width) - 1)).to_bytes(width, source.choice(("little", "big")))
    return data[:at] + number + data[at + width :]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def with_other_number_in_text(source: Random, data: bytes) -> bytes:
    """Replace a number that is written in digits; where there is none, flip bits."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return flipped(source, data)
    number = source.choice(found)
    other = source.choice((*_OTHER_NUMBERS, *(b"%d" % value for value in (*_LARGER, 1 << 64))))
    return data[: number.start()] + other + data[number.end() :]


ANY: tuple[Damage, ...] = (
    *(flipped, overwritten, overwritten, inserted_or_deleted, with_chunks_moved),
    *(with_extreme_number, with_extreme_number, with_other_number_in_text),
)
"""What can be done to bytes that nothing is known about."""


# JSON -----------------------------------------------------------------------------------------------------------------

_OTHER_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 1.5, 1 << 40, (1 << 63) - 1, 1 << 64),
    *("", "\0", "\ud800", "w" * 5000, "../x", "a/" * 1500 + "f"),
    *([], {}, [[]], [0], [-1], [1 << 40] * 3, ["w"], {"w": 1}, [0] * 70),
)


def with_other_json(source: Random, data: bytes) -> bytes:
    """Replace, remove, or repeat a value in a JSON document; what is not JSON is damaged in another way."""
    try:
        document = json.loads(data)
    except ValueError:
        return source.choice(ANY)(source, data)
    places = list(_places(document))
    if not places:
        return json.dumps(source.choice(_OTHER_VALUES)).encode()
    container, key = source.choice(places)
    action = source.randrange(5)
    if action == 0:
        del container[key]
    elif action == 1:
        _repeat(source, container, key)
    elif action == 2:
        other, place = source.choice(places)
        container[key] = json.loads(json.dumps(other[place]))
    else:
        container[key] = source.choice(_OTHER_VALUES)
    return json.dumps(document, ensure_ascii=source.random() < 0.9).encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every value inside ``value``, as the container that it is in and its key there."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        container = pending.pop()
        keys: Iterable[Any] = ()
        if isinstance(container, (dict, list)):
            keys = list(container) if isinstance(container, dict) else range(len(container))
        found += ((container, key) for key in keys)
        pending += (container[key] for key in keys)
    return found


def _repeat(source: Random, container: Any, key: Any) -> None:
    if isinstance(container, list):
        container.insert(source.randrange(len(container) + 1), container[key])
    else:
        container[source.choice(("", "w", f"{key}2", f"{key} "))] = container[key]
