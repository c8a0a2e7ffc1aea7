"""The sorted table of LevelDB, in which a checkpoint's index is stored: entries with the places of their values.

A table is a row of blocks, each followed by its compression type and a checksum. The last 48 bytes say where the index
block is, which says where the others are. Values are changed in place: then only the checksum of their block changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nnc_adapters.shared import protobuf
from nnc_adapters.tensorflow.checksum import masked_crc32c
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits

__all__ = ["MAGIC", "Entry", "entries", "seal"]

MAGIC = bytes.fromhex("57fb808b247547db")
"""The last bytes of a table."""

_FOOTER = 48
_TRAILER = 5  # compression type and checksum
_SNAPPY = 1


class Block(NamedTuple):
    """The contents of a block, without its trailer."""

    start: int
    end: int


class Entry(NamedTuple):
    """One entry; its value fills ``start`` to ``end`` of the table, inside ``block``."""

    key: bytes
    start: int
    end: int
    block: Block


def entries(table: memoryview, limits: Limits) -> Iterator[Entry]:
    """Every entry of a table, in order.

    Raises `ModelError` where it is damaged, `UnsupportedError` for compressed blocks, `LimitError` for a key beyond
    ``limits.name_length``.
    """
    try:
        yield from _entries(table, limits)
    except protobuf.WireError as error:
        raise ModelError(f"the index is damaged: {error}") from error


def _entries(table: memoryview, limits: Limits) -> Iterator[Entry]:
    footer = len(table) - _FOOTER
    if footer < 0 or table[-len(MAGIC) :] != MAGIC:
        raise ModelError("is no index of a checkpoint: it does not end like a LevelDB table")
    _, at = _handle(table, footer, len(table) - len(MAGIC), footer)
    index, _ = _handle(table, at, len(table) - len(MAGIC), footer)
    last, end = None, 0
    for pointer in _block_entries(table, index, limits):
        block, _ = _handle(table, pointer.start, pointer.end, footer)
        if block.start < end:
            raise protobuf.WireError(f"the block at byte {block.start} comes after one that ends at byte {end}")
        end = block.end + _TRAILER
        for entry in _block_entries(table, block, limits):
            if last is not None and entry.key <= last:
                raise ModelError(f"the index is damaged: its keys are not in order at byte {entry.start}")
            last = entry.key
            yield entry


def _handle(table: memoryview, at: int, end: int, available: int) -> tuple[Block, int]:
    """The block that the two numbers at ``at`` point to, and where they end."""
    start, at = protobuf.varint(table, at, end)
    size, at = protobuf.varint(table, at, end)
    if start + size + _TRAILER > available:
        raise protobuf.WireError(f"a block of {size} bytes at byte {start} ends outside the table")
    return Block(start, start + size), at


def _block_entries(table: memoryview, block: Block, limits: Limits) -> Iterator[Entry]:
    _check_trailer(table, block)
    at, end = block.start, _restarts(table, block)
    key = b""
    while at < end:
        shared, at = protobuf.varint(table, at, end)
        added, at = protobuf.varint(table, at, end)
        size, at = protobuf.varint(table, at, end)
        if shared > len(key) or at + added + size > end:
            raise protobuf.WireError(f"an entry before byte {at} reaches out of its block")
        limits.check("name_length", shared + added, "the index of a checkpoint")
        key = key[:shared] + bytes(table[at : at + added])
        yield Entry(key, at + added, at + added + size, block)
        at += added + size


def _check_trailer(table: memoryview, block: Block) -> None:
    kind = table[block.end]
    stored = int.from_bytes(table[block.end + 1 : block.end + _TRAILER], "little")
    if masked_crc32c([bytes(table[block.start : block.end + 1])]) != stored:
        raise ModelError(f"the index is damaged: the checksum of the block at byte {block.start} is wrong")
    if kind == _SNAPPY:
        raise UnsupportedError("a checkpoint index compressed with snappy")
    if kind != 0:
        raise UnsupportedError(f"a checkpoint index with compression type {kind}")


def _restarts(table: memoryview, block: Block) -> int:
    """Where the entries of a block end and the positions begin that are for searching."""
    count = int.from_bytes(table[max(block.end - 4, block.start) : block.end], "little")
    start = block.end - 4 * (count + 1)
    if start < block.start:
        raise protobuf.WireError(f"the block at byte {block.start} is too short for {count} restarts")
    return start


def seal(table: bytearray, block: Block) -> None:
    """Correct the checksum of a block whose values were changed."""
    checksum = masked_crc32c([bytes(table[block.start : block.end + 1])])
    table[block.end + 1 : block.end + _TRAILER] = checksum.to_bytes(4, "little")
