"""Files of ``torch.save`` before its archives: five pickles, then the storages one after the other."""

from __future__ import annotations

import struct
from typing import Any

from nnc_adapters.pytorch import pickles
from nnc_adapters.pytorch.views import ITEM_SIZES, Scan
from nnc_adapters.pytorch.zipped import views
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.stored import Bytes

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LONGEST_LINE = 1 << 16


@dataclass(slots=True)
class _Cursor:
    """Bytes as a file object that pickles are read from."""

    view: Bytes
    at: int = 0

    def tell(self) -> int:
        return self.at

    def read(self, size: int) -> bytes:
        data = bytes(self.view[self.at : self.at + size])
        self.at += len(data)
        return data

    def readline(self) -> bytes:
        end = bytes(self.view[self.at : self.at + _LONGEST_LINE]).find(b"\n")
        return self.read(end + 1 if end >= 0 else _LONGEST_LINE)


def is_legacy(view: Bytes) -> bool:
    """Whether the bytes begin with the magic number."""
    try:
        return bool(pickles.load(_Cursor(view[:64])).value == _MAGIC)
    except ValueError:
        return False


def scan(view: Bytes, limits: Limits, *, opaque: bool = False) -> Scan:
    """Find the tensors of a file, which may have ``opaque`` objects; `ValueError` for a damaged one."""
    cursor = _Cursor(view)
    _, protocol, system = (pickles.load(cursor) for _ in range(3))
    pickle, keys = pickles.load(cursor, opaque=opaque), pickles.load(cursor)
    if protocol.value != _PROTOCOL or not isinstance(system.value, dict) or not isinstance(keys.value, list):
        raise ValueError("it is of an unknown version")
    if system.value.get("little_endian") is not True:
        raise ValueError("its numbers are big endian; load and save it again with torch on a common machine")
    dtypes: dict[str, str] = {}
    for storage in pickle.storages:
        dtypes.setdefault(storage.key, storage.dtype)
    spans: dict[str, tuple[int, int]] = {}
    for key in map(str, keys.value):
        if key not in dtypes or key in spans or dtypes[key] not in ITEM_SIZES:
            raise ValueError(f"the storage {key} is not used, or cannot be read")
        spans[key] = _span(view, cursor, ITEM_SIZES[dtypes[key]])
    if dtypes.keys() != spans.keys():
        raise ValueError("a storage is missing")
    return Scan("legacy", list(views(pickle, spans, limits)), nested=True, opaque=frozenset(pickle.opaque))


def value(view: Bytes, limits: Limits) -> Any:
    """What was saved, with every object in it as it is described."""
    cursor = _Cursor(view)
    return [pickles.load(cursor, opaque=True) for _ in range(4)][3].value


def _span(view: Bytes, cursor: _Cursor, item: int) -> tuple[int, int]:
    size = cursor.read(8)
    if len(size) < 8:
        raise ValueError("it ends before its storages do")
    start = cursor.at
    cursor.at += struct.unpack("<Q", size)[0] * item
    if cursor.at > len(view):
        raise ValueError("it ends before its storages do")
    return start, cursor.at
