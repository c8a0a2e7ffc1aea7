"""The wire format of protocol buffers: replacing messages inside a message without parsing, or loading, the rest.

A model's weights are bytes somewhere in its file. Reading lifts them out (what remains is small and is parsed by the
package ``onnx``), writing puts them in again as they come; neither holds the model in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from nnc_core.stored import Bytes

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_MAXIMUM_DEPTH = 100  # the bound of protocol buffers' own parsers


class WireError(ValueError):
    """The bytes are not a message."""


class Field(NamedTuple):
    """One field of a message: its key begins at ``start``, its value fills ``value`` to ``end``."""

    number: int
    wire_type: int
    start: int
    value: int
    end: int


class Hole(NamedTuple):
    """``size`` bytes that are known only when they are written: those of the tensor ``name``, perhaps transposed."""

    name: str
    size: int
    transposed: bool = False


Piece = bytes | memoryview | Hole
Visitor = Callable[[int, int], "list[Piece] | None"]


def fields(data: Bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[start:end]``; `WireError` if it is not one."""
    at = start
    while at < end:
        begin = at
        key, at = varint(data, at, end)
        number, wire_type = key >> 3, key & 7
        size = _FIXED_SIZE.get(wire_type, 0)
        value = at
        if wire_type == VARINT:
            _, at = varint(data, at, end)
        elif wire_type == LENGTH_DELIMITED:
            size, value = varint(data, at, end)
            at = value + size
        elif size:
            at += size
        else:
            raise WireError(f"wire type {wire_type} at byte {begin}")
        if at > end or number == 0:
            raise WireError(f"field {number} at byte {begin} ends outside its message")
        yield Field(number, wire_type, begin, value, at)


def varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends; `WireError` where that is not before ``end``."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise WireError(f"the data end at byte {at} inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError(f"a number before byte {at} has more than 64 bits")


def key(number: int, size: int) -> bytes:
    """The bytes that precede a length-delimited value of ``size`` bytes."""
    return encoded(number << 3 | LENGTH_DELIMITED) + encoded(size)


def encoded(value: int) -> bytes:
    """A number of any size in as many bytes as it needs."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length(pieces: Sequence[Piece]) -> int:
    """How many bytes the pieces make."""
    return sum(piece.size if isinstance(piece, Hole) else len(piece) for piece in pieces)


class Rewriter:
    """Replaces messages of one type, however deep they are, and corrects the sizes of the messages around them."""

    def __init__(self, data: Bytes, target: str, visit: Visitor, worth: Callable[[int, int], bool]) -> None:
        """``visit`` gives the replacement of a message of type ``target`` or None; ``worth`` says where to look."""
        self.data, self.target, self.visit, self.worth = data, target, visit, worth

    def rewrite(self, descriptor: Any) -> list[Piece]:
        """The whole of ``data``, a message of the type that ``descriptor`` describes, as pieces."""
        end = len(self.data)
        return self._message(0, end, descriptor, 0) or [self.data[:]]

    def _message(self, start: int, end: int, descriptor: Any, depth: int) -> list[Piece] | None:
        if descriptor.full_name == self.target:
            return self.visit(start, end)
        if not self.worth(start, end):
            return None
        if depth > _MAXIMUM_DEPTH:
            raise WireError(f"more than {_MAXIMUM_DEPTH} messages inside each other")
        pieces: list[Piece] = []
        kept = start
        for field in fields(self.data, start, end):
            inner = self._field(field, descriptor, depth)
            if inner is not None:
                pieces += (self.data[kept : field.start], key(field.number, length(inner)), *inner)
                kept = field.end
        return [*pieces, self.data[kept:end]] if pieces else None

    def _field(self, field: Field, descriptor: Any, depth: int) -> list[Piece] | None:
        known = descriptor.fields_by_number.get(field.number)
        if known is None or known.message_type is None or field.wire_type != LENGTH_DELIMITED:
            return None
        return self._message(field.value, field.end, known.message_type, depth + 1)
