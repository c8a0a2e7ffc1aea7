"""The tensors of a file as it has them: views of storages, some of which share their bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.shared.dtypes import FLOATS, INTEGERS, named
from nnc_adapters.shared.windows import window
from nnc_core.records import dataclass
from nnc_core.stored import Bytes, StoredBytes

ITEM_SIZES = {
    **dict.fromkeys(("bool", "int8", "uint8", "qint8", "quint8", "bits8"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32", "qint32", "complex32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8),
    "complex128": 16,
}
PATTERNS = frozenset(
    kind for kind, size in ITEM_SIZES.items() if size <= 8 and not kind.startswith(("q", "bits", "complex"))
)
"""The types whose elements numpy or ml_dtypes have as numbers of at most 64 bits."""

_MOST_DIMENSIONS = 64
_MOST_CODED_DIMENSIONS = 32  # of arrays in older numpy


@dataclass(frozen=True, slots=True)
class Data:
    """The bytes of a file, read where they are asked for; ``path`` is None for those that are in memory."""

    view: Bytes
    path: Path | None = None

    @classmethod
    def of_file(cls, path: Path) -> Data:
        """The bytes of the file ``path``."""
        return cls(StoredBytes(path), path)

    def array(self, start: int, size: int) -> NDArray[np.uint8]:
        """``size`` bytes from ``start``."""
        if self.path is None:
            return np.frombuffer(self.view[start : start + size], np.uint8)
        return window(self.path, start, size)


@dataclass(frozen=True, slots=True)
class View:
    """A tensor in a file: its first element is at byte ``start``, ``strides`` count elements.

    ``path`` are the keys that lead to it. ``storage`` is the range of bytes that it is a view of; tensors with the same
    storage may overlap. ``exact`` says that no byte of the storage may change; for what an ``optimizer`` keeps this
    holds unless all of it is dropped.
    """

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    storage: tuple[int, int]
    exact: bool = False
    optimizer: bool = False

    @property
    def elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def end(self) -> int:
        """The byte after the last element, however the others lie."""
        if not self.elements:
            return self.start
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.start + (last + 1) * ITEM_SIZES[self.dtype]

    @property
    def codable(self) -> bool:
        """Whether the codec knows the type, and the elements fill their bytes without gaps."""
        return self.dtype in FLOATS | INTEGERS and len(self.shape) > 0 and self.has_bits

    @property
    def has_bits(self) -> bool:
        """Whether numpy knows the type, and the elements fill their bytes without gaps."""
        known = self.dtype in PATTERNS and len(self.shape) <= _MOST_CODED_DIMENSIONS and self.elements > 0
        return known and self.end - self.start == self.elements * ITEM_SIZES[self.dtype] and self._is_dense()

    @property
    def order(self) -> tuple[int, ...]:
        """The dimensions as they lie in memory, the one with the largest steps first."""
        return tuple(sorted(range(len(self.shape)), key=lambda d: (-self.strides[d], d)))

    def _is_dense(self) -> bool:
        expected = 1
        for dimension in reversed([d for d in self.order if self.shape[d] > 1]):
            if self.strides[dimension] != expected:
                return False
            expected *= self.shape[dimension]
        return True

    def checked(self) -> View:
        """The view; `ValueError` where it reaches beyond its storage."""
        check_shape(self.path, self.shape)
        if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides, 0)) < 0:
            raise ValueError(f"tensor {'.'.join(self.path)!r} has shape {self.shape} and strides {self.strides}")
        begin, end = self.storage
        if self.dtype in ITEM_SIZES and not (begin <= self.start and self.end <= end):
            raise ValueError(f"tensor {'.'.join(self.path)!r} reaches beyond its {end - begin} bytes")
        return self


def check_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """`ValueError` for more dimensions than PyTorch has, whose product could have no end."""
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"tensor {'.'.join(path)!r} has {len(shape)} dimensions")


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor whose elements lie row after row."""
    return tuple(prod(shape[d + 1 :]) for d in range(len(shape)))


@dataclass(frozen=True, slots=True)
class Layout:
    """How a coded tensor lies in its place: of which type, and with which dimension outermost."""

    dtype: str
    shape: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of bytes."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]

    def load(self, data: NDArray[np.uint8]) -> NDArray[Any]:
        """The tensor in ``data``."""
        item = ITEM_SIZES[self.dtype]
        words = data.view(f"<u{item}").astype(f"=u{item}", copy=False)
        words = words if words.flags.aligned else words.copy()
        lying: NDArray[Any] = words.view(named(self.dtype)).reshape([self.shape[d] for d in self.order])
        turned: NDArray[Any] = lying.transpose([self.order.index(d) for d in range(len(self.order))])
        return turned

    def lying(self, array: NDArray[Any]) -> NDArray[Any]:
        """``array`` as it lies in its place."""
        turned: NDArray[Any] = array.transpose(self.order)
        return turned


@dataclass(frozen=True, slots=True)
class Checksum:
    """The CRC-32 of the bytes from ``start`` to ``end``, which stands at each of ``places``."""

    start: int
    end: int
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in a file. ``nested`` says that the tensors may lie in a state dict inside something larger.

    ``opaque`` are the names of classes and functions that loading the file would run.
    """

    kind: str
    views: list[View]
    checksums: list[Checksum] = field(default_factory=list)
    nested: bool = False
    opaque: frozenset[str] = frozenset()


def slots(views: Iterable[View]) -> list[tuple[int, int]]:
    """The storages of nothing but what an optimizer keeps for each weight; its counters and rates are scalars."""
    storages: defaultdict[tuple[int, int], list[View]] = defaultdict(list)
    for view in views:
        storages[view.storage].append(view)
    return sorted(storage for storage, sharing in storages.items() if all(map(_is_slot, sharing)))


def _is_slot(view: View) -> bool:
    return view.optimizer and view.dtype in FLOATS and view.elements > 0 and view.shape != ()


def separate(views: Iterable[View], wanted: Callable[[View], bool]) -> Iterator[View]:
    """The views that are ``wanted`` and do not overlap; of those that do, the largest, and the first of equal ones.

    What must be exact is never wanted, except for what an optimizer keeps.
    """
    storages: defaultdict[tuple[int, int], list[View]] = defaultdict(list)
    for view in views:
        storages[view.storage].append(view)
    for sharing in storages.values():
        if any(v.exact and not (v.optimizer and wanted(v)) for v in sharing) or len({v.dtype for v in sharing}) > 1:
            continue
        taken: list[tuple[int, int]] = []
        for view in sorted(sharing, key=lambda v: -v.elements):
            span = (view.start, view.end)
            place = bisect_left(taken, span)
            free = (place == 0 or taken[place - 1][1] <= span[0]) and (
                place == len(taken) or span[1] <= taken[place][0]
            )
            if free and wanted(view):
                taken.insert(place, span)
                yield view
