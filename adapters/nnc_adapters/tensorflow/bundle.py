"""TensorFlow's checkpoints: an index, and the values of the tensors in one or more data files.

The index maps names to messages that say where the values are and what their checksum is. A tensor keeps its size when
it gets other values, so nothing is ever moved: values and checksums are replaced where they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from nnc_adapters.shared import protobuf
from nnc_adapters.tensorflow import table
from nnc_adapters.tensorflow.checksum import masked_crc32c
from nnc_adapters.tensorflow.content import Content
from nnc_adapters.tensorflow.messages import Message
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.records import dataclass

__all__ = ["TYPES", "Index", "Item", "data_suffix", "read", "refreshed", "string_scalar", "verify"]

_STRING = 7
TYPES = {
    1: ("float32", 4),
    2: ("float64", 8),
    3: ("int32", 4),
    4: ("uint8", 1),
    5: ("int16", 2),
    6: ("int8", 1),
    8: ("complex64", 8),
    9: ("int64", 8),
    10: ("bool", 1),
    14: ("bfloat16", 2),
    17: ("uint16", 2),
    18: ("complex128", 16),
    19: ("float16", 2),
    22: ("uint32", 4),
    23: ("uint64", 8),
}
"""Names and sizes by tensorflow.DataType, without those that have no fixed size or several values in a byte."""

# fields of BundleHeaderProto, BundleEntryProto, TensorShapeProto and its Dim
_SHARDS, _ENDIANNESS = 1, 2
_DATA_TYPE, _SHAPE, _SHARD, _OFFSET, _SIZE, _CRC32C, _SLICES = range(1, 8)
_DIM, _UNKNOWN_RANK = 2, 3
_DIM_SIZE = 1

_MOST_SHARDS = 100_000  # five digits number them in the names of the files
_NEGATIVE = 1 << 63
_OF_A_SLICE = b"\0"  # the names of parts of a tensor begin so


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor of the index: ``size`` bytes from ``offset`` of the data file ``shard``.

    ``dtype`` is empty for types that are not arrays of numbers, ``crc_at`` is the byte of the index where ``crc32c``
    is stored (None: it is 0, and not stored).
    """

    key: bytes
    data_type: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    crc_at: int | None
    block: table.Block

    @property
    def dtype(self) -> str:
        """The name of the data type in numpy or ml_dtypes."""
        return TYPES.get(self.data_type, ("", 0))[0]

    @property
    def name(self) -> str:
        """The key as text; of a part of a tensor, the name of the tensor."""
        key = self.key
        if self.is_slice:  # in a code that keeps the order of names and parts
            key = key[1:].partition(b"\0\1")[0].replace(b"\0\xff", b"\0").replace(b"\xff\0", b"\xff")
        return key.decode("utf-8", "backslashreplace")

    @property
    def is_slice(self) -> bool:
        """Whether this is a part of a tensor that was saved in several."""
        return self.key.startswith(_OF_A_SLICE)


@dataclass(frozen=True, slots=True)
class Index:
    """What an index says; ``items`` are in the order of their names, without tensors that are saved in parts."""

    items: tuple[Item, ...]
    shards: int


def data_suffix(shard: int, shards: int) -> str:
    """How the name of a data file ends."""
    return f".data-{shard:05d}-of-{shards:05d}"


def read(data: memoryview, limits: Limits) -> Index:
    """Read an index; `ModelError` where it is damaged, `UnsupportedError` where it is big endian.

    Places in the index are those in a table without compression.
    """
    data = table.plain(data, limits)
    entries = table.entries(data, limits)
    header = next(entries, None)
    if header is None or header.key != b"":
        raise ModelError("the index is damaged: it has no header")
    try:
        shards = _shards(Message(data, header.start, header.end))
        found = [_item(data, entry, shards, limits) for entry in entries]
    except protobuf.WireError as error:
        raise ModelError(f"the index is damaged: {error}") from error
    return Index(tuple(item for item in found if item is not None), shards)


def _shards(header: Message) -> int:
    if header.number(_ENDIANNESS) != 0:
        raise UnsupportedError("a checkpoint in big endian")
    shards = header.number(_SHARDS)
    if not 0 < shards < _MOST_SHARDS:
        raise protobuf.WireError(f"there are {shards} data files")
    return shards


def _item(data: memoryview, entry: table.Entry, shards: int, limits: Limits) -> Item | None:
    message = Message(data, entry.start, entry.end)
    if next(message.messages(_SLICES), None) is not None:
        return None
    crc = message.field(_CRC32C, protobuf.FIXED32)
    item = Item(
        key=entry.key,
        data_type=message.number(_DATA_TYPE),
        shape=_shape(message, limits),
        shard=message.number(_SHARD),
        offset=message.number(_OFFSET),
        size=message.number(_SIZE),
        crc32c=0 if crc is None else int.from_bytes(data[crc.value : crc.end], "little"),
        crc_at=None if crc is None else crc.value,
        block=entry.block,
    )
    _check(item, shards)
    return item


def _check(item: Item, shards: int) -> None:
    if item.shard >= shards:
        raise ModelError(f"is in data file {item.shard}, there are {shards}", tensor=item.name)
    if max(item.offset, item.size, *item.shape, 0) >= _NEGATIVE:
        raise ModelError("a size or position is negative", tensor=item.name)
    if item.dtype and item.size != math.prod(item.shape) * TYPES[item.data_type][1]:
        raise ModelError(f"{item.dtype} of shape {item.shape} does not take {item.size} bytes", tensor=item.name)


def _shape(entry: Message, limits: Limits) -> tuple[int, ...]:
    for shape in entry.messages(_SHAPE):
        if shape.number(_UNKNOWN_RANK):
            raise protobuf.WireError("a stored tensor has unknown rank")
        found = tuple(dim.number(_DIM_SIZE) for dim in shape.messages(_DIM))
        limits.check("dimensions", len(found), "the index of a checkpoint")
        return found
    return ()


def verify(index: Index, shards: Mapping[int, Content]) -> None:
    """`ModelError` unless the data files have all values, and with the checksums that the index has for them."""
    for item in index.items:
        if _checksum(item, _content(item, index, shards)) != item.crc32c and item.dtype:
            raise ModelError("its values do not have the checksum in the index", tensor=item.name)


def _content(item: Item, index: Index, shards: Mapping[int, Content]) -> Content:
    if item.shard not in shards:
        raise ModelError(f"there is no data file {data_suffix(item.shard, index.shards)}", tensor=item.name)
    content = shards[item.shard]
    if item.offset + item.size > content.size:
        message = f"{item.size} bytes at byte {item.offset} are needed, the data file has {content.size}"
        raise ModelError(message, tensor=item.name)
    return content


def _checksum(item: Item, content: Content) -> int:
    return masked_crc32c(content.pieces(item.offset, item.size))


def string_scalar(item: Item, content: Content) -> bytes:
    """The one string in a tensor; `ModelError` where it is not such a tensor."""
    data = content.raw(item.offset, item.size).data
    try:
        if item.data_type != _STRING or item.shape:
            raise protobuf.WireError("it is not a string")
        size, at = protobuf.varint(data, 0, len(data))
    except protobuf.WireError as error:
        raise ModelError(str(error), tensor=item.name) from error
    at += 4  # the checksum of the lengths
    if at + size != len(data):
        raise ModelError(f"has {len(data) - at} bytes of text instead of {size}", tensor=item.name)
    return bytes(data[at:])


def refreshed(data: bytes, files: Mapping[str, Content], limits: Limits) -> bytes:
    """An index with the checksums of the values that are now in the data files, which are given by their suffixes.

    It is the same to the last byte if no value changed, and otherwise without compression.
    """
    plain = table.plain(memoryview(data), limits)
    index = read(plain, limits)
    shards = {n: files[suffix] for n in range(index.shards) if (suffix := data_suffix(n, index.shards)) in files}
    changed = bytearray(plain)
    blocks = dict.fromkeys(_replaced(changed, index, shards))
    for block in blocks:
        table.seal(changed, block)
    return bytes(changed) if blocks else data


def _replaced(data: bytearray, index: Index, shards: Mapping[int, Content]) -> Iterator[table.Block]:
    for item in index.items:
        checksum = _checksum(item, _content(item, index, shards)) if item.dtype else item.crc32c
        if checksum == item.crc32c:
            continue
        if item.crc_at is None:
            raise ModelError("the index has no place for its checksum", tensor=item.name)
        data[item.crc_at : item.crc_at + 4] = checksum.to_bytes(4, "little")
        yield item.block
