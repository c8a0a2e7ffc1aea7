"""Tensors of NNEF archives: 128 bytes of header, then the items in row-major order, little endian."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.shared import dtypes
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.records import dataclass

HEADER_SIZE = 128

_MAGIC = b"\x4e\xef"
_FIELDS = struct.Struct("<2sBBII8III19I")
_MOST_DIMENSIONS = 8
_RESERVED = 19
_LONGEST = (1 << 32) - 1  # what the header can say of the data's length


class ItemType(IntEnum):
    """``item-type``; the upper half of the field is the vendor's, 0 for those of the standard."""

    FLOAT = 0
    UINT = 1
    QUINT = 2
    QINT = 3
    INT = 4
    BOOL = 5


_WIDTHS = {
    ItemType.FLOAT: (16, 32, 64),
    **dict.fromkeys((ItemType.UINT, ItemType.QUINT, ItemType.QINT, ItemType.INT), (*range(1, 9), 16, 32, 64)),
    ItemType.BOOL: (1, 8),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a tensor file says before its data; ``reserved`` without the zeros at its end.

    Raises `UnsupportedError` for item types or widths that the standard does not have, `ModelError` for tensors that
    the file format cannot hold.
    """

    shape: tuple[int, ...]
    item_type: ItemType = ItemType.FLOAT
    bits_per_item: int = 32
    reserved: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.bits_per_item not in _WIDTHS[self.item_type]:
            raise UnsupportedError(f"NNEF items of type {self.item_type.name} with {self.bits_per_item} bits")
        if len(self.shape) > _MOST_DIMENSIONS or any(not 0 <= size <= _LONGEST for size in self.shape):
            raise ModelError(f"NNEF has no tensors of shape {self.shape}")
        if len(self.reserved) > _RESERVED or any(not 0 <= word <= _LONGEST for word in self.reserved):
            raise ModelError("the reserved words of a tensor header are out of range")
        if self.data_length > _LONGEST:
            raise ModelError(f"{self.data_length} bytes are more than an NNEF tensor can have")

    @classmethod
    def parse(cls, data: bytes | memoryview, size: int) -> Header:
        """The header in the first bytes of a file of ``size`` bytes.

        Raises `ModelError` where it contradicts itself or ``size``, `UnsupportedError` for a vendor's item type.
        """
        if len(data) < HEADER_SIZE:
            raise ModelError(f"a tensor file of {len(data)} bytes has no complete header")
        magic, major, minor, data_length, rank, *words = _FIELDS.unpack_from(data)
        extents, (bits, item_type), reserved = words[:8], words[8:10], words[10:]
        if magic != _MAGIC:
            raise ModelError("not an NNEF tensor: it does not begin with 4E EF")
        if (major, minor) != (1, 0):
            raise UnsupportedError(f"version {major}.{minor} of NNEF tensors")
        if rank > _MOST_DIMENSIONS or any(extents[rank:]):
            raise ModelError(f"the tensor header has rank {rank} and extents {extents}")
        header = cls(tuple(extents[:rank]), _known(item_type), bits, _stripped(reserved))
        if data_length != header.data_length or size != HEADER_SIZE + data_length:
            needed = f"shape {list(header.shape)} needs {header.data_length}"
            raise ModelError(f"the header says {data_length} bytes of data, there are {size - HEADER_SIZE}, {needed}")
        return header

    def pack(self) -> bytes:
        """The 128 bytes."""
        unused = (0,) * (_MOST_DIMENSIONS - len(self.shape))
        filled = (*self.reserved, *(0,) * (_RESERVED - len(self.reserved)))
        fields = (*self.shape, *unused, self.bits_per_item, self.item_type, *filled)
        return _FIELDS.pack(_MAGIC, 1, 0, self.data_length, len(self.shape), *fields)

    @property
    def elements(self) -> int:
        """The number of items."""
        return prod(self.shape)

    @property
    def data_length(self) -> int:
        """The number of bytes that the items take."""
        return -(-self.elements * self.bits_per_item // 8)

    @property
    def signed(self) -> bool:
        """Whether items can be negative; unsigned ones with a word in the reserved part are signed, in old files."""
        signed_types = (ItemType.FLOAT, ItemType.INT, ItemType.QINT)
        return self.item_type in signed_types or (self.item_type == ItemType.UINT and any(self.reserved[:1]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type that has the items; those of less than 8 bits are taken as 8."""
        kind = "f" if self.item_type == ItemType.FLOAT else "i" if self.signed else "u"
        return np.dtype(f"{kind}{max(8, self.bits_per_item) // 8}")


def _known(item_type: int) -> ItemType:
    if item_type >> 16:
        raise UnsupportedError(f"the vendor-specific NNEF item type 0x{item_type:08X}")
    try:
        return ItemType(item_type)
    except ValueError:
        raise UnsupportedError(f"NNEF item type {item_type}") from None


def _stripped(words: Sequence[int]) -> tuple[int, ...]:
    used = len(words)
    while used and not words[used - 1]:
        used -= 1
    return tuple(words[:used])


def default(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Header:
    """The header for an array of which nothing else is known; `ModelError` for a type that NNEF does not have."""
    kinds = {"f": ItemType.FLOAT, "i": ItemType.INT, "u": ItemType.UINT}
    if dtype.kind not in kinds:
        raise ModelError(f"NNEF has no items of type {dtype}")
    return Header(shape, kinds[dtype.kind], 8 * dtype.itemsize)


def load(header: Header, data: memoryview) -> NDArray[Any]:
    """The array in the ``data`` that follow ``header``; a view where the items are whole bytes."""
    if header.bits_per_item >= 8:
        array = np.frombuffer(data, header.dtype.newbyteorder("<")).astype(header.dtype, copy=False)
    else:
        array = _unpacked(header, np.frombuffer(data, np.uint8))
    return array.reshape(header.shape)


def _unpacked(header: Header, data: NDArray[np.uint8]) -> NDArray[Any]:
    """Items of less than 8 bits, which lie one after the other, the most significant bit first."""
    width = header.bits_per_item
    bits = np.unpackbits(data, count=header.elements * width).reshape(-1, width)
    items = np.packbits(bits, axis=1)[:, 0]  # as the upper bits
    return items.view(header.dtype) >> (8 - width)


def dump(header: Header, array: NDArray[Any]) -> memoryview:
    """The data for ``header``; floats are rounded to its width. `ModelError` where integers do not fit."""
    if header.item_type == ItemType.FLOAT:
        try:
            return dtypes.stored(dtypes.converted(array, header.dtype))
        except ValueError as error:
            raise ModelError(str(error)) from None
    items = _integers(header, array)
    return dtypes.stored(items) if header.bits_per_item >= 8 else _packed(header, items)


def _integers(header: Header, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "iu":
        raise ModelError(f"values are {array.dtype}, the model has {header.item_type.name}")
    width = header.bits_per_item
    least, most = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if header.signed else (0, (1 << width) - 1)
    if array.size and (int(array.min()) < least or int(array.max()) > most):
        raise ModelError(f"values from {array.min()} to {array.max()} do not fit {width} bits")
    return array.astype(header.dtype, copy=False)


def _packed(header: Header, items: NDArray[Any]) -> memoryview:
    width = header.bits_per_item
    bits = np.unpackbits(np.ascontiguousarray(items).view(np.uint8).reshape(-1, 1), axis=1)[:, 8 - width :]
    return np.packbits(bits).data
