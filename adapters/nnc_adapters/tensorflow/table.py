"""The sorted table of LevelDB, in which a checkpoint's index is stored: entries with the places of their values.

A table is a row of blocks, each followed by its compression type and a checksum. The last 48 bytes say where the index
block is, which says where the others are. Values are changed in place: then only the checksum of their block changes.
A table of compressed blocks is made anew without compression for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nnc_adapters.shared import protobuf
from nnc_adapters.tensorflow import snappy
from nnc_adapters.tensorflow.checksum import masked_crc32c
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits

__all__ = ["MAGIC", "Entry", "entries", "plain", "seal"]

MAGIC = bytes.fromhex("57fb808b247547db")
"""The last bytes of a table."""

_FOOTER = 48
_TRAILER = 5  # compression type and checksum
_STORED, _SNAPPY = 0, 1


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
    """Every entry of a table without compression, see `plain`, in order.

    Raises `ModelError` where it is damaged, `LimitError` for a key beyond ``limits.name_length``.
    """
    try:
        last = None
        for _, block in _blocks(table, limits):
            for key, start, end in _pairs(_contents(table, block, limits), limits):
                if last is not None and key <= last:
                    raise ModelError(f"the index is damaged: its keys are not in order before byte {block.end}")
                last = key
                yield Entry(key, block.start + start, block.start + end, block)
    except protobuf.WireError as error:
        raise ModelError(f"the index is damaged: {error}") from error


def plain(table: memoryview, limits: Limits) -> memoryview:
    """``table``, or a table with the same entries and without compression, if there is some.

    Raises `ModelError` where it is damaged, `UnsupportedError` for compression other than snappy.
    """
    try:
        blocks = list(_blocks(table, limits))
        if all(table[block.end] == _STORED for block in (_index(table), *(block for _, block in blocks))):
            return table
        return memoryview(_table((key, bytes(_contents(table, block, limits))) for key, block in blocks))
    except protobuf.WireError as error:
        raise ModelError(f"the index is damaged: {error}") from error


def _index(table: memoryview) -> Block:
    footer = len(table) - _FOOTER
    if footer < 0 or table[-len(MAGIC) :] != MAGIC:
        raise ModelError("is not an index of a checkpoint: it does not end like a LevelDB table")
    _, at = _handle(table, footer, len(table) - len(MAGIC), footer)
    return _handle(table, at, len(table) - len(MAGIC), footer)[0]


def _blocks(table: memoryview, limits: Limits) -> Iterator[tuple[bytes, Block]]:
    """The blocks that the index points to, and the keys by which it does."""
    index, last = _contents(table, _index(table), limits), 0
    for key, start, end in _pairs(index, limits):
        block, _ = _handle(index, start, end, len(table) - _FOOTER)
        if block.start < last:
            raise protobuf.WireError(f"the block at byte {block.start} comes after one that ends at byte {last}")
        last = block.end + _TRAILER
        yield key, block


def _handle(data: memoryview, at: int, end: int, available: int) -> tuple[Block, int]:
    """The block that the two numbers at ``at`` point to, and where they end."""
    start, at = protobuf.varint(data, at, end)
    size, at = protobuf.varint(data, at, end)
    if start + size + _TRAILER > available:
        raise protobuf.WireError(f"a block of {size} bytes at byte {start} ends outside the table")
    return Block(start, start + size), at


def _contents(table: memoryview, block: Block, limits: Limits) -> memoryview:
    """What is in a block; its checksum is checked."""
    stored = int.from_bytes(table[block.end + 1 : block.end + _TRAILER], "little")
    if masked_crc32c([bytes(table[block.start : block.end + 1])]) != stored:
        raise ModelError(f"the index is damaged: the checksum of the block at byte {block.start} is wrong")
    data, kind = table[block.start : block.end], table[block.end]
    if kind == _SNAPPY:
        return memoryview(snappy.uncompressed(data, limits.topology_bytes))
    if kind != _STORED:
        raise UnsupportedError(f"a checkpoint index with compression type {kind}")
    return data


def _pairs(contents: memoryview, limits: Limits) -> Iterator[tuple[bytes, int, int]]:
    """The keys in a block, and where their values begin and end."""
    at, end = 0, _restarts(contents)
    key = b""
    while at < end:
        shared, at = protobuf.varint(contents, at, end)
        added, at = protobuf.varint(contents, at, end)
        size, at = protobuf.varint(contents, at, end)
        if shared > len(key) or at + added + size > end:
            raise protobuf.WireError(f"an entry before byte {at} reaches out of its block")
        limits.check("name_length", shared + added, "the index of a checkpoint")
        key = key[:shared] + bytes(contents[at : at + added])
        at += added + size
        yield key, at - size, at


def _restarts(contents: memoryview) -> int:
    """Where the entries of a block end and the positions begin that are for searching."""
    count = int.from_bytes(contents[max(len(contents) - 4, 0) :], "little")
    start = len(contents) - 4 * (count + 1)
    if start < 0:
        raise protobuf.WireError(f"a block of {len(contents)} bytes is too short for {count} restarts")
    return start


def _table(blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table of blocks with these contents, by the keys in its index."""
    out, index, starts = bytearray(), bytearray(), []
    for key, contents in blocks:
        handle = _appended(out, contents)
        starts.append(len(index))
        index += b"".join(map(protobuf.encoded, (0, len(key), len(handle)))) + key + handle
    footer = _appended(out, _searchable(b"", [0])) + _appended(out, _searchable(index, starts or [0]))
    return bytes(out) + footer.ljust(_FOOTER - len(MAGIC), b"\0") + MAGIC


def _searchable(pairs: bytes | bytearray, starts: list[int]) -> bytes:
    return bytes(pairs) + b"".join(number.to_bytes(4, "little") for number in (*starts, len(starts)))


def _appended(out: bytearray, contents: bytes) -> bytes:
    """Put a block with its trailer behind ``out``, and return its handle."""
    handle = protobuf.encoded(len(out)) + protobuf.encoded(len(contents))
    stored = contents + bytes([_STORED])
    out += stored + masked_crc32c([stored]).to_bytes(4, "little")
    return handle


def seal(table: bytearray, block: Block) -> None:
    """Correct the checksum of a block whose values were changed."""
    checksum = masked_crc32c([bytes(table[block.start : block.end + 1])])
    table[block.end + 1 : block.end + _TRAILER] = checksum.to_bytes(4, "little")
